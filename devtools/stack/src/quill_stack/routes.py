"""Which service answers which path: the one table behind the gateway and behind the compose proxy's configuration.

Every service is also reachable whole below its own name, so that health, metrics and dead letters of each have an
address: ``/usage-ingest/health/ready`` is ``/health/ready`` of usage-ingest.
"""

from typing import Final

PREFIXES: Final[dict[str, tuple[str, ...]]] = {
    "usage-ingest": (
        "/api/usage",
        "/api/v2/usage",
        "/api/v2/spend",
        "/api/v2/billing/usage",
        "/api/v2/billing/spend",
        "/v1/usage",
        "/v1/report-runs",
        "/v1/meter-events",
        "/v1/generations",
        "/v1/sources",
    ),
    "quota-limiter": ("/v1/quota", "/v1/limits"),
    "subscriptions": ("/v1/customers", "/v1/catalog", "/v1/billing-updates"),
    "invoicing": (
        "/v1/invoices",
        "/v1/reconciliations",
        "/v1/closings",
        "/v1/credits",
        "/v1/alerts",
        "/webhooks/stripe",
    ),
    "licensing": ("/v1/licenses", "/activation", "/licenses"),
}

REST: Final = ("subscriptions", "/api")
"""Who answers the paths below ``/api`` that no prefix names. PostHog's client takes 404 as done, so a path that nobody
knows reaches a service too, which answers 501."""

PER_SERVICE: Final[tuple[str, ...]] = ("/health", "/metrics", "/v1/dead-letters", "/v1/operations", "/openapi.json")
"""Paths that every service has, which only its own name can tell apart."""


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")


def find_service(path: str) -> tuple[str, str] | None:
    """The service that answers ``path`` and the path it must be asked for, or ``None`` when nobody does."""
    for service, prefixes in PREFIXES.items():
        if any(_is_below(path, prefix) for prefix in prefixes):
            return service, path
        if _is_below(path, f"/{service}"):
            return service, path.removeprefix(f"/{service}") or "/"
    service, prefix = REST
    return (service, path) if _is_below(path, prefix) else None

"""``/v1/limits/webhooks``: who is told over HTTP, what is on its way, what failed. For operators."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query
from quill_runtime.clock import Clock
from quill_runtime.problems import Problem
from quill_runtime.sealing import Sealer

from quill_quota_limiter.api.authorization import Gate
from quill_quota_limiter.domain.webhook_address import RefusedUrl
from quill_quota_limiter.domain.webhook_delivery import DeliveryStatus
from quill_quota_limiter.domain.webhook_endpoint import WebhookEndpoint
from quill_quota_limiter.ports import LimitsStore, WebhookSender
from quill_quota_limiter.usecases.change_webhooks import (
    UnknownDelivery,
    UnknownEndpoint,
    WebhooksConflict,
    add_endpoint,
    change_endpoint,
    remove_endpoint,
    replay_delivery,
    replay_failed,
    rotate_secret,
    stream_of,
)
from quill_quota_limiter.wire.webhooks import (
    SECRET_BYTES,
    NewWebhook,
    SecretRotation,
    WebhookChange,
    WebhookCommand,
    to_wire_delivery,
    to_wire_endpoint,
    to_wire_secret,
)

DELIVERIES_PAGE_MAX: Final = 500

Authorization = Annotated[str | None, Header()]


@dataclass(frozen=True, slots=True)
class SecretMint:
    """Makes secrets and seals them; only the sealed form is kept."""

    sealer: Sealer

    def mint(self, endpoint_id: str) -> tuple[str, str]:
        """A secret as a person copies it, and as it is kept."""
        secret = secrets.token_bytes(SECRET_BYTES)
        return to_wire_secret(secret), self.sealer.seal(secret, context=stream_of(endpoint_id))


def router(*, store: LimitsStore, sender: WebhookSender, sealer: Sealer, gate: Gate, clock: Clock) -> APIRouter:
    """To be included before the routes that name an organization. A secret is said once, when it is made."""
    routes = APIRouter(prefix="/v1/limits/webhooks", tags=["webhooks"])
    mint = SecretMint(sealer)
    _add_deliveries(routes, store=store, gate=gate, clock=clock)
    _add_commands(routes, mint, store=store, gate=gate, clock=clock)

    @routes.get("")
    async def list_endpoints(authorization: Authorization = None) -> dict[str, Any]:
        """Every endpoint, and how many deliveries are on their way."""
        gate.admit_operator(authorization)
        async with store.begin() as tx:
            endpoints, pending = await tx.webhooks.endpoints(), await tx.webhooks.pending_count()
        return {"results": [to_wire_endpoint(each) for each in endpoints], "pending": pending}

    @routes.post("", status_code=201)
    async def add(asked: NewWebhook, authorization: Authorization = None) -> dict[str, Any]:
        """Tell at another address from now on; the answer holds the secret, which is never shown again."""
        gate.admit_operator(authorization)
        await _check_url(sender, asked.url)
        endpoint_id = f"whe_{secrets.token_hex(12)}"
        secret, sealed = mint.mint(endpoint_id)
        endpoint = WebhookEndpoint(
            endpoint_id=endpoint_id,
            url=asked.url,
            description=asked.description,
            events=tuple(dict.fromkeys(asked.events)),
            organization_id=asked.organization_id,
            sealed_secret=sealed,
            created_at=clock.now(),
        )
        with _refusals():
            async with store.begin() as tx:
                added = await add_endpoint(endpoint, actor=asked.actor, reason=asked.reason, tx=tx)
        return {**to_wire_endpoint(added), "secret": secret}

    @routes.get("/{endpoint_id}")
    async def show(endpoint_id: str, authorization: Authorization = None) -> dict[str, Any]:
        """One endpoint with everything that was ever changed about it (L20)."""
        gate.admit_operator(authorization)
        async with store.begin() as tx:
            found = await tx.webhooks.find_endpoint(endpoint_id)
            events = await tx.recorded(stream_of(endpoint_id))
        if found is None:
            raise _unknown_endpoint()
        changes = [{"type": e.type, "actor": e.actor, "at": e.occurred_at, **e.data} for e in events]
        return {**to_wire_endpoint(found), "changes": changes}

    @routes.patch("/{endpoint_id}")
    async def change(endpoint_id: str, asked: WebhookChange, authorization: Authorization = None) -> dict[str, Any]:
        """Change what is given; ``enabled`` true sends what waited, false lets it wait."""
        gate.admit_operator(authorization)
        if asked.url is not None:
            await _check_url(sender, asked.url)
        with _refusals():
            async with store.begin() as tx:
                after = await change_endpoint(
                    endpoint_id,
                    url=asked.url,
                    description=asked.description,
                    events=asked.events,
                    enabled=asked.enabled,
                    actor=asked.actor,
                    reason=asked.reason,
                    tx=tx,
                    now=clock.now(),
                )
        return to_wire_endpoint(after)

    return routes


def _add_commands(routes: APIRouter, mint: SecretMint, *, store: LimitsStore, gate: Gate, clock: Clock) -> None:
    @routes.delete("/{endpoint_id}")
    async def remove(
        endpoint_id: str,
        actor: Annotated[str | None, Query(max_length=200)] = None,
        reason: Annotated[str | None, Query(max_length=1_000)] = None,
        authorization: Authorization = None,
    ) -> dict[str, Any]:
        """Tell there no more; what was on its way has failed."""
        gate.admit_operator(authorization)
        for name, value in (("actor", actor), ("reason", reason)):
            if not value:
                raise Problem(400, "invalid_input", f"{name}: say it in the query (L20)", attr=name)
        with _refusals():
            async with store.begin() as tx:
                await remove_endpoint(endpoint_id, actor=actor or "", reason=reason or "", tx=tx, now=clock.now())
        return {"endpoint_id": endpoint_id, "removed": True}

    @routes.post("/{endpoint_id}/rotate")
    async def rotate(endpoint_id: str, asked: SecretRotation, authorization: Authorization = None) -> dict[str, Any]:
        """Make another secret, shown once; the one before it signs too until ``previous_secret_until``."""
        gate.admit_operator(authorization)
        secret, sealed = mint.mint(endpoint_id)
        with _refusals():
            async with store.begin() as tx:
                after = await rotate_secret(
                    endpoint_id,
                    sealed,
                    overlap=timedelta(hours=asked.overlap_hours),
                    actor=asked.actor,
                    reason=asked.reason,
                    tx=tx,
                    now=clock.now(),
                )
        return {**to_wire_endpoint(after), "secret": secret}

    @routes.post("/{endpoint_id}/replay")
    async def replay_all(
        endpoint_id: str, asked: WebhookCommand, authorization: Authorization = None
    ) -> dict[str, Any]:
        """Send an endpoint's failed deliveries again, at most 1,000 at once, under their own ids."""
        gate.admit_operator(authorization)
        with _refusals():
            async with store.begin() as tx:
                again = await replay_failed(endpoint_id, actor=asked.actor, reason=asked.reason, tx=tx, now=clock.now())
        return {"results": [to_wire_delivery(each) for each in again]}


def _add_deliveries(routes: APIRouter, *, store: LimitsStore, gate: Gate, clock: Clock) -> None:
    @routes.get("/deliveries")
    async def list_deliveries(
        *,
        status: DeliveryStatus | None = None,
        endpoint_id: Annotated[str | None, Query(max_length=200)] = None,
        limit: Annotated[int, Query(ge=1, le=DELIVERIES_PAGE_MAX)] = 100,
        authorization: Authorization = None,
    ) -> dict[str, Any]:
        """Deliveries, newest first; ``status=failed`` is what somebody should look at."""
        gate.admit_operator(authorization)
        async with store.begin() as tx:
            found = await tx.webhooks.deliveries(status=status, endpoint_id=endpoint_id, at_most=limit)
        return {"results": [to_wire_delivery(each) for each in found]}

    @routes.post("/deliveries/{delivery_id}/replay")
    async def replay_one(
        delivery_id: str, asked: WebhookCommand, authorization: Authorization = None
    ) -> dict[str, Any]:
        """Send a failed delivery again, under its own id."""
        gate.admit_operator(authorization)
        with _refusals():
            async with store.begin() as tx:
                again = await replay_delivery(
                    delivery_id, actor=asked.actor, reason=asked.reason, tx=tx, now=clock.now()
                )
        return to_wire_delivery(again)


async def _check_url(sender: WebhookSender, url: str) -> None:
    try:
        await sender.check(url)
    except RefusedUrl as refused:
        raise Problem(400, "refused_url", f"url: {refused}", attr="url") from refused


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except UnknownEndpoint as unknown:
        raise _unknown_endpoint() from unknown
    except UnknownDelivery as unknown:
        detail = "no delivery has this id; finished ones are forgotten after 30 days"
        raise Problem(404, "unknown_delivery", detail, attr="delivery_id") from unknown
    except WebhooksConflict as conflict:
        raise Problem(409, "webhooks_conflict", str(conflict)) from conflict


def _unknown_endpoint() -> Problem:
    return Problem(404, "unknown_endpoint", "no endpoint has this id", attr="endpoint_id")

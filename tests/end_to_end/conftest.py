"""The whole system once per session: real stores, five services, Stripe's and the mail server's stand-ins, the gateway.

Topics and databases of a running system have fixed names, so it never shares stores with anybody: it starts its own,
whatever the environment names.
"""

import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from confluent_kafka import Producer
from quill_contracts.topics import USAGE_REPORTS
from quill_contracts.usage import UsageReport
from quill_demo.sandbox_time import SandboxTime
from quill_regions.tokens import billing_token
from quill_stack.progress import Progress
from quill_stack.system import System, running_system

START_SECONDS = 120
"""For the test that happens to be first, on top of its own time: it starts the system."""
MONTH_START = datetime(2026, 10, 1, 8, tzinfo=UTC)
OUTSIDE = ("DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS", "STRIPE_API_KEY", "SMTP_HOST")
AWAY = frozenset({502, 503, 504})
PATIENCE_SECONDS = 90.0
LOOK_AGAIN_SECONDS = 0.05


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.integration)
            item.add_marker(pytest.mark.timeout(START_SECONDS + 300))


@dataclass(frozen=True, slots=True)
class License:
    """A license key and the source that its reports come from."""

    key: str
    source: str
    type: str

    @property
    def license_id(self) -> str:
        return self.key.partition("::")[0]

    @property
    def secret(self) -> str:
        return self.key.partition("::")[2]


@dataclass(frozen=True, slots=True)
class Organization:
    """An organization and the license it belongs to."""

    organization_id: str
    license: License

    @property
    def project_token(self) -> str:
        return f"phc_{self.organization_id.replace('-', '')}"


class Region:
    """Publishes on ``usage.reports.v1`` and returns once Kafka has confirmed."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._producer = Producer({"bootstrap.servers": bootstrap_servers, "linger.ms": 1, "log_level": 0})

    def send(self, *reports: UsageReport, partition: int = -1) -> None:
        for report in reports:
            self.queue(report.to_bytes(), key=report.organization_id.encode(), partition=partition)
        self.flush()

    def queue(
        self,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: list[tuple[str, bytes]] | None = None,
        partition: int = -1,
    ) -> None:
        self._producer.produce(USAGE_REPORTS.name, value=value, key=key, headers=headers or [], partition=partition)

    def flush(self) -> None:
        left = self._producer.flush(30)
        assert left == 0, f"Kafka did not confirm {left} records"


class Billing:
    """Billing as its users and operators reach it: over HTTP through the gateway."""

    def __init__(self, system: System, http: httpx.Client, clock: SandboxTime) -> None:
        self.system = system
        self.http = http
        self.clock = clock

    def as_operator(self, method: str, path: str, *, expect: int | None = 200, **options: Any) -> Any:
        """One call with the operator's token, again while a service is away; the JSON of the expected answer."""
        return self._patiently(method, path, self.system.operator_token, expect, options)

    def as_license(
        self, organization: Organization, method: str, path: str, *, expect: int | None = 200, **options: Any
    ) -> Any:
        """The same with a fresh token of the organization's license."""
        return self._patiently(method, path, self.token(organization), expect, options)

    def ask(self, method: str, path: str, token: str | None = None, **options: Any) -> httpx.Response:
        """One call, once, whatever comes of it."""
        headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **options.pop("headers", {})}
        return self.http.request(method, path, headers=headers, **options)

    def token(self, organization: Organization, **claims: Any) -> str:
        """What PostHog's client signs, with ``claims`` in the place of the usual ones."""
        return billing_token(
            organization.license.key,
            organization_name="Hedgehog & Sons",
            now=self.clock.now(),
            **{"organization_id": organization.organization_id, **claims},
        )

    def new_license(self, kind: str = "cloud") -> License:
        source = f"region-{uuid.uuid4().hex[:12]}"
        body = {"type": kind, "email": f"{source}@example.test", "organization_name": source, "source": source}
        return License(self.as_operator("POST", "/v1/licenses", expect=201, json=body)["license_key"], source, kind)

    def license_of(self, issued: dict[str, Any]) -> License:
        """A license from the answer of a signup."""
        return License(issued["license_key"], issued["source"], issued["type"])

    def new_organization(self, license_: License, *, known: bool = True) -> Organization:
        """An organization with one project. ``known`` false: billing never heard of it."""
        organization = Organization(str(uuid.uuid4()), license_)
        if known:
            self.make_known(organization)
        return organization

    def make_known(self, organization: Organization) -> None:
        """The first visit, which registers the customer; the license may be younger than a service's keyring."""
        path = "/api/billing"
        self.eventually(lambda: self.ask("GET", path, self.token(organization)).status_code == 200)
        projects = [{"team_id": "1", "api_token": organization.project_token}]
        self.as_operator("PUT", f"/v1/customers/{organization.organization_id}/projects", json=projects)
        # Every service works on its own projection of the customer; wait for those that answer about it.
        self.eventually(lambda: self.can_ask(organization, f"/v1/usage/{organization.organization_id}"))
        self.eventually(lambda: self.can_ask(organization, f"/v1/quota/{organization.organization_id}/events"))

    def can_ask(self, organization: Organization, path: str) -> bool:
        return self.ask("GET", path, self.token(organization)).status_code == 200

    def report(self, organization: Organization, day: datetime, events: int, **fields: Any) -> UsageReport:
        """A complete report of one UTC day; ``fields`` take the place of the usual ones."""
        start = day.replace(hour=0, minute=0, second=0, microsecond=0)
        usual: dict[str, Any] = {
            "report_id": str(uuid.uuid4()),
            "source": organization.license.source,
            "organization_id": organization.organization_id,
            "window_start": start,
            "window_end": start + timedelta(days=1),
            "completeness": "complete",
            "as_of": start + timedelta(hours=27),
            "counters": {"event_count_in_period": events},
        }
        return UsageReport.model_validate({**usual, **fields})

    def events_used(self, organization: Organization) -> tuple[int, int]:
        """Events of complete and of partial days in the newest period."""
        periods = self.as_operator("GET", f"/v1/usage/{organization.organization_id}")["periods"]
        meter = periods[0]["meters"].get("events") if periods else None
        return (meter["complete"], meter["partial"]) if meter else (0, 0)

    def quota(self, organization: Organization, meter: str = "events") -> dict[str, Any]:
        answer: dict[str, Any] = self.as_license(
            organization, "GET", f"/v1/quota/{organization.organization_id}/{meter}"
        )
        return answer

    def dead_letters(self, subject: str | None = None) -> list[dict[str, Any]]:
        """What usage-ingest has parked, oldest first, with what was replayed."""
        found: list[dict[str, Any]] = []
        while True:
            after = found[-1]["id"] if found else 0
            query: dict[str, Any] = {"include_replayed": True, "limit": 500, "after_id": after}
            if subject is not None:
                query["subject"] = subject
            page = self.as_operator("GET", "/usage-ingest/v1/dead-letters", params=query)["results"]
            found += page
            if len(page) < 500:
                return found

    def eventually_paid(self, organization: Organization) -> dict[str, Any]:
        """The organization's one invoice, once it is paid and compared. Sandbox time runs, so no back-off holds it up."""
        path = f"/v1/invoices?organization_id={organization.organization_id}"

        def settled() -> list[dict[str, Any]]:
            self.clock.set(self.clock.now() + timedelta(seconds=30))
            found: list[dict[str, Any]] = self.as_license(organization, "GET", path)["results"]
            return [each for each in found if each["status"] == "paid" and each["reconciliation"] != "pending"]

        self.eventually(settled)
        (invoice,) = settled()
        return invoice

    def eventually(self, condition: Callable[[], object], *, seconds: float = PATIENCE_SECONDS) -> float:
        """Look until the condition holds; how many seconds that took."""
        started = time.monotonic()
        while not condition():
            waited = time.monotonic() - started
            assert waited < seconds, f"still not so after {waited:.1f} s"
            time.sleep(LOOK_AGAIN_SECONDS)
        return time.monotonic() - started

    def _patiently(self, method: str, path: str, token: str, expect: int | None, options: dict[str, Any]) -> Any:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                answer = self.ask(method, path, token, **dict(options))
            except httpx.TransportError:
                assert time.monotonic() < deadline, f"{method} {path}: no answer"
            else:
                if answer.status_code not in AWAY or time.monotonic() > deadline:
                    assert expect in (None, answer.status_code), f"{method} {path}: {answer.status_code} {answer.text}"
                    return answer.json()
            time.sleep(LOOK_AGAIN_SECONDS)


@pytest.fixture(scope="session")
def system(request: pytest.FixtureRequest) -> Iterator[System]:
    capture = request.config.pluginmanager.getplugin("capturemanager")
    own = {name: value for name, value in os.environ.items() if name not in OUTSIDE}
    with (
        tempfile.TemporaryDirectory(prefix="quill-e2e-", ignore_cleanup_errors=True) as folder,
        ExitStack() as cleanup,
    ):
        SandboxTime(Path(folder) / "clock").set(MONTH_START)
        # A start takes seconds, so the person who waits must see it.
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            started = cleanup.enter_context(
                running_system(
                    Path(folder), throwaway=True, revive=True, sandbox_clock=True, progress=Progress(), environ=own
                )
            )
        yield started


@pytest.fixture(scope="session")
def clock(system: System) -> SandboxTime:
    assert system.clock_file is not None
    return SandboxTime(system.clock_file)


@pytest.fixture(scope="session")
def billing(system: System, clock: SandboxTime) -> Iterator[Billing]:
    with httpx.Client(base_url=system.base_url, timeout=20.0, trust_env=False) as http:
        yield Billing(system, http, clock)


@pytest.fixture(scope="session")
def region(system: System) -> Region:
    return Region(system.stores.kafka_bootstrap_servers)


@pytest.fixture(scope="session")
def cache(system: System) -> Iterator["redis.Redis[bytes]"]:
    with redis.Redis.from_url(system.stores.redis_url, socket_timeout=5) as connection:
        yield connection


@pytest.fixture(scope="session")
def cloud(billing: Billing) -> License:
    """The license of a region with many organizations."""
    return billing.new_license()


@pytest.fixture
def organization(billing: Billing, cloud: License) -> Organization:
    """A fresh customer of the region, without a subscription."""
    return billing.new_organization(cloud)

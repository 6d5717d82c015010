"""A little data for a fresh system, so that the examples `make up` prints work with real ids.

One license, one organization over its free events, and one report about an organization that nobody knows. Planted at
every start without doubling anything: the license key is kept in the state folder, a report merges into its cell (L1).
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import jwt
from aiokafka import AIOKafkaProducer
from quill_contracts.topics import USAGE_REPORTS
from quill_contracts.usage import UsageReport

from quill_stack.errors import StackError
from quill_stack.system import System

ORGANIZATION: Final = "sample-organization"
STRANGER: Final = "nobody-knows-me"
SOURCE: Final = "sample-region"
EVENTS: Final = 1_200_000
"""Two hundred thousand above the free ones, so that there is a limit to explain."""
AUDIENCE: Final = "posthog:license-key"
TOKEN_LIFETIME: Final = timedelta(minutes=10)
CALL_SECONDS: Final = 20.0
VISIBLE_SECONDS: Final = 30.0
LOOK_AGAIN_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Sample:
    """Ids that exist."""

    organization_id: str
    license_id: str
    dead_letter_id: int

    def commands(self) -> tuple[tuple[str, str], ...]:
        """One working example of each command, with what it is for."""
        return (
            ("quill quote product_analytics 12000000", "what would it cost"),
            (f"quill usage show {self.organization_id}", "how much was used"),
            (f"quill limits explain {self.organization_id} events", "why is it limited"),
            (f"quill licenses show {self.license_id}", "who is this instance"),
            ("quill licenses issue --email you@example.test --organization 'Your name'", "sign an instance up"),
            ("quill dead-letters list", "what could not be applied"),
            (f"quill dead-letters show {self.dead_letter_id} --service usage-ingest", "and why"),
            (f"quill dead-letters replay {self.dead_letter_id} --service usage-ingest", "try it again"),
            ("quill topics", "what travels where"),
        )


def plant(system: System, *, now: datetime | None = None) -> Sample:
    """Make the sample and wait until all of it can be seen.

    Raises:
        StackError: A service refused, or did not show it within half a minute.
    """
    instant = now or datetime.now(UTC)
    headers = {"Authorization": f"Bearer {system.operator_token}"}
    with httpx.Client(base_url=system.base_url, headers=headers, timeout=CALL_SECONDS, trust_env=False) as client:
        state = system.stores.state
        key = state.known_secret("sample-license") or state.kept_secret("sample-license", _issue_license(client))
        license_id = key.partition("::")[0]
        _register(client, key, instant)
        asyncio.run(_report(system.stores.kafka_bootstrap_servers, instant))
        _seen(
            "the sample's limit",
            lambda: _ok(client, f"/v1/limits/{ORGANIZATION}/explain?meter=events", want=("state", "limited")),
        )
        letters = _seen(
            "the sample's dead letter",
            lambda: _ok(client, f"/usage-ingest/v1/dead-letters?subject={STRANGER}&include_replayed=true"),
        )
    return Sample(ORGANIZATION, license_id, letters["results"][-1]["id"])


def _issue_license(client: httpx.Client) -> str:
    answer = client.post(
        "/v1/licenses",
        json={"type": "cloud", "email": "sample@example.test", "organization_name": "Sample", "source": SOURCE},
        headers={"Idempotency-Key": "quill-stack-sample-license"},
    )
    if answer.status_code != httpx.codes.CREATED:
        raise StackError(f"the sample's license was refused: {answer.text[:300]}", advice="read licensing's log")
    key: str = answer.json()["license_key"]
    return key


def _register(client: httpx.Client, license_key: str, now: datetime) -> None:
    license_id, _, secret = license_key.partition("::")
    claims = {
        "exp": int((now + TOKEN_LIFETIME).timestamp()),
        "aud": AUDIENCE,
        "id": license_id,
        "organization_id": ORGANIZATION,
        "organization_name": "Sample",
    }
    token = jwt.encode(claims, secret, algorithm="HS256")

    def visited() -> dict[str, Any] | None:
        answer = client.get("/api/billing", headers={"Authorization": f"Bearer {token}"})
        return answer.json() if answer.is_success else None

    _seen("the sample's customer", visited)


async def _report(bootstrap_servers: str, now: datetime) -> None:
    """Today so far, twice over Kafka: for the sample, and for somebody nobody knows."""
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks="all")
    await producer.start()
    try:
        for organization in (ORGANIZATION, STRANGER):
            report = UsageReport(
                report_id=f"sample:{organization}:{day.date().isoformat()}",
                source=SOURCE,
                organization_id=organization,
                window_start=day,
                window_end=day + timedelta(days=1),
                completeness="partial",
                as_of=now,
                counters={"event_count_in_period": EVENTS, "recording_count_in_period": 120},
            )
            await producer.send_and_wait(USAGE_REPORTS.name, report.to_bytes(), key=organization.encode())
    finally:
        await producer.stop()


def _ok(client: httpx.Client, path: str, *, want: tuple[str, str] | None = None) -> dict[str, Any] | None:
    answer = client.get(path)
    if not answer.is_success:
        return None
    body: dict[str, Any] = answer.json()
    if want is not None and body.get(want[0]) != want[1]:
        return None
    return None if body.get("results") == [] else body


def _seen(what: str, look: Callable[[], dict[str, Any] | None]) -> dict[str, Any]:
    deadline = time.monotonic() + VISIBLE_SECONDS
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise StackError(f"{what} did not show up within {VISIBLE_SECONDS:g} s", advice="read the services' logs")
        time.sleep(LOOK_AGAIN_SECONDS)
    return found

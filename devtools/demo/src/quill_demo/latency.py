"""How long a limit takes to be visible where products look: set by a report, released by a correction of it (L9)."""

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from statistics import quantiles

import redis.asyncio
from quill_contracts.usage import UsageReport
from quill_regions.days import Day
from quill_regions.misbehaviour import Delivery
from quill_regions.organizations import REGIONS, Organization
from quill_regions.sources import CloudRegion

from quill_demo.billing_client import BillingClient
from quill_demo.sandbox_time import SandboxTime

PROBED_METER = "survey_responses"
PROBED_COUNTER = "survey_responses_count_in_period"
ABOVE_THE_FREE_UNITS = 1_600
SORTED_SET = f"@posthog/quota-limits/{PROBED_METER}"
POLL_SECONDS = 0.001
VISIBLE_WITHIN_SECONDS = 60.0
PERSON = {"actor": "ada@example.test", "reason": "demo: how soon does a corrected report release?"}


class NeverVisible(RuntimeError):
    """A limit did not show up, or did not go, within a minute."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds until PostHog's sorted set says what a fact made of a limit."""

    samples_ms: tuple[float, ...]

    def percentile(self, percent: int) -> float:
        return quantiles(self.samples_ms, n=100, method="inclusive")[percent - 1]


def probe_organizations(*, seed: int, count: int) -> list[Organization]:
    """Organizations that do nothing until they are measured."""
    return [
        Organization(
            organization_id=str(uuid.uuid5(uuid.NAMESPACE_URL, f"quill-probe:{seed}:{number}")),
            name=f"Probe {number:03d}",
            email=f"probe-{number:03d}@example.test",
            source=REGIONS[number % len(REGIONS)],
            self_hosted=False,
            plan="free",
            billing_limits_usd={},
            appetite={},
            teams=("1",),
        )
        for number in range(count)
    ]


@dataclass(frozen=True, slots=True)
class Latencies:
    """``limited``: from Kafka's confirmation of the report; ``released``: from sending the order to void it."""

    limited: Latency
    released: Latency


async def measure(
    probes: list[Organization],
    *,
    region: CloudRegion,
    billing: BillingClient,
    redis_url: str,
    sandbox: SandboxTime,
    done: Callable[[], None],
) -> Latencies:
    """Push each probe over its free units and take that back, one after another.

    Raises:
        NeverVisible: naming the organization.
    """
    limited, released = [], []
    async with redis.asyncio.Redis.from_url(redis_url, socket_timeout=5) as client:
        for probe in probes:
            limited.append(await _limit_one(probe, region=region, client=client, sandbox=sandbox))
            released.append(await _release_one(probe, billing=billing, client=client))
            done()
    return Latencies(Latency(tuple(limited)), Latency(tuple(released)))


async def _limit_one(
    probe: Organization, *, region: CloudRegion, client: redis.asyncio.Redis, sandbox: SandboxTime
) -> float:
    now = sandbox.now()
    day = Day(probe, now.date(), {"1": {PROBED_COUNTER: ABOVE_THE_FREE_UNITS}})
    report = UsageReport(
        report_id=f"probe:{probe.organization_id}",
        source=probe.source,
        organization_id=probe.organization_id,
        window_start=day.start,
        window_end=day.start + timedelta(days=1),
        completeness="partial",
        as_of=now,
        counters=day.totals,
    )
    (token,) = probe.project_tokens.values()
    await region.send([Delivery(now, day, report)])
    return await _until(probe, token, is_limited=True, client=client)


async def _release_one(probe: Organization, *, billing: BillingClient, client: redis.asyncio.Redis) -> float:
    base = f"/v1/usage/{probe.organization_id}"
    explanation = await billing.call("GET", f"{base}/explain?meter={PROBED_METER}")
    held = [cell["held_by"] for cell in explanation["cells"] if cell["held_by"]]
    order = {"correction_id": f"probe:{probe.organization_id}", "kind": "void", "report_ids": held, **PERSON}
    (token,) = probe.project_tokens.values()
    visible = asyncio.create_task(_until(probe, token, is_limited=False, client=client))
    try:
        await billing.call("POST", f"{base}/corrections", json=order)
        return await visible
    finally:
        visible.cancel()


async def _until(probe: Organization, token: str, *, is_limited: bool, client: redis.asyncio.Redis) -> float:
    """Milliseconds from now until the set holds the token, or holds it no more."""
    began = time.perf_counter()
    while (await client.zscore(SORTED_SET, token) is not None) is not is_limited:
        if time.perf_counter() - began > VISIBLE_WITHIN_SECONDS:
            raise NeverVisible(f"{probe.name}: a minute later, {SORTED_SET} still says is_limited={not is_limited}")
        await asyncio.sleep(POLL_SECONDS)
    return (time.perf_counter() - began) * 1000

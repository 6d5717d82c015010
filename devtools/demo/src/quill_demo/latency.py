"""How long it takes from a report's acceptance until the limit it causes is visible where products look."""

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

from quill_demo.sandbox_time import SandboxTime

PROBED_METER = "survey_responses"
PROBED_COUNTER = "survey_responses_count_in_period"
ABOVE_THE_FREE_UNITS = 1_600
SORTED_SET = f"@posthog/quota-limits/{PROBED_METER}"
POLL_SECONDS = 0.001
VISIBLE_WITHIN_SECONDS = 60.0
WAIT_FOR_CUSTOMER_SECONDS = 30.0


class NeverVisible(RuntimeError):
    """A limit did not show up within a minute."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from Kafka's confirmation of the report to the entry in PostHog's sorted set."""

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


async def measure(
    probes: list[Organization],
    *,
    region: CloudRegion,
    redis_url: str,
    sandbox: SandboxTime,
    done: Callable[[], None],
) -> Latency:
    """Push each probe over its free units, one after another.

    Raises:
        NeverVisible: naming the organization.
    """
    samples = []
    async with redis.asyncio.Redis.from_url(redis_url, socket_timeout=5) as client:
        for probe in probes:
            samples.append(await _measure_one(probe, region=region, client=client, sandbox=sandbox))
            done()
    return Latency(tuple(samples))


async def _measure_one(
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
    accepted = time.perf_counter()
    while await client.zscore(SORTED_SET, token) is None:
        if time.perf_counter() - accepted > VISIBLE_WITHIN_SECONDS:
            raise NeverVisible(f"{probe.name}: not in {SORTED_SET} a minute after its report")
        await asyncio.sleep(POLL_SECONDS)
    return (time.perf_counter() - accepted) * 1000

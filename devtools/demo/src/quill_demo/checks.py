"""What billing says against what is true, organization by organization, meter by meter, cent by cent."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any

import redis.asyncio
from quill_regions.organizations import Organization
from quill_regions.truth import GRACED_METERS

from quill_demo.billing_client import BillingClient
from quill_demo.entrance import in_parallel
from quill_demo.world import World

SHOWN_DIFFERENCES = 10
CHECKS_PER_BATCH = 1_000


@dataclass(slots=True)
class Comparison:
    """How many numbers were compared, and which were not equal. ``evidence`` is kept for the printed examples."""

    compared: int = 0
    differences: list[str] = field(default_factory=list)
    done: int = 0
    evidence: dict[str, Any] = field(default_factory=dict)

    @property
    def is_equal(self) -> bool:
        return self.compared > 0 and not self.differences

    def expect(self, what: str, *, said: object, true: object) -> None:
        self.compared += 1
        if said != true:
            self.differences.append(f"{what}: billing says {said}, the truth is {true}")


async def usage(world: World, client: BillingClient) -> Comparison:
    """Period-to-date usage and period maximum of every organization and meter (L2, L3)."""
    comparison = Comparison()
    meters = sorted(product.usage_key for product in world.catalog.products if product.usage_key)

    async def one(organization: Organization) -> tuple[Organization, dict[str, Any]]:
        answer = await client.call("GET", f"/v1/usage/{organization.organization_id}")
        periods = {period["period_start"]: period for period in answer["periods"]}
        return organization, periods.get(world.start.isoformat(), {"meters": {}})

    for organization, period in await _each(world.organizations, one):
        before = len(comparison.differences)
        expected = world.expected[organization.organization_id].usage
        for meter in meters:
            said = period["meters"].get(meter, {"complete": 0, "partial": 0, "maximum": 0})
            true = expected.get(meter, 0)
            comparison.expect(f"{organization.name} {meter} used", said=said["complete"] + said["partial"], true=true)
            comparison.expect(f"{organization.name} {meter} still partial", said=said["partial"], true=0)
            comparison.expect(f"{organization.name} {meter} maximum", said=said["maximum"], true=true)
        comparison.done += before == len(comparison.differences)
    return comparison


async def limits(world: World, client: BillingClient) -> Comparison:
    """Who is limited on what at the end of the month, as quota checks answer it."""
    return await _quota_checks(world, client, lambda organization: world.expected[organization.organization_id].limited)


async def released(world: World, client: BillingClient) -> Comparison:
    """After the period's end nobody is limited any more, except on what may never be used (L9)."""
    return await _quota_checks(
        world, client, lambda organization: world.expected[organization.organization_id].never_allowed
    )


async def _quota_checks(
    world: World, client: BillingClient, limited: Callable[[Organization], frozenset[str]]
) -> Comparison:
    comparison = Comparison()
    meters = sorted(product.usage_key for product in world.catalog.products if product.usage_key)
    asked = [(o, meter) for o in world.organizations for meter in meters]
    allowed: dict[tuple[str, str], dict[str, Any]] = {}
    for start in range(0, len(asked), CHECKS_PER_BATCH):
        batch = asked[start : start + CHECKS_PER_BATCH]
        checks = [{"organization_id": o.organization_id, "usage_key": meter} for o, meter in batch]
        answer = await client.call("POST", "/v1/quota", json={"checks": checks})
        allowed |= {(a["organization_id"], a["usage_key"]): a for a in answer["answers"]}
    for organization in world.organizations:
        before = len(comparison.differences)
        expected = limited(organization)
        for meter in meters:
            answer = allowed[organization.organization_id, meter]
            comparison.expect(f"{organization.name} {meter} limited", said=_is_over(answer), true=meter in expected)
        comparison.done += before == len(comparison.differences)
    comparison.evidence = {"answers": allowed}
    return comparison


async def invoices(world: World, client: BillingClient) -> Comparison:
    """One paid invoice per subscriber: total equal to the truth, lines adding up, Stripe's equal to ours (L11, L16)."""
    comparison = Comparison()

    async def one(organization: Organization) -> tuple[Organization, list[dict[str, Any]]]:
        answer = await client.call("GET", f"/v1/invoices?organization_id={organization.organization_id}")
        return organization, answer["results"]

    for organization, found in await _each(world.organizations, one):
        before = len(comparison.differences)
        true = world.expected[organization.organization_id].invoice_total
        comparison.expect(f"{organization.name} number of invoices", said=len(found), true=int(true is not None))
        if true is None or len(found) != 1:
            continue
        (invoice,) = found
        comparison.expect(f"{organization.name} total", said=dollars(invoice["total_minor"]), true=true)
        added = sum(line["amount_minor"] for line in invoice["lines"])
        comparison.expect(f"{organization.name} sum of lines", said=added, true=invoice["total_minor"])
        comparison.expect(f"{organization.name} status", said=invoice["status"], true="paid")
        comparison.expect(f"{organization.name} against Stripe", said=invoice["reconciliation"], true="equal")
        comparison.done += before == len(comparison.differences)
        comparison.evidence[organization.organization_id] = invoice
    return comparison


async def redis_rebuilt(world: World, client: BillingClient, redis_url: str) -> Comparison:
    """Delete everything in Redis, rebuild it, ask everything again: the same answers (L8)."""
    before = (await released(world, client)).evidence["answers"]
    async with redis.asyncio.Redis.from_url(redis_url, socket_timeout=10) as connection:
        await connection.flushdb()
    await client.call("POST", "/v1/limits/rebuild")
    after = (await released(world, client)).evidence["answers"]
    comparison = Comparison()
    for key, answer in before.items():
        comparison.expect(f"quota check {key}", said=after[key], true=answer)
    comparison.done = comparison.compared - len(comparison.differences)
    return comparison


def _is_over(answer: dict[str, Any]) -> bool:
    """Limited; for a meter with a grace of its own, in that grace counts as well: its end is after the month's."""
    if answer["usage_key"] in GRACED_METERS:
        return answer["state"] in ("suspended", "limited")
    return not answer["allowed"]


def dollars(amount_minor: int) -> Decimal:
    """Cents as dollars, exactly."""
    return Decimal(amount_minor) / 100


async def _each(
    organizations: tuple[Organization, ...],
    ask: Callable[[Organization], Awaitable[tuple[Organization, Any]]],
) -> list[tuple[Organization, Any]]:
    return await in_parallel([partial(ask, organization) for organization in organizations])

"""What explains the numbers: totals from their reports and over teams, a correction made and taken back (L3, L5)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from quill_regions.organizations import Organization

from quill_demo.billing_client import BillingClient
from quill_demo.checks import Comparison
from quill_demo.entrance import in_parallel
from quill_demo.world import World

METER = "events"
CORRECTION_ID = "demo-void-1"
PERSON = {"actor": "ada@example.test", "reason": "demo: what would the month be without this report?"}


@dataclass(frozen=True, slots=True)
class Corrected:
    """One correction of the demo, for printing."""

    organization: Organization
    report_id: int
    preview: Mapping[str, Any]
    explained_without: Mapping[str, Any]
    explained_again: Mapping[str, Any]


async def explained(world: World, client: BillingClient) -> Comparison:
    """Each organization's events put together again from its kept reports, and added up over its teams."""
    comparison = Comparison()

    async def one(organization: Organization) -> tuple[Organization, dict[str, Any], int]:
        base = f"/v1/usage/{organization.organization_id}"
        explanation = await client.call("GET", f"{base}/explain?meter={METER}&period_start={_instant(world)}")
        days = f"from={world.start.date()}&to={world.period_end.date()}"
        by_team = await client.call("GET", f"{base}?meter={METER}&{days}&interval=month&by=team")
        return organization, explanation, sum(each["total"] for each in by_team["series"]["series"])

    for organization, explanation, of_teams in await in_parallel([partial(one, each) for each in world.organizations]):
        before = len(comparison.differences)
        true = world.expected[organization.organization_id].usage.get(METER, 0)
        name = f"{organization.name} {METER}"
        comparison.expect(f"{name} explained", said=explanation["usage"]["to_date"], true=true)
        comparison.expect(f"{name} explained as stored", said=explanation["is_equal"], true=True)
        comparison.expect(f"{name} over its teams", said=of_teams, true=true)
        comparison.done += before == len(comparison.differences)
    return comparison


async def corrected(world: World, client: BillingClient) -> tuple[Comparison, Corrected]:
    """Void the report that holds the newest cell of one organization, look, take it back, look again."""
    organization = next(each for each in world.organizations if not each.self_hosted and each.plan == "paid")
    base = f"/v1/usage/{organization.organization_id}"
    question = f"{base}/explain?meter={METER}&period_start={_instant(world)}"
    before = await client.call("GET", question)
    cell = max((each for each in before["cells"] if each["held_by"]), key=lambda each: each["window_start"])
    order = {"correction_id": CORRECTION_ID, "kind": "void", "report_ids": [cell["held_by"]], **PERSON}
    preview = await client.call("POST", f"{base}/corrections", json={**order, "preview": True})
    untouched = await client.call("GET", question)
    applied = await client.call("POST", f"{base}/corrections", json=order)
    without = await client.call("GET", question)
    await client.call("POST", f"{base}/corrections/{CORRECTION_ID}/revert", json=PERSON)
    again = await client.call("GET", question)
    left = next((each["quantity"] for each in without["cells"] if _is_same(each, cell)), None) or 0
    comparison = Comparison(done=1)
    total = before["usage"]["to_date"]
    comparison.expect("a preview changes nothing", said=untouched["usage"], true=before["usage"])
    comparison.expect("applying does what the preview said", said=applied["changes"], true=preview["changes"])
    comparison.expect(
        "total without the report", said=without["usage"]["to_date"], true=total - cell["quantity"] + left
    )
    comparison.expect("stored as explained without it", said=without["is_equal"], true=True)
    comparison.expect("total once it is taken back", said=again["usage"], true=before["usage"])
    comparison.expect("stored as explained once it is taken back", said=again["is_equal"], true=True)
    return comparison, Corrected(organization, cell["held_by"], preview, without, again)


def _is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return (one["window_start"], one["source"]) == (other["window_start"], other["source"])


def _instant(world: World) -> str:
    """Within the month that was played, whatever the clock says by now."""
    return world.start.strftime("%Y-%m-%dT%H:%M:%SZ")

"""The gate on real Kafka and Postgres: a period waits for its source, and closes by a waiver that is kept (L13, L20)."""

from datetime import UTC, datetime, timedelta

import pytest
from quill_contracts import topics
from quill_contracts.sources import UsageSource, Waiver

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

OCTOBER_20 = datetime(2026, 10, 20, 12, tzinfo=UTC)
END = datetime(2026, 11, 1, tzinfo=UTC)
AFTER_GRACE = datetime(2026, 11, 2, 0, 1, tzinfo=UTC)


async def test_a_period_with_a_hole_is_held_in_sight_and_closes_by_a_named_waiver(
    system, sandbox_time, eventually, make
):
    async def source(revision: int, through: datetime, *waivers: Waiver, name: str = "us") -> None:
        wire = UsageSource(
            source=name,
            revision=revision,
            is_expected=True,
            state="silent",
            heard_at=OCTOBER_20,
            complete_through=through,
            waivers=list(waivers),
        )
        await system.publish(topics.SOURCES.name, name, wire.to_bytes())

    async def usage(revision: int, quantity: int, *sources: str, organization_id: str = "org-1") -> None:
        snapshot = make.usage(revision, quantity, as_of=OCTOBER_20, organization_id=organization_id)
        named = snapshot.model_copy(update={"sources": list(sources)})
        await system.publish(topics.PERIOD_USAGE.name, organization_id, named.to_bytes())

    async def held():
        return (await system.get("/v1/closings/held"))["results"]

    async def closings(organization_id: str = "org-1"):
        return (await system.get(f"/v1/closings?organization_id={organization_id}"))["results"]

    for number in (1, 2):
        organization_id = f"org-{number}"
        snapshot = make.customer(organization_id=organization_id, has_active_subscription=False, subscription_id=None)
        await system.publish(topics.CUSTOMERS.name, organization_id, snapshot.to_bytes())
    await source(1, END - timedelta(days=2))
    await source(1, END, name="eu")
    await usage(1, 5, "eu", "us")
    await usage(1, 7, "eu", organization_id="org-2")

    async def is_read() -> bool:
        lag = (await system.get("/health/ready"))["consumer_lag_records"]
        return len(lag) == 4 and not any(lag.values())

    await eventually(is_read)
    sandbox_time.set(AFTER_GRACE)
    assert await eventually(lambda: closings("org-2")), "all of its sources have told everything"
    (waiting,) = await eventually(held)
    assert (waiting["organization_id"], waiting["period_end"]) == ("org-1", "2026-11-01T00:00:00Z")
    assert [(each["source"], each["state"], each["complete_through"]) for each in waiting["missing"]] == [
        ("us", "silent", "2026-10-30T00:00:00Z")
    ]
    assert await closings() == []

    async def gauge() -> bool:
        return "quill_invoicing_held_closings 1.0" in await system.text("/metrics")

    await eventually(gauge)
    waiver = Waiver(
        waiver_id="october", through=END, actor="ada@b.example", reason="the importer lost the day", at=AFTER_GRACE
    )
    await usage(2, 6, "eu", "us")
    await source(2, END - timedelta(days=2), waiver)
    (closed,) = await eventually(closings)
    assert closed["usage_revision"] == 2, "what was published before the word was read before the closing"
    assert [(each["source"], each["actor"], each["reason"]) for each in closed["waivers"]] == [
        ("us", "ada@b.example", "the importer lost the day")
    ]
    assert await held() == []
    assert (await system.get("/v1/closings/held", token="nobody"))["http_status"] == 401

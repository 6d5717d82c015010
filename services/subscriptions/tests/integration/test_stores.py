"""What every store does; run on memory and on Postgres."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from quill_contracts import topics
from quill_contracts.subscriptions import CustomerSnapshot
from quill_pricing.price import price_from_document
from quill_runtime.database import Conflict
from quill_runtime.tables import outbox
from quill_subscriptions.domain.catalog import Catalog, CatalogRefused
from quill_subscriptions.domain.commands import ChangeNeverDropData, IllegalMove, SetTrial
from quill_subscriptions.domain.customer import replay
from quill_subscriptions.domain.usage import MeterUsage, PeriodUsage, UsageSnapshot
from quill_subscriptions.ports import CustomerRecord
from quill_subscriptions.store.memory import MemorySubscriptions
from quill_subscriptions.usecases.catalog import put_catalog_in_force
from quill_subscriptions.usecases.changes import (
    UnknownCustomer,
    change_customer,
    describe_change,
    limits_command,
    subscription_command,
)
from quill_subscriptions.usecases.refreshing import refresh_due_customers
from quill_subscriptions.usecases.registration import ForeignOrganization, Tenant, find_or_register
from sqlalchemy import select

DAY = timedelta(days=1)
SURVEYS_DEARER = price_from_document({"model": "per_unit", "unit_amount": "0.5"})


def tenant(organization_id: str = "org-1", license_id: str = "self-1", license_type: str = "scale") -> Tenant:
    return Tenant(organization_id, "Hedgehog Ltd", license_id, license_type, f"license:{license_id}")


async def register(store: Any, now: datetime, who: Tenant | None = None, customer_id: str = "c-1") -> CustomerRecord:
    return await store.run(lambda tx: find_or_register(who or tenant(), customer_id=customer_id, tx=tx, now=now))


async def change(store: Any, now: datetime, *commands: Any, organization_id: str = "org-1") -> CustomerRecord:
    return await store.run(
        lambda tx: change_customer(organization_id, list(commands), actor="operator:anna", tx=tx, now=now)
    )


async def published(store: Any, topic: str) -> list[bytes]:
    if isinstance(store, MemorySubscriptions):
        return [message.value for message in store.contents.published if message.topic == topic]
    async with store.database.begin() as transaction:
        rows = await transaction.connection.execute(select(outbox).where(outbox.c.topic == topic).order_by(outbox.c.id))
        return [row.value for row in rows]


async def snapshots(store: Any) -> list[CustomerSnapshot]:
    return [CustomerSnapshot.from_bytes(value) for value in await published(store, topics.CUSTOMERS.name)]


async def test_a_registered_customer_is_found_with_its_history(store: Any, now: datetime) -> None:
    record = await register(store, now)
    found = await store.run(lambda tx: tx.find("org-1"))
    assert found == record
    (event,) = await store.run(lambda tx: tx.history("org-1", after=0, count_max=10))
    assert replay([event.recorded]) == record.customer
    assert (event.recorded.actor, event.recorded.at) == ("license:self-1", now)


async def test_every_change_publishes_one_snapshot_with_the_next_revision(store: Any, now: datetime) -> None:
    await register(store, now)
    await change(store, now + DAY, ChangeNeverDropData(never_drop_data=True))
    await change(store, now + DAY, ChangeNeverDropData(never_drop_data=True))
    assert [(s.revision, s.never_drop_data, s.effective_at) for s in await snapshots(store)] == [
        (1, False, now),
        (2, True, now + DAY),
    ]


async def test_a_refused_change_leaves_nothing_behind(store: Any, now: datetime) -> None:
    await register(store, now)
    with pytest.raises(IllegalMove):
        await change(
            store,
            now,
            ChangeNeverDropData(never_drop_data=True),
            subscription_command(
                await store.run(lambda tx: tx.catalog()),
                ["seats", "seats"],
                {},
                subscription_id="s",
                collection_mode="quill-rates",
            ),
        )
    assert len(await snapshots(store)) == 1
    assert not (await store.run(lambda tx: tx.find("org-1"))).customer.never_drop_data


async def test_an_unknown_customer_cannot_be_changed(store: Any, now: datetime) -> None:
    with pytest.raises(UnknownCustomer):
        await change(store, now, SetTrial(None))


async def test_two_first_calls_of_one_license_have_exactly_one_winner(store: Any, now: datetime) -> None:
    """(L17)"""
    outcomes = await asyncio.gather(
        *(register(store, now, tenant(f"org-{n}"), f"c-{n}") for n in range(6)), return_exceptions=True
    )
    winners = [outcome for outcome in outcomes if isinstance(outcome, CustomerRecord)]
    assert len(winners) == 1
    assert all(isinstance(outcome, CustomerRecord | ForeignOrganization) for outcome in outcomes), outcomes
    listed = await store.run(lambda tx: tx.customers_after("", count_max=10))
    assert listed == winners
    assert len(await snapshots(store)) == 1


async def test_two_first_calls_for_one_organization_register_it_once(store: Any, now: datetime) -> None:
    records = await asyncio.gather(*(register(store, now, customer_id=f"c-{n}") for n in range(6)))
    assert len({record.customer.customer_id for record in records}) == 1
    assert len(await snapshots(store)) == 1


@pytest.mark.parametrize("license_type", ["scale", "cloud"])
async def test_two_licenses_that_name_one_organization_have_exactly_one_winner(
    store: Any, now: datetime, license_type: str
) -> None:
    outcomes = await asyncio.gather(
        *(register(store, now, tenant("org-1", f"lic-{n}", license_type)) for n in range(6)), return_exceptions=True
    )
    assert [type(o).__name__ for o in outcomes if not isinstance(o, CustomerRecord)] == ["ForeignOrganization"] * 5


async def test_simultaneous_changes_are_all_kept(store: Any, now: datetime, catalog: Catalog) -> None:
    record = await register(store, now)
    keys = ["events", "recordings", "survey_responses", "exceptions"]
    await asyncio.gather(
        *(
            change(store, now, limits_command(record.customer, catalog, {key: 5}, reset_next_period=False, now=now))
            for key in keys
        )
    )
    found = await store.run(lambda tx: tx.find("org-1"))
    assert len(found.customer.billing_limits.in_force) == len(keys)
    assert (found.revision, found.stream_version) == (5, 5)
    assert [s.revision for s in await snapshots(store)] == [1, 2, 3, 4, 5]


async def test_a_stale_save_is_a_conflict(store: Any, now: datetime, catalog: Catalog) -> None:
    stale = await register(store, now)
    await change(store, now, ChangeNeverDropData(never_drop_data=True))

    async def save_stale(tx: Any) -> None:
        await tx.save(
            describe_change(
                stale.customer, stale.members, (), catalog=catalog, actor="a", now=now, published=stale.published
            ),
            before=stale,
        )

    with pytest.raises(Conflict):
        await store.run(save_stale)


async def test_a_new_period_is_published_at_its_boundary(store: Any, now: datetime, catalog: Catalog) -> None:
    record = await register(store, now)
    end = datetime(2026, 4, 17, tzinfo=UTC)
    limit = limits_command(record.customer, catalog, {"surveys": 5}, reset_next_period=True, now=now)
    await change(store, now, limit)
    refresh = lambda at: store.run(lambda tx: refresh_due_customers(tx=tx, now=at))  # noqa: E731
    assert await refresh(end - timedelta(microseconds=1)) == 0
    assert await refresh(end + timedelta(seconds=7)) == 1
    assert await refresh(end + timedelta(seconds=8)) == 0
    newest = (await snapshots(store))[-1]
    assert (newest.period.start, newest.effective_at, newest.revision) == (end, end, 3)
    assert [item.billing_limit_usd for item in newest.items if item.product_key == "surveys"] == [None]
    assert (await store.run(lambda tx: tx.find("org-1"))).stream_version == 2, "time passing is no event"


async def test_a_change_after_a_boundary_nobody_published_comes_second(store: Any, now: datetime) -> None:
    """The limit that ended with the period ended at its boundary, not when somebody next touched the customer (L12)."""
    await register(store, now)
    later = datetime(2026, 4, 19, tzinfo=UTC)
    record = await change(store, later, ChangeNeverDropData(never_drop_data=True))
    rolled, changed = (await snapshots(store))[1:]
    assert (rolled.effective_at, rolled.never_drop_data) == (datetime(2026, 4, 17, tzinfo=UTC), False)
    assert (changed.effective_at, changed.never_drop_data, changed.revision) == (later, True, record.revision)


async def test_the_end_of_a_trial_is_published(store: Any, now: datetime) -> None:
    await register(store, now)
    await change(store, now, SetTrial(now + DAY))
    assert await store.run(lambda tx: refresh_due_customers(tx=tx, now=now + 2 * DAY)) == 1
    before, after = (await snapshots(store))[-2:]
    assert [f.key for f in before.features] == ["product_analytics_data_retention", "group_analytics"]
    assert [f.limit for f in after.features] == [1]
    assert after.effective_at == now + DAY


async def test_a_refresh_works_in_bounded_batches(store: Any, now: datetime) -> None:
    for number in range(5):
        await register(store, now, tenant(f"org-{number}", "cloud-eu", "cloud"))
    later = now + 40 * DAY
    counts = [await store.run(lambda tx: refresh_due_customers(tx=tx, now=later, count_max=2)) for _ in range(4)]
    assert counts == [2, 2, 1, 0]


async def test_a_new_catalog_reaches_free_customers_and_keeps_agreed_prices(
    store: Any, now: datetime, catalog: Catalog
) -> None:
    await register(store, now, tenant("free", "cloud-eu", "cloud"))
    await register(store, now, tenant("paying", "cloud-eu", "cloud"))
    subscribe = subscription_command(catalog, ["surveys"], {}, subscription_id="s", collection_mode="quill-rates")
    await change(store, now, subscribe, organization_id="paying")
    surveys = catalog.product("surveys")
    assert surveys is not None
    dearer = replace(surveys, price_id="surveys_2026", price=SURVEYS_DEARER, allowance=0)
    proposed = replace(
        catalog, version=2, in_force=tuple(dearer if p.key == "surveys" else p for p in catalog.in_force)
    )
    changed = await store.run(lambda tx: put_catalog_in_force(proposed, tx=tx, now=now + DAY))
    assert [(product.key, product.revision) for product in changed] == [("surveys", 2)]
    assert await store.run(lambda tx: refresh_due_customers(tx=tx, now=now + DAY)) == 2
    prices = {
        snapshot.organization_id: next(i.price_id for i in snapshot.items if i.product_key == "surveys")
        for snapshot in await snapshots(store)
    }
    assert prices == {"free": "surveys_2026", "paying": surveys.price_id}
    assert len(await published(store, topics.CATALOG.name)) == len(catalog.in_force) + 1


async def test_the_same_catalog_again_publishes_nothing(store: Any, now: datetime, catalog: Catalog) -> None:
    assert await store.run(lambda tx: put_catalog_in_force(catalog, tx=tx, now=now)) == ()
    assert len(await published(store, topics.CATALOG.name)) == len(catalog.in_force)


async def test_simultaneous_adoptions_publish_a_version_once(store: Any, now: datetime, catalog: Catalog) -> None:
    proposed = replace(catalog, version=2, in_force=tuple(replace(p, description="better") for p in catalog.in_force))
    await asyncio.gather(*(store.run(lambda tx: put_catalog_in_force(proposed, tx=tx, now=now)) for _ in range(4)))
    assert len(await published(store, topics.CATALOG.name)) == 2 * len(catalog.in_force)


async def test_a_refused_catalog_leaves_the_one_in_force(store: Any, now: datetime, catalog: Catalog) -> None:
    smaller = replace(catalog, version=2, in_force=catalog.in_force[1:])
    with pytest.raises(CatalogRefused, match="product_analytics"):
        await store.run(lambda tx: put_catalog_in_force(smaller, tx=tx, now=now))
    assert (await store.run(lambda tx: tx.catalog())) == catalog


async def test_the_highest_revision_of_usage_is_kept_whatever_the_order(store: Any, now: datetime) -> None:
    def usage(revision: int) -> UsageSnapshot:
        period = PeriodUsage(now, {"events": MeterUsage(revision, 0, revision)})
        return UsageSnapshot("org-1", revision, (period,))

    await store.run(lambda tx: tx.keep_usage([usage(2), usage(5), usage(3)], now=now))
    await store.run(lambda tx: tx.keep_usage([usage(4)], now=now))
    await store.run(lambda tx: tx.keep_usage([], now=now))
    assert await store.run(lambda tx: tx.usage("org-1")) == usage(5)
    assert await store.run(lambda tx: tx.usage("org-2")) is None


async def test_lists_and_histories_are_read_in_pages(store: Any, now: datetime) -> None:
    for number in range(3):
        await register(store, now, tenant(f"org-{number}", "cloud-eu", "cloud"))
    page = await store.run(lambda tx: tx.customers_after("org-0", count_max=1))
    assert [record.customer.organization_id for record in page] == ["org-1"]
    for value in (True, False):
        await change(store, now, ChangeNeverDropData(never_drop_data=value))
    events = await store.run(lambda tx: tx.history("org-1", after=1, count_max=1))
    assert [(event.version, type(event.recorded.event).__name__) for event in events] == [(2, "NeverDropDataChanged")]


async def test_a_license_is_attached_to_one_account_and_let_go_by_that_account_alone(store: Any, now: datetime) -> None:
    async def attach(license_id: str, organization_id: str) -> str:
        return await store.run(lambda tx: tx.attach_license(license_id, organization_id, now=now))

    async def account_of(license_id: str) -> str | None:
        return await store.run(lambda tx: tx.account_of_further_license(license_id))

    await register(store, now)
    assert await attach("self-1", "org-2") == "org-1", "an account's own license is its own"
    assert await account_of("self-1") is None
    assert [await attach("extra", "org-1"), await attach("extra-2", "org-1")] == ["org-1", "org-1"]
    assert await attach("extra", "org-2") == "org-1"
    with pytest.raises(ForeignOrganization):
        await register(store, now, tenant("org-9", "extra"))
    await store.run(lambda tx: tx.detach_license("extra", "org-2"))
    await store.run(lambda tx: tx.detach_license("self-1", "org-1"))
    assert [await account_of("extra"), await account_of("extra-2")] == ["org-1", "org-1"]
    assert await attach("self-1", "org-2") == "org-1"
    await store.run(lambda tx: tx.detach_license("extra", "org-1"))
    assert await account_of("extra") is None
    assert await attach("extra", "org-2") == "org-2"

"""What a customer's snapshot tells of the past: the changes of its items and the cuts that bills depend on (L12, D2)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quill_contracts import topics
from quill_contracts.catalog_file import load_catalog
from quill_contracts.subscriptions import CustomerSnapshot, SubscriptionItem
from quill_subscriptions.domain.commands import CancelSubscription, CustomerCommand, IllegalMove, SetTrial
from quill_subscriptions.domain.customer import replay
from quill_subscriptions.domain.entitlements import entitle
from quill_subscriptions.domain.item_changes import CUTS_BY_PERSONS_MAX, ItemChange, TooManyChanges, kept_since
from quill_subscriptions.store.memory import MemorySubscriptions
from quill_subscriptions.usecases.catalog import put_catalog_in_force
from quill_subscriptions.usecases.changes import change_customer, limits_command, subscription_command
from quill_subscriptions.usecases.refreshing import refresh_due_customers
from quill_subscriptions.usecases.registration import Tenant, find_or_register
from quill_subscriptions.wire.catalog import catalog_from_document

CATALOG = catalog_from_document(load_catalog())
TENANT = Tenant("org-1", None, "cloud-eu", "cloud", "license:cloud-eu")
OCTOBER_1 = datetime(2026, 10, 1, tzinfo=UTC)
FREE_EVENTS = 1_000_000
SECOND = timedelta(seconds=1)


def october(day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(2026, 10, day, hour, minute, tzinfo=UTC)


@dataclass
class Account:
    """One customer in a store in memory, registered on 1 October at 8:00."""

    store: MemorySubscriptions = field(default_factory=MemorySubscriptions)

    async def register(self, at: datetime) -> None:
        await self.store.run(lambda tx: put_catalog_in_force(CATALOG, tx=tx, now=at))
        await self.store.run(lambda tx: find_or_register(TENANT, customer_id="c-1", tx=tx, now=at))

    async def change(self, at: datetime, *commands: CustomerCommand) -> None:
        await self.store.run(lambda tx: change_customer("org-1", commands, actor="anna", tx=tx, now=at))

    async def subscribe(self, at: datetime, *products: str) -> None:
        command = subscription_command(
            CATALOG, products or ("product_analytics",), {}, subscription_id="s", collection_mode="quill-rates"
        )
        await self.change(at, command)

    async def limit(self, at: datetime, usd: int | None, *, ends: bool = False) -> None:
        record = await self.store.run(lambda tx: tx.find("org-1"))
        assert record is not None
        limits: dict[str, int | None] = {"product_analytics": usd}
        await self.change(at, limits_command(record.customer, CATALOG, limits, reset_next_period=ends, now=at))

    async def run_job(self, at: datetime) -> None:
        await self.store.run(lambda tx: refresh_due_customers(tx=tx, now=at))

    @property
    def snapshot(self) -> CustomerSnapshot:
        messages = [each for each in self.store.contents.published if each.topic == topics.CUSTOMERS.name]
        return CustomerSnapshot.from_bytes(messages[-1].value)

    @property
    def events_item(self) -> SubscriptionItem:
        return next(item for item in self.snapshot.items if item.product_key == "product_analytics")

    @property
    def story(self) -> list[tuple[datetime, bool, int | None]]:
        return [(change.at, change.paid, change.quota) for change in self.events_item.changes]


@pytest.fixture
async def account() -> Account:
    account = Account()
    await account.register(october(1, 8))
    return account


async def test_a_new_customer_tells_what_it_was_first_sold(account: Account) -> None:
    assert account.story == [(october(1, 8), False, FREE_EVENTS)]
    assert account.snapshot.changes_since == datetime(2026, 7, 1, tzinfo=UTC)
    assert account.snapshot.cuts == []


async def test_a_cancellation_and_a_new_subscription_are_two_more_cuts(account: Account) -> None:
    """K2"""
    await account.subscribe(october(3, 10))
    await account.change(october(15, 12), CancelSubscription())
    await account.subscribe(october(20))
    assert account.story == [
        (october(1, 8), False, FREE_EVENTS),
        (october(3, 10), True, None),
        (october(15, 12), False, FREE_EVENTS),
        (october(20), True, None),
    ]
    assert account.snapshot.cuts == [october(3, 10), october(15, 12), october(20)]


async def test_a_limit_cuts_where_it_falls_and_not_where_it_rises(account: Account) -> None:
    """K6"""
    await account.subscribe(october(2))
    for day, usd in ((5, 50), (6, 393), (7, 0), (8, None)):
        await account.limit(october(day), usd)
    assert [(at.day, quota) for at, _, quota in account.story[1:]] == [
        (2, None),
        (5, 2_000_145),
        (6, 12_000_145),
        (7, 1_000_099),
        (8, None),
    ]
    assert account.snapshot.cuts == [october(2), october(5), october(7)]


async def test_a_subscription_during_a_trial_is_paid_from_the_trials_end(account: Account) -> None:
    """K11"""
    await account.change(october(2), SetTrial(october(21)))
    await account.subscribe(october(10))
    await account.run_job(october(23, 7, 13))
    assert account.story == [
        (october(1, 8), False, FREE_EVENTS),
        (october(2), False, None),
        (october(10), False, None),
        (october(21), True, None),
    ]
    assert account.snapshot.cuts == [october(21)]


async def test_a_trial_set_moved_and_removed_while_subscribed(account: Account) -> None:
    await account.subscribe(october(2))
    await account.change(october(4), SetTrial(october(20)))
    await account.change(october(5), SetTrial(october(25)))
    await account.change(october(9, 9), SetTrial(None))
    assert [(at, paid) for at, paid, _ in account.story[1:]] == [
        (october(2), True),
        (october(4), False),
        (october(9, 9), True),
    ]
    assert account.snapshot.cuts == [october(2), october(4), october(9, 9)]


async def test_time_takes_its_own_instants_however_late_the_job_runs(account: Account) -> None:
    """A limit ends with October, a trial on 3 November; the job runs on the 5th."""
    await account.subscribe(october(2))
    await account.limit(october(3), 0, ends=True)
    november_3 = datetime(2026, 11, 3, 17, tzinfo=UTC)
    await account.change(october(4), SetTrial(november_3))
    await account.run_job(datetime(2026, 11, 5, tzinfo=UTC))
    assert account.story[2:] == [
        (october(3), True, 1_000_099),
        (october(4), False, 1_000_099),
        (datetime(2026, 11, 1, tzinfo=UTC), False, None),
        (november_3, True, None),
    ]
    assert account.snapshot.cuts == [october(2), october(3), october(4), november_3]


async def test_a_change_by_a_person_comes_after_a_boundary_nobody_published(account: Account) -> None:
    await account.change(october(2), SetTrial(october(21)))
    await account.subscribe(october(10))
    await account.limit(october(22), 0)
    assert account.story[3:] == [(october(21), True, None), (october(22), True, 1_000_099)]


async def test_a_repeated_or_stale_command_adds_no_change(account: Account) -> None:
    await account.subscribe(october(2))
    await account.limit(october(3), 0)
    before = account.story
    await account.limit(october(4), 0)
    await account.change(october(5), SetTrial(None))
    with pytest.raises(IllegalMove):
        await account.subscribe(october(6))
    assert account.story == before


async def test_of_two_changes_at_one_instant_the_later_holds(account: Account) -> None:
    await account.subscribe(october(2))
    await account.limit(october(3), 0)
    await account.limit(october(3), None)
    assert account.story[1:] == [(october(2), True, None)]
    await account.change(october(2), CancelSubscription())
    assert account.story == [(october(1, 8), False, FREE_EVENTS)]
    assert account.snapshot.cuts == []


async def test_a_clock_that_goes_backwards_reorders_nothing(account: Account) -> None:
    await account.subscribe(october(10))
    await account.limit(october(9), 0)
    assert account.story == [(october(1, 8), False, FREE_EVENTS), (october(10), True, 1_000_099)]


async def test_changes_older_than_three_periods_are_folded_into_what_held(account: Account) -> None:
    await account.subscribe(october(2))
    await account.limit(october(3), 0)
    await account.limit(october(4), 50)
    february = datetime(2027, 2, 1, tzinfo=UTC)
    await account.run_job(february)
    assert account.snapshot.changes_since == datetime(2026, 11, 1, tzinfo=UTC)
    assert account.story == [(datetime(2026, 11, 1, tzinfo=UTC), True, 2_000_145)]
    assert account.snapshot.cuts == []


async def test_a_boundary_of_a_period_is_no_cut(account: Account) -> None:
    november = datetime(2026, 11, 1, tzinfo=UTC)
    await account.subscribe(october(2))
    await account.limit(november, 0)
    assert account.snapshot.cuts == [october(2)]


async def test_products_of_one_customer_have_changes_of_their_own(account: Account) -> None:
    await account.subscribe(october(2), "product_analytics", "session_replay", "seats")
    await account.limit(october(3), 0)
    items = {item.product_key: item for item in account.snapshot.items}
    assert [change.quota for change in items["session_replay"].changes] == [5_000, None]
    assert [(change.paid, change.quantity) for change in items["seats"].changes] == [(False, None), (True, 1)]
    assert [change.paid for change in items["feature_flags"].changes] == [False]


async def test_the_65th_cut_of_a_period_is_refused_and_time_still_cuts(account: Account) -> None:
    await account.subscribe(october(2))
    for number in range(CUTS_BY_PERSONS_MAX - 2):
        await account.limit(october(3) + number * SECOND, 1_000 - number)
    await account.change(october(4), SetTrial(october(20)))
    assert len(account.snapshot.cuts) == CUTS_BY_PERSONS_MAX
    await account.run_job(october(20))
    assert len(account.snapshot.cuts) == CUTS_BY_PERSONS_MAX + 1
    revision = account.snapshot.revision
    for lowered in (account.limit(october(21), 1), account.change(october(21), CancelSubscription())):
        with pytest.raises(TooManyChanges, match="2026-11-01") as refused:
            await lowered
        assert refused.value.code == "too_many_limit_changes"
    assert account.snapshot.revision == revision
    await account.limit(october(22), 20_000)
    await account.limit(datetime(2026, 11, 2, tzinfo=UTC), 1)
    assert account.snapshot.cuts[-1] == datetime(2026, 11, 2, tzinfo=UTC)


async def test_a_limit_raised_a_thousand_times_stays_a_short_story(account: Account) -> None:
    await account.subscribe(october(2))
    for number in range(400):
        await account.limit(october(3) + number * SECOND, number)
    assert len(account.story) <= 100
    assert account.story[-1][0] == october(3) + 399 * SECOND
    assert account.snapshot.cuts == [october(2), october(3)]


def test_folding_keeps_every_cut_and_what_holds_after_it() -> None:
    quotas = [1, 2, 3, 2, 3, 4] * 40
    changes = [ItemChange(OCTOBER_1 + number * SECOND, paid=True, quota=quota) for number, quota in enumerate(quotas)]
    kept = kept_since(changes, OCTOBER_1)
    assert [change.quota for change in kept] == [1, 3, 2, 4] + [1, 3, 2, 4] * 39
    assert kept[-1] == changes[-1]


steps = st.lists(
    st.tuples(
        st.timedeltas(timedelta(0), timedelta(days=18)),
        st.one_of(
            st.just("subscribe"),
            st.just("cancel"),
            st.just("job"),
            st.tuples(st.just("trial"), st.none() | st.timedeltas(timedelta(0), timedelta(days=40))),
            st.tuples(st.just("limit"), st.none() | st.integers(0, 400), st.booleans()),
        ),
    ),
    max_size=14,
)


@given(steps, st.lists(st.floats(0, 1), min_size=3, max_size=3))
@settings(max_examples=150, deadline=None)
async def test_what_is_told_of_any_instant_is_what_the_history_says_held(
    steps: Sequence[tuple[timedelta, Any]], fractions: Sequence[float]
) -> None:
    """The oracle replays the events up to an instant; it never sees the changes (L12, L20)."""
    account = Account()
    await account.register(october(1, 8))
    now = october(1, 8)
    for wait, step in steps:
        now += wait
        try:
            await _take(account, step, now)
        except IllegalMove:
            continue
    await account.run_job(now)
    snapshot = account.snapshot
    assert snapshot.changes_since is not None
    first = max(snapshot.changes_since, october(1, 8))
    instants = {first + (now - first) * fraction for fraction in fractions}
    instants |= {change.at - timedelta(microseconds=1) for item in snapshot.items for change in item.changes}
    instants |= {change.at for item in snapshot.items for change in item.changes}
    events = await account.store.run(lambda tx: tx.history("org-1", after=0, count_max=1_000))
    for instant in sorted(each for each in instants if first <= each <= now):
        customer = replay(each.recorded for each in events if each.recorded.at <= instant)
        assert customer is not None
        in_trial = customer.free_trial_until is not None and instant < customer.free_trial_until
        expected = {
            item.product.key: (item.subscribed and not in_trial, item.quota, item.quantity)
            for item in entitle(customer, CATALOG, now=instant).items
        }
        told = {item.product_key: [c for c in item.changes if c.at <= instant][-1] for item in snapshot.items}
        assert {key: (c.paid, c.quota, c.quantity) for key, c in told.items()} == expected


async def _take(account: Account, step: Any, now: datetime) -> None:
    match step:
        case "subscribe":
            await account.subscribe(now, "product_analytics", "seats")
        case "cancel":
            await account.change(now, CancelSubscription())
        case "job":
            await account.run_job(now)
        case "trial", wait:
            await account.change(now, SetTrial(None if wait is None else now + wait))
        case "limit", usd, ends:
            await account.limit(now, usd, ends=ends)

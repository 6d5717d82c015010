"""The bill depends on what happened when, never on when anybody heard of it (L3, L12, D1-D5).

Subscriptions, usage-ingest and invoicing together, over lives of one customer: usage of two meters by the day, reports
that come late, corrections that are taken back, limits, cancellations, trials, closings at any time, and services that
hear of it all much later. Whatever the order, the bill is that of an oracle that knows everything at the end. The oracle
shares no code with the product: it steps from one instant to the next.
"""

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quill_contracts.catalog_file import CatalogDocument
from quill_pricing.period import BillingPeriod

BEGINNING = datetime(2026, 10, 1, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
METERS = ("events", "recordings")
CATALOG = CatalogDocument.model_validate(
    {
        "version": 1,
        "effective_at": datetime(2025, 1, 1, tzinfo=UTC),
        "products": [
            {
                "key": {"events": "product_analytics", "recordings": "session_replay"}[meter],
                "name": meter,
                "unit": meter,
                "usage_key": meter,
                "counter": f"{meter.removesuffix('s')}_count_in_period",
                "price_id": f"cent-{meter}",
                "price": {"model": "per_unit", "currency": "usd", "unit_amount": "0.01"},
            }
            for meter in METERS
        ],
    }
)
"""A unit costs a cent: a limit of a dollar is a hundred units, and amounts in cents read as units."""


class Life:
    """A world that is told what happens in steps from now, and tells the oracle."""

    def __init__(self, world) -> None:
        self.world = world
        self.truth = Oracle()
        self.on_their_way: list = []
        self.applied: list[tuple[str, datetime, str]] = []

    @property
    def now(self) -> datetime:
        return self.world.now

    def day(self, back: int) -> datetime:
        return max(BEGINNING, self.now.replace(hour=0, minute=0, second=0, microsecond=0) - back * DAY)

    async def subscribe(self) -> None:
        if not self.truth.subscribed:
            await self.world.subscribe()
            self.truth.say(self.now, subscribed=True)

    async def cancel(self) -> None:
        if self.truth.subscribed:
            await self.world.cancel()
            self.truth.say(self.now, subscribed=False)

    async def limit(self, meter: str, dollars: int | None) -> None:
        await self.world.limit(meter, dollars)
        self.truth.say(self.now, limits={meter: None if dollars is None else 100 * dollars})

    async def trial(self, days: int | None) -> None:
        until = None if days is None else self.now + days * DAY
        await self.world.trial(until)
        self.truth.say(self.now, trial=until)

    async def use(self, meter: str, back: int, units: int) -> None:
        """The source counts more units of a day, now; its report is on its way."""
        counted = self.truth.count(meter, self.day(back), units, self.now)
        self.on_their_way.append(self.world.counted(meter, self.day(back), counted))

    async def report(self, meter: str, back: int, units: int) -> None:
        """The source counts more units of a day, and all reports arrive at once."""
        await self.use(meter, back, units)
        await self.deliver(2)

    async def deliver(self, share: int) -> None:
        """Some of the reports arrive; those of one day in the order they were counted, so that no total falls."""
        days = {_day_of(each) for n, each in enumerate(self.on_their_way) if n % 3 <= share}
        arriving = [each for each in self.on_their_way if _day_of(each) in days]
        self.on_their_way = [each for each in self.on_their_way if _day_of(each) not in days]
        if arriving:
            assert await self.world.arrive(*arriving) == []

    async def correct(self, number: int, units: int) -> None:
        """Only a day of which nothing is on its way can be replaced without a falling total."""
        waiting = {_day_of(each) for each in self.on_their_way}
        replaced = {each[:2] for each in self.applied}
        days = [
            (meter, day)
            for meter, day in sorted(self.truth.counted)
            if (f"source-of-{meter}", day) not in waiting and (meter, day) not in replaced
        ]
        if days:
            meter, day = days[number % len(days)]
            self.applied.append((meter, day, await self.world.replace(meter, day, units)))
            self.truth.replaced[meter, day] = (self.now, units)

    async def take_back(self, number: int) -> None:
        if self.applied:
            meter, day, correction_id = self.applied.pop(number % len(self.applied))
            await self.world.revert(correction_id)
            del self.truth.replaced[meter, day]

    async def step(self, name: str, given_: Collection) -> None:
        own = getattr(self, name, None)
        await (own(*given_) if own is not None else getattr(self.world, name)())


def _day_of(arriving) -> tuple[str, datetime]:
    return arriving.report.source, arriving.report.window.start


class Oracle:
    """Everything that happened, and the bill that follows from it by stepping through time."""

    def __init__(self) -> None:
        self.subscribed = False
        self.said: list[tuple[datetime, dict]] = []
        self.counted: dict[tuple[str, datetime], list[tuple[datetime, int]]] = {}
        self.replaced: dict[tuple[str, datetime], tuple[datetime, int]] = {}

    def say(self, at: datetime, **what) -> None:
        self.subscribed = what.get("subscribed", self.subscribed)
        self.said.append((at, what))

    def count(self, meter: str, day: datetime, units: int, at: datetime) -> int:
        """A day's count so far, as its source has it."""
        known = self.counted.setdefault((meter, day), [])
        total = (known[-1][1] if known else 0) + units
        known.append((at, total))
        return total

    def used_before(self, meter: str, period: BillingPeriod, instant: datetime) -> int:
        total = 0
        for (of, day), counts in self.counted.items():
            if of != meter or not period.start <= day < min(period.end, instant):
                continue
            told = [*counts, self.replaced[of, day]] if (of, day) in self.replaced else counts
            whole = told[-1][1]
            early = [quantity for at, quantity in told if at <= instant]
            total += min(whole, early[-1]) if day + DAY > instant and early else whole
        return total

    def state(self, meter: str, instant: datetime) -> tuple[bool, int | None]:
        """Whether the meter is paid at an instant, and its limit."""
        subscribed, limit, trial = False, None, None
        for at, what in self.said:
            if at <= instant:
                subscribed = what.get("subscribed", subscribed)
                limit = what.get("limits", {}).get(meter, limit)
                trial = what.get("trial", trial)
        return subscribed and (trial is None or trial <= instant), limit

    def spans(self, meter: str, period: BillingPeriod) -> list[list]:
        """[start, end, paid, limit]: the period cut where paying began or ended, or a limit fell (D2)."""
        trial_ends = [what["trial"] for _, what in self.said if what.get("trial")]
        spans = [[period.start, period.end, *self.state(meter, period.start)]]
        for at in sorted({at for at, _ in self.said} | set(trial_ends)):
            if not period.start < at < period.end:
                continue
            paid, limit = self.state(meter, at)
            _, _, was_paid, was_limit = spans[-1]
            has_fallen = limit is not None and (was_limit is None or limit < was_limit)
            if paid != was_paid or (paid and has_fallen):
                spans[-1][1] = at
                spans.append([at, period.end, paid, limit])
            spans[-1][3] = limit
        return spans

    def billed(self, meter: str, period: BillingPeriod) -> int:
        """Step from cut to cut. What one cut says also bounds the cuts before it, whichever meter they are for."""
        used, bound = {period.start: 0}, self.used_before(meter, period, period.end)
        for at in sorted({span[1] for each in METERS for span in self.spans(each, period)}, reverse=True):
            bound = used[at] = min(bound, self.used_before(meter, period, at))
        chargeable = greatest = 0
        for start, end, paid, limit in self.spans(meter, period):
            if paid:
                chargeable += used[end] - used[start]
                greatest = max(greatest, chargeable if limit is None else min(chargeable, limit))
        return greatest

    def bill(self, periods: list[BillingPeriod]) -> int:
        return sum(self.billed(meter, period) for period in periods for meter in METERS)


meters = st.sampled_from(METERS)
back = st.sampled_from([0, 0, 0, 1, 1, 2, 9])
limits = st.sampled_from([None, 0, 1, 1, 2])
steps = st.one_of(
    st.tuples(st.just("use"), meters, back, st.integers(1, 90)),
    st.tuples(st.just("report"), meters, back, st.integers(1, 90)),
    st.tuples(st.just("report"), meters, back, st.integers(1, 90)),
    st.tuples(st.just("deliver"), st.integers(0, 2)),
    st.tuples(st.just("subscribe")),
    st.tuples(st.just("cancel")),
    st.tuples(st.just("limit"), meters, limits),
    st.tuples(st.just("limit"), meters, limits),
    st.tuples(st.just("trial"), st.one_of(st.none(), st.integers(1, 9))),
    st.tuples(st.just("correct"), st.integers(0, 9), st.integers(0, 120)),
    st.tuples(st.just("take_back"), st.integers(0, 3)),
    st.tuples(st.just("take_back"), st.integers(0, 3)),
    st.tuples(st.just("usage_ingest_hears")),
    st.tuples(st.just("invoicing_hears")),
    st.tuples(st.just("time_passes")),
    st.tuples(st.just("close")),
)
hours = st.sampled_from([0, 1, 1, 2, 3, 5, 8, 13, 30, 75])
lives = st.tuples(st.booleans(), st.lists(st.tuples(hours, steps), min_size=4, max_size=40))


async def live(world, begins_subscribed: bool, life: list[tuple[int, tuple]]) -> tuple[int, int]:
    """(cents the oracle bills, cents on the invoices) once everything was heard and closed."""
    await world.begin(CATALOG)
    one = Life(world)
    if begins_subscribed:
        await one.subscribe()
    for hours, (name, *given_) in life:
        world.now += hours * HOUR + timedelta(minutes=7, microseconds=11)
        await one.step(name, given_)
    for _ in range(3):
        world.now += 40 * DAY
        await world.time_passes()
        await one.deliver(2)
        await world.usage_ingest_hears()
        await world.close()
        world.now += HOUR
        await world.close()
    async with world.invoicing.begin() as tx:
        open_period = await tx.open_period("acme")
        periods = [closed.period for closed in await tx.closed_periods_of("acme", limit=1_000)]
    assert open_period is not None
    assert open_period.end + DAY > world.now, "every period that is over is closed"
    return one.truth.bill(periods), await world.billed_minor()


@settings(max_examples=2_000, suppress_health_check=[HealthCheck.too_slow])
@given(lives)
def test_whatever_the_order_the_bill_is_that_of_an_oracle(world_class, life):
    expected, billed = asyncio.run(live(world_class(), *life))
    assert billed == expected

"""Dated stories of closing, grace and late reports: what a finance person expects of each calendar (L13, L21).

A meter costs a cent a unit, so that amounts in cents read as units. Grace is 24 hours.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from quill_invoicing.domain.period_close import Grace
from quill_invoicing.domain.period_usage import PeriodUsage
from quill_invoicing.store.memory import MemoryStore
from quill_invoicing.usecases.close_period import close_due_periods
from quill_invoicing.usecases.keep_terms import keep_terms
from quill_invoicing.usecases.record_usage import record_snapshot, record_usage
from quill_pricing.period import BillingPeriod, BillingSchedule, Interval
from quill_pricing.schedule_history import ScheduleChange, ScheduleHistory

pytestmark = pytest.mark.integration

HOURS = 24
GRACE = Grace(timedelta(hours=HOURS))
INSTANT = timedelta(microseconds=1)
CENT = {"model": "per_unit", "currency": "usd", "unit_amount": "0.01"}


def at(text: str) -> datetime:
    """``2028-02-29`` or ``2028-02-29 13:30``, UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture(params=["memory", "postgres"])
def store(request):
    return MemoryStore() if request.param == "memory" else request.getfixturevalue("postgres_store")


@dataclass
class Story:
    """A customer billed by a schedule, and a clock that only moves forward."""

    store: object
    make: object
    schedule: BillingSchedule
    revisions: int = 0
    terms_revisions: int = 0
    quantities: dict[BillingPeriod, int] = field(default_factory=dict)

    def period(self, day: str) -> BillingPeriod:
        return self.schedule.period_containing(at(day))

    async def agree(self, now: str, **changed) -> None:
        """The customer's terms as of now."""
        self.terms_revisions += 1
        period = self.period(now)
        terms = self.make.terms(
            revision=self.terms_revisions,
            effective_at=at(now),
            collection_mode="quill-rates",
            schedule={"anchor": self.schedule.anchor, "interval": str(self.schedule.interval)},
            period={"start": period.start, "end": period.end},
            **{"items": [self.make.item(price=CENT, allowance=0)], **changed},
        )
        async with self.store.begin() as tx:
            await keep_terms(terms, tx=tx, now=at(now))

    async def report(self, now: str, *days: tuple[str, int]) -> None:
        """Usage of some days becomes known: (day, units), negative to take back by a named correction."""
        self.revisions += 1
        for day, units in days:
            period = self.period(day)
            self.quantities[period] = self.quantities.get(period, 0) + units
        observed = [
            PeriodUsage(period, self.revisions, self.terms_revisions, {"events": self.quantities[period]})
            for period in sorted({self.period(day) for day, _ in days}, key=lambda each: each.start)
        ]
        async with self.store.begin() as tx:
            await record_usage("org-1", observed, tx=tx, now=at(now), report_every=timedelta(days=1))

    async def close(self, now: str | datetime) -> int:
        """The clock strikes; returns how many periods it closed, one after the other."""
        instant = at(now) if isinstance(now, str) else now
        closed = 0
        while await close_due_periods(store=self.store, grace=GRACE, now=instant, limit=10):
            closed += 1
        return closed

    async def invoices(self) -> list[str]:
        """Each invoice as ``2026-01-31..2026-02-28: 10 | 2025-12-31 +5``, oldest first: its usage, then the rest."""
        async with self.store.begin() as tx:
            found = await tx.invoices_of("org-1", limit=100)
        told = []
        for invoice in reversed(found):
            used = sum(line.amount_minor for line in invoice.lines if line.kind == "usage")
            adjusted = [
                f" | {line.service_period.start.date() if line.kind == 'adjustment' else 'credit'}"
                f" {line.amount_minor:+}"
                for line in invoice.lines
                if line.kind in ("adjustment", "credit")
            ]
            assert invoice.total_minor == sum(line.amount_minor for line in invoice.lines)
            told.append(f"{invoice.period.start.date()}..{invoice.period.end.date()}: {used}{''.join(adjusted)}")
        return told


@pytest.fixture
def begun(store, make):
    """``begun("2026-01-31", "month")``: a customer whose first period starts then."""

    async def begin(anchor: str, interval: str = "month") -> Story:
        story = Story(store, make, BillingSchedule(at(anchor), Interval.parse(interval)))
        await story.agree(anchor)
        return story

    return begin


@pytest.mark.parametrize(
    ("anchor", "interval", "edges"),
    [
        ("2026-01-01", "month", "2026-02-01 2026-03-01 2026-04-01"),
        ("2026-01-29", "month", "2026-02-28 2026-03-29 2026-04-29"),
        ("2028-01-29", "month", "2028-02-29 2028-03-29 2028-04-29"),
        ("2026-01-30", "month", "2026-02-28 2026-03-30 2026-04-30"),
        ("2028-01-30", "month", "2028-02-29 2028-03-30 2028-04-30"),
        ("2026-01-31", "month", "2026-02-28 2026-03-31 2026-04-30 2026-05-31"),
        ("2027-12-31", "month", "2028-01-31 2028-02-29 2028-03-31 2028-04-30"),
        ("2026-11-30", "3 months", "2027-02-28 2027-05-30 2027-08-30"),
        ("2026-02-28", "month", "2026-03-28 2026-04-28"),
        ("2026-10-15 13:30", "month", "2026-11-15 13:30"),
        ("2026-06-30", "year", "2027-06-30 2028-06-30"),
        ("2028-02-29", "year", "2029-02-28 2030-02-28 2031-02-28 2032-02-29 2033-02-28"),
    ],
)
async def test_each_period_closes_at_its_edge_and_a_grace_without_drift(begun, anchor, interval, edges):
    story = await begun(anchor, interval)
    starts, start = [], at(anchor)
    for edge in (at(each) for each in edges.replace(" 13:30", "T13:30").split()):
        # A unit in the first instant of the period and one in its last: both are its own.
        for day in (start, edge - INSTANT):
            await story.report(edge.isoformat()[:19], (day.isoformat()[:26], 1))
        assert await story.close(edge + GRACE.length - INSTANT) == 0
        assert await story.close(edge + GRACE.length) == 1
        starts.append(f"{start.date()}..{edge.date()}: 2")
        start = edge
    assert await story.invoices() == starts


@pytest.mark.parametrize(
    ("late_on", "expected"),
    [
        # January closes on 1 February at midnight plus 24 hours.
        ("2026-02-01 23:59", ["2026-01-01..2026-02-01: 15", "2026-02-01..2026-03-01: 20"]),
        ("2026-02-02 00:01", ["2026-01-01..2026-02-01: 10", "2026-02-01..2026-03-01: 20 | 2026-01-01 +5"]),
        ("2026-03-01 23:59", ["2026-01-01..2026-02-01: 10", "2026-02-01..2026-03-01: 20 | 2026-01-01 +5"]),
        (
            "2026-04-20",
            [
                "2026-01-01..2026-02-01: 10",
                "2026-02-01..2026-03-01: 20",
                "2026-03-01..2026-04-01: 0",
                "2026-04-01..2026-05-01: 0 | 2026-01-01 +5",
            ],
        ),
    ],
)
async def test_a_late_report_is_on_the_first_invoice_that_is_still_open(begun, late_on, expected):
    story = await begun("2026-01-01")
    await story.report("2026-01-15", ("2026-01-10", 10))
    # Events in the order of their instants; the clock strikes before each.
    for now, days in sorted([("2026-02-20", ("2026-02-10", 20)), (late_on, ("2026-01-31", 5))]):
        await story.close(now)
        await story.report(now, days)
    for month in range(2, len(expected) + 2):
        await story.close(f"2026-{month:02}-02 01:00")
    assert await story.invoices() == expected


async def test_at_the_very_instant_of_the_cut_off_the_closing_decides(begun):
    """What is recorded before the closing is on its invoice, what is recorded after it is late; neither is lost."""
    story = await begun("2026-01-31")
    cut_off = "2026-03-01"
    await story.report("2026-02-10", ("2026-02-10", 10))
    await story.report(cut_off, ("2026-02-27", 4))
    assert await story.close(cut_off) == 1
    await story.report(cut_off, ("2026-02-27", 3))
    assert await story.close(cut_off) == 0
    await story.close("2026-04-01")
    assert await story.invoices() == ["2026-01-31..2026-02-28: 14", "2026-02-28..2026-03-31: 0 | 2026-01-31 +3"]


async def test_one_late_delivery_about_several_periods_adjusts_each_at_its_own(begun):
    story = await begun("2026-01-31")
    for day in ("2026-02-10", "2026-03-10", "2026-04-10"):
        await story.report(day, (day, 10))
    await story.close("2026-05-02")
    await story.report("2026-05-10", ("2026-02-27", 1), ("2026-03-30", 2), ("2026-04-29", 3), ("2026-05-05", 50))
    await story.close("2026-06-02")
    assert await story.invoices() == [
        "2026-01-31..2026-02-28: 10",
        "2026-02-28..2026-03-31: 10",
        "2026-03-31..2026-04-30: 10",
        "2026-04-30..2026-05-31: 50 | 2026-01-31 +1 | 2026-02-28 +2 | 2026-03-31 +3",
    ]


async def test_a_day_on_either_side_of_the_edge_is_billed_on_its_own_side(begun):
    """28 February 2026 belongs to the period that starts then, since the anchor is a 31st."""
    story = await begun("2026-01-31")
    await story.report("2026-02-28 12:00", ("2026-02-27 23:59:59", 7), ("2026-02-28 00:00:00", 11))
    await story.close("2026-03-01")
    await story.close("2026-04-01")
    assert await story.invoices() == ["2026-01-31..2026-02-28: 7", "2026-02-28..2026-03-31: 11"]


@pytest.mark.parametrize(
    ("february", "expected"),
    [
        # The invoice of February can bear it.
        (
            50,
            ["2026-01-01..2026-02-01: 40", "2026-02-01..2026-03-01: 50 | 2026-01-01 -30", "2026-03-01..2026-04-01: 60"],
        ),
        (
            30,
            ["2026-01-01..2026-02-01: 40", "2026-02-01..2026-03-01: 30 | 2026-01-01 -30", "2026-03-01..2026-04-01: 60"],
        ),
        # It cannot bear all of it: what is left is kept for March (K4).
        (
            29,
            [
                "2026-01-01..2026-02-01: 40",
                "2026-02-01..2026-03-01: 29 | 2026-01-01 -30 | credit +1",
                "2026-03-01..2026-04-01: 60 | credit -1",
            ],
        ),
    ],
)
async def test_a_correction_downwards_after_the_closing_is_a_credit(begun, february, expected):
    story = await begun("2026-01-01")
    await story.report("2026-01-20", ("2026-01-10", 40))
    await story.close("2026-02-02")
    await story.report("2026-02-10", ("2026-01-10", -30))
    await story.report("2026-02-20", ("2026-02-20", february))
    await story.close("2026-03-02")
    await story.report("2026-03-20", ("2026-03-20", 60))
    await story.close("2026-04-02")
    assert await story.invoices() == expected


async def test_up_down_and_up_again_is_settled_once_at_what_it_came_to(begun):
    story = await begun("2026-01-01")
    await story.report("2026-01-20", ("2026-01-10", 40))
    await story.close("2026-02-02")
    await story.report("2026-02-03", ("2026-01-11", 8))
    await story.report("2026-02-04", ("2026-01-10", -20))
    await story.report("2026-02-05", ("2026-01-12", 2))
    await story.close("2026-03-02")
    await story.report("2026-03-03", ("2026-01-13", 100))
    await story.report("2026-03-04", ("2026-03-04", 1))
    await story.close("2026-04-02")
    await story.close("2026-05-02")
    assert await story.invoices() == [
        "2026-01-01..2026-02-01: 40",
        # 40 billed, 30 now; February costs nothing, so the 10 are kept and met the 100 in March.
        "2026-02-01..2026-03-01: 0 | 2026-01-01 -10 | credit +10",
        "2026-03-01..2026-04-01: 1 | 2026-01-01 +100 | credit -10",
        "2026-04-01..2026-05-01: 0",
    ]


async def test_late_usage_of_a_year_waits_for_the_next_years_invoice(begun):
    story = await begun("2028-02-29", "year")
    await story.report("2028-06-01", ("2028-05-31", 100))
    await story.report("2029-02-28 10:00", ("2029-02-27", 10), ("2029-02-28", 1))
    await story.close("2029-03-01")
    await story.report("2029-03-02", ("2028-12-24", 5))
    assert await story.close("2030-02-28 23:59") == 0
    await story.close("2030-03-01")
    assert await story.invoices() == ["2028-02-29..2029-02-28: 110", "2029-02-28..2030-02-28: 1 | 2028-02-29 +5"]


@pytest.mark.parametrize(
    ("anchor", "interval", "known_on", "expected"),
    [
        # The schedule changes with a period's end: no period is cut, none is missing.
        ("2026-02-01", "year", "2026-02-01", "2026-01-01..2026-02-01 2026-02-01..2027-02-01"),
        # The year begins with the present month: the open period grows into it.
        ("2026-01-01", "year", "2026-01-15", "2026-01-01..2027-01-01"),
        # The anchor moves on: the open period ends where the new one begins.
        ("2026-01-15", "month", "2026-01-15", "2026-01-01..2026-01-15 2026-01-15..2026-02-15 2026-02-15..2026-03-15"),
        ("2026-01-31", "month", "2026-01-31", "2026-01-01..2026-01-31 2026-01-31..2026-02-28 2026-02-28..2026-03-31"),
        ("2026-01-15", "year", "2026-01-15", "2026-01-01..2026-01-15 2026-01-15..2027-01-15"),
        ("2026-01-15", "week", "2026-01-15", "2026-01-01..2026-01-15 2026-01-15..2026-01-22 2026-01-22..2026-01-29"),
    ],
)
async def test_after_a_changed_schedule_no_period_overlaps_and_none_is_missing(
    begun, anchor, interval, known_on, expected
):
    story = await begun("2026-01-01")
    story.schedule = BillingSchedule(at(anchor), Interval.parse(interval))
    await story.close(known_on)
    await story.agree(known_on)
    periods = expected.split()
    last = at(periods[-1].split("..")[1])
    assert await story.close(last + GRACE.length) == len(periods)
    assert [each.split(":")[0] for each in await story.invoices()] == periods


async def test_from_month_to_year_and_back_at_the_edges(begun):
    story = await begun("2026-01-31")
    await story.report("2026-02-20", ("2026-02-20", 10))
    story.schedule = BillingSchedule(at("2026-02-28"), Interval.parse("year"))
    await story.agree("2026-02-28")
    await story.report("2026-02-28 09:00", ("2026-02-28", 5))
    await story.close("2026-03-01")
    await story.report("2026-12-24", ("2026-12-24", 100))
    story.schedule = BillingSchedule(at("2027-02-28"), Interval.parse("month"))
    await story.close("2027-02-28")
    await story.agree("2027-02-28")
    await story.report("2027-03-01", ("2027-03-01", 3))
    await story.close("2027-03-29")
    await story.close("2027-04-29")
    assert await story.invoices() == [
        "2026-01-31..2026-02-28: 10",
        "2026-02-28..2027-02-28: 105",
        "2027-02-28..2027-03-28: 3",
        "2027-03-28..2027-04-28: 0",
    ]


async def test_after_years_away_everything_is_closed_in_order(begun):
    story = await begun("2027-11-30")
    for day in ("2027-12-01", "2028-01-01", "2028-02-01", "2028-03-01"):
        await story.report(day, (day, 1))
    assert await story.close("2028-05-02") == 5
    assert await story.invoices() == [
        "2027-11-30..2027-12-30: 1",
        "2027-12-30..2028-01-30: 1",
        "2028-01-30..2028-02-29: 1",
        "2028-02-29..2028-03-30: 1",
        "2028-03-30..2028-04-30: 0",
    ]


class CutStory(Story):
    """The same with usage as usage-ingest tells it: it keeps the days, and the schedules as it knows them."""

    def __init__(self, store, make, schedule: BillingSchedule) -> None:
        super().__init__(store, make, schedule)
        self.counted = ScheduleHistory(schedule)
        self.days: dict[datetime, int] = {}
        self.followed = 1
        self.cuts: dict[datetime, int] = {}

    async def reschedule(self, now: str, schedule: str, *, counted: bool = True) -> None:
        """``2026-01-15 month``: agreed on now; usage-ingest hears it now, or when `recut`."""
        anchor, interval = schedule.split(" ", 1)
        self.schedule = BillingSchedule(at(anchor), Interval.parse(interval))
        self.change = ScheduleChange(self.schedule, self.period(now).start, at(now))
        await self.agree(now)
        if counted:
            await self.recut(now)

    async def recut(self, now: str) -> None:
        self.counted = self.counted.changed(self.change)
        self.followed = self.terms_revisions
        await self.told(now)

    async def used(self, now: str, day: str, units: int) -> None:
        """Units more on a day, reported now."""
        self.days[at(day)] = self.days.get(at(day), 0) + units
        await self.told(now)

    async def told(self, now: str) -> None:
        """The snapshot as of now: what each period adds up to."""
        self.revisions += 1
        sums: dict[BillingPeriod, int] = {}
        for day, units in self.days.items():
            period = self.counted.period_containing(day)
            sums[period] = sums.get(period, 0) + units
        told = [
            PeriodUsage(
                period,
                self.revisions,
                self.followed,
                {"events": total},
                {cut: {"events": used} for cut, used in self.cuts.items() if period.start < cut < period.end},
            )
            for period, total in sorted(sums.items(), key=lambda item: item[0].start)
        ]
        async with self.store.begin() as tx:
            await record_snapshot(
                "org-1", told, revision=self.revisions, tx=tx, now=at(now), report_every=timedelta(days=1)
            )


CUTS = {
    "month to year": ("2026-01-01 month", "2026-01-15 year", "2026-01-01..2026-01-15", "2026-01-15..2027-01-15"),
    "year to month": ("2026-01-01 year", "2026-01-15 month", "2026-01-01..2026-01-15", "2026-01-15..2026-02-15"),
    "31st to 15th": ("2025-12-31 month", "2026-01-15 month", "2025-12-31..2026-01-15", "2026-01-15..2026-02-15"),
}


@pytest.fixture(params=CUTS.values(), ids=CUTS)
async def cut(request, store, make):
    """A customer with 10 units on the 10th and, already counted, 7 on the 16th; the cut will be on the 15th."""
    was, becomes, first, second = request.param
    anchor, interval = was.split(" ", 1)
    story = CutStory(store, make, BillingSchedule(at(anchor), Interval.parse(interval)))
    await story.agree(anchor)
    await story.used("2026-01-11", "2026-01-10", 10)
    await story.used("2026-01-17", "2026-01-16", 7)
    return story, becomes, first, second


async def close_both(story: CutStory, second: str) -> None:
    await story.close("2026-02-01")
    await story.close(at(second.split("..")[1]) + GRACE.length)


async def test_a_day_after_the_cut_that_was_counted_before_the_change_is_billed_once(cut):
    story, becomes, first, second = cut
    await story.reschedule("2026-01-17 09:00", becomes)
    await close_both(story, second)
    assert await story.invoices() == [f"{first}: 10", f"{second}: 7"]


async def test_a_day_before_the_cut_that_is_reported_after_the_change_is_billed(cut):
    story, becomes, first, second = cut
    await story.reschedule("2026-01-17 09:00", becomes)
    await story.used("2026-01-17 10:00", "2026-01-14", 5)
    await close_both(story, second)
    assert await story.invoices() == [f"{first}: 15", f"{second}: 7"]


async def test_what_comes_after_the_cut_period_was_closed_is_an_adjustment_of_its_own_period(cut):
    story, becomes, first, second = cut
    await story.reschedule("2026-01-17 09:00", becomes)
    assert await story.close("2026-01-17 10:00") == 1
    await story.used("2026-01-18", "2026-01-14", 5)
    await story.used("2026-01-18 01:00", "2026-01-15", 2)
    await close_both(story, second)
    assert await story.invoices() == [f"{first}: 10", f"{second}: 9 | {first[:10]} +5"]


async def test_a_closing_waits_until_usage_follows_the_changed_schedule(cut):
    """usage-ingest hears of the change last: until then it tells of the whole period, which nobody bills (D3)."""
    story, becomes, first, second = cut
    await story.used("2026-01-17 08:00", "2026-01-14", 5)
    await story.reschedule("2026-01-17 09:00", becomes, counted=False)
    await story.used("2026-01-17 10:00", "2026-01-16", 1)
    assert await story.close("2026-01-17 11:00") == 0
    await story.used("2026-01-17 12:00", "2026-01-16", 1)
    await story.recut("2026-01-17 13:00")
    await close_both(story, second)
    assert await story.invoices() == [f"{first}: 15", f"{second}: 9"]


async def test_limits_lowered_before_the_cut_still_bill_what_they_let_through(store, make):
    """8 were let through while 10 were allowed; on the 12th the limit fell to 3, on the 15th the year begins (L12)."""
    story = CutStory(store, make, BillingSchedule(at("2026-01-01"), Interval.parse("month")))
    await story.agree("2026-01-01", items=[make.item(price=CENT, allowance=0, quota=10)])
    await story.used("2026-01-11", "2026-01-10", 8)
    await story.agree("2026-01-12", items=[make.item(price=CENT, allowance=0, quota=3)])
    story.cuts[at("2026-01-12")] = 8
    story.schedule = BillingSchedule(at("2026-01-15"), Interval.parse("year"))
    await story.agree("2026-01-17", items=[make.item(price=CENT, allowance=0, quota=3)])
    story.change = ScheduleChange(story.schedule, at("2026-01-15"), at("2026-01-17"))
    await story.recut("2026-01-17")
    await story.close("2026-01-18")
    assert await story.invoices() == ["2026-01-01..2026-01-15: 8"]

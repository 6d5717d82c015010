"""Whatever people correct and take back, in whatever order, the cells are the join of the reports that count (L1, L3)."""

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta

from hypothesis import example, given, settings
from hypothesis import strategies as st
from quill_pricing.period import BillingPeriod, BillingSchedule, Interval
from quill_usage_ingest.domain.completeness import Completeness
from quill_usage_ingest.domain.correction import CorrectionKind, CorrectionOrder, Replacement
from quill_usage_ingest.domain.organization import CustomerFacts, Organization
from quill_usage_ingest.domain.period_usage import NOTHING_USED
from quill_usage_ingest.domain.usage_cells import claimed_cells, join
from quill_usage_ingest.domain.usage_report import UsageReport, UsageWindow
from quill_usage_ingest.ports import Arrival, ArrivedReport
from quill_usage_ingest.store.corrections import MemoryCorrections
from quill_usage_ingest.store.memory import MemoryUsage
from quill_usage_ingest.store.memory_events import MemoryEvents
from quill_usage_ingest.usecases.correct_usage import apply_correction, revert_correction
from quill_usage_ingest.usecases.explain_usage import explain_usage, usage_as_of
from quill_usage_ingest.usecases.project_customers import project_customers
from quill_usage_ingest.usecases.record_reports import record_reports

OCTOBER = BillingPeriod(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))
NOW = datetime(2026, 10, 20, tzinfo=UTC)


def day(number):
    start = OCTOBER.start + timedelta(days=number)
    return UsageWindow(start, start + timedelta(days=1))


def arrived(number, at, quantity, counter):
    window, content = day(number), repr((number, at, quantity, counter))
    report = UsageReport(
        report_id=content,
        organization_id="acme",
        source="us",
        window=window,
        completeness=Completeness.COMPLETE if at else Completeness.PARTIAL,
        as_of=window.start + timedelta(hours=at),
        counters={counter: quantity},
        content_hash=hashlib.sha256(content.encode()).digest(),
    )
    return ArrivedReport(report, Arrival("kafka", b"{}"))


reports = st.builds(
    arrived, st.integers(0, 1), st.integers(0, 2), st.integers(0, 9), st.sampled_from(["events", "recordings"])
)
voids = st.tuples(st.just("void"), st.sets(st.integers(0, 4), min_size=1, max_size=2))
replacements = st.tuples(st.just("replace"), st.integers(0, 9))
reversions = st.tuples(st.just("revert"), st.integers(0, 5))
later_reports = st.tuples(st.just("report"), reports)


class Story:
    """One organization in memory; each thing done to it happens an hour after the one before."""

    def __init__(self):
        self.tx, self.corrections, self.now, self.number = MemoryUsage(), MemoryCorrections(), NOW, 0
        self.events = MemoryEvents()

    async def begin(self, arriving):
        schedule = BillingSchedule(OCTOBER.start, Interval(1, "month"))
        await project_customers([Organization("acme", "l", 1, schedule, CustomerFacts("c", "cloud"))], tx=self.tx)
        await self.record(arriving)

    async def record(self, arriving):
        await record_reports(arriving, tx=self.tx, now=self.now, is_publication_due=False)

    async def do(self, kind, what):
        self.now += timedelta(hours=1)
        self.number += 1
        if kind == "report":
            await self.record([what])
        elif kind == "revert":
            await self.revert(what)
        else:
            order = await self.order(kind, what)
            if order is not None:
                await apply_correction(
                    order, tx=self.tx, events=self.events, corrections=self.corrections, now=self.now
                )

    async def order(self, kind, what):
        named = {"correction_id": f"c{self.number}", "organization_id": "acme", "actor": "ada", "reason": "r"}
        if kind == "replace":
            windows = tuple(Replacement(day(number), {"events": what}) for number in (0, 1))
            span = {"source": "us", "start": OCTOBER.start, "end": day(1).end}
            return CorrectionOrder(**named, **span, kind=CorrectionKind.REPLACE, windows=windows)
        kept = await self.tx.kept_reports("acme", window_start=None, after_id=0, limit=100)
        sent = [each.id for each in kept if each.intake != "correction"]
        chosen = tuple(sorted({sent[position % len(sent)] for position in what}))
        return CorrectionOrder(**named, kind=CorrectionKind.VOID, kept_ids=chosen)

    async def revert(self, position):
        known = await self.corrections.of_organization("acme")
        if known:
            correction_id = known[position % len(known)].order.correction_id
            await revert_correction(
                "acme",
                correction_id,
                actor="bob",
                reason="r",
                tx=self.tx,
                events=self.events,
                corrections=self.corrections,
                now=self.now,
            )

    async def revert_all(self):
        for position, _ in enumerate(await self.corrections.of_organization("acme")):
            self.now += timedelta(hours=1)
            await self.revert(position)

    async def cells(self):
        return {key: held.cells for key, held in await self.tx.windows_after("acme", None, limit=1_000) if held.cells}

    async def check(self):
        expected = {}
        for claim in await self.tx.kept_claims("acme", OCTOBER.start, OCTOBER.end):
            if claim.kept.verdict not in ("voided", "shadowed"):
                report = claim.report
                expected[report.window_key] = join(expected.get(report.window_key, {}), claimed_cells(report))
        assert await self.cells() == expected
        organization = await self.tx.organization("acme")
        known = {"tx": self.tx, "corrections": self.corrections}
        live = await usage_as_of(organization, OCTOBER, self.now, counters={"events", "recordings"}, **known)
        for counter in ("events", "recordings"):
            explained = await explain_usage(organization, OCTOBER, counter, **known)
            assert explained.explanation.usage == explained.stored
            assert live.then.get(counter, NOTHING_USED)[:2] == explained.stored[:2], "as of now is live"


@settings(max_examples=150, deadline=None)
@given(
    arriving=st.lists(reports, min_size=1, max_size=5),
    doings=st.lists(st.one_of(voids, replacements, reversions, later_reports), max_size=6),
)
@example(arriving=[arrived(1, 0, 1, "recordings"), arrived(1, 1, 0, "recordings")], doings=[("void", {0, 1})])
def test_after_any_corrections_and_reversions_the_number_is_what_the_counting_reports_say(arriving, doings):
    async def play():
        story = Story()
        await story.begin(arriving)
        for kind, what in doings:
            await story.do(kind, what)
            await story.check()

    asyncio.run(play())


@settings(max_examples=100, deadline=None)
@given(
    arriving=st.lists(reports, min_size=1, max_size=5),
    doings=st.lists(st.one_of(voids, replacements, reversions), max_size=5),
)
def test_everything_taken_back_is_the_state_before(arriving, doings):
    async def play():
        story = Story()
        await story.begin(arriving)
        before = await story.cells()
        for kind, what in doings:
            await story.do(kind, what)
        await story.revert_all()
        assert await story.cells() == before
        await story.check()

    asyncio.run(play())

"""Whatever way, order, repetition, cut and crash: the same reports are the same cells, totals and explanation (L1, L5).

The reports are read by the intakes' own readers, so what is mixed here is what really arrives.
"""

import asyncio
import base64
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quill_contracts.intakes import DailyReport
from quill_pricing.period import BillingPeriod, BillingSchedule, Interval
from quill_runtime.database import Database, Transaction
from quill_usage_ingest.domain.completeness import Completeness
from quill_usage_ingest.domain.explanation import Standing
from quill_usage_ingest.domain.organization import CustomerFacts, Organization
from quill_usage_ingest.ports import Arrival, ArrivedReport
from quill_usage_ingest.store.corrections import MemoryCorrections, PostgresCorrections
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.memory import MemoryUsage
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.usecases.explain_usage import explain_usage
from quill_usage_ingest.usecases.project_customers import project_customers
from quill_usage_ingest.usecases.record_reports import record_reports
from quill_usage_ingest.wire.daily_reports import from_wire_daily_report, to_usage_report
from quill_usage_ingest.wire.queued_reports import INTAKES, read_queued_report
from quill_usage_ingest.wire.usage_reports import from_wire_usage_report

OCTOBER = BillingPeriod(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))
ACME = Organization("acme", "l", 1, BillingSchedule(OCTOBER.start, Interval(1, "month")), CustomerFacts("c", "cloud"))
NOW = datetime(2026, 10, 20, tzinfo=UTC)
EVENTS = "event_count_in_period"


class Said(NamedTuple):
    """What one source says of one day, and the way it comes."""

    way: str
    day: int
    hours: int
    """From the day's beginning until it was counted."""
    source: str
    counters: dict[str, int]
    complete: bool

    @property
    def start(self) -> datetime:
        return OCTOBER.start + timedelta(days=self.day)

    @property
    def at(self) -> datetime:
        return self.start + timedelta(hours=self.hours)


said = st.builds(
    Said,
    st.sampled_from(["kafka", "http", "v1", "v2"]),
    st.integers(0, 1),
    st.integers(1, 50),
    st.sampled_from(["us", "eu"]),
    st.dictionaries(st.sampled_from([EVENTS, "recording_count_in_period"]), st.integers(0, 9), min_size=1),
    st.booleans(),
)


def arrived(each: Said) -> ArrivedReport:
    """Through the reader of its intake."""
    report: dict[str, Any] = {"organization_id": "acme", "date": each.start.date().isoformat(), **each.counters}
    envelope = json.dumps({"organization_id": "acme", "usage_report": report})
    completeness = "complete" if each.complete else "partial"
    match each.way:
        case "kafka":
            body = json.dumps(
                {
                    "report_id": repr(each),
                    "source": each.source,
                    "organization_id": "acme",
                    "window_start": each.start.isoformat(),
                    "window_end": (each.start + timedelta(days=1)).isoformat(),
                    "completeness": completeness,
                    "as_of": each.at.isoformat(),
                    "counters": each.counters,
                }
            ).encode()
            return ArrivedReport(from_wire_usage_report(body), Arrival("kafka", body))
        case "http":
            daily = from_wire_daily_report(json.dumps(report).encode())
            claim, note = to_usage_report(daily, source=each.source, metered_counters=(), now=each.at)
            return ArrivedReport(claim, Arrival("http", daily.body, note=note))
        case "v1":
            packed = base64.b64encode(gzip.compress(envelope.encode(), mtime=0)).decode()
            message = DailyReport(
                generation="v1", source=each.source, as_of=each.at, encoding="base64-gzip", body=packed
            )
        case _:
            message = DailyReport(
                generation="v2",
                source=each.source,
                as_of=each.at,
                completeness=completeness,
                body=envelope,
                run_id=f"run-{each.at.isoformat()}",
                line=1,
            )
    read = read_queued_report(message, ())
    return ArrivedReport(read.report, Arrival(INTAKES[message.generation], read.body, note=read.note or None))


class Crash(Exception):
    """After the work, before its commit."""


class Delivery(NamedTuple):
    """Some reports in one transaction; crashed ones are delivered again by whoever sent them."""

    reports: list[ArrivedReport]
    crashes: bool


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[ArrivedReport], list[Delivery]]:
    """Reports once and in order; and the same ones in any order, repeated, cut into batches, with crashes between."""
    reports = [arrived(each) for each in draw(st.lists(said, min_size=1, max_size=7))]
    again = draw(st.lists(st.sampled_from(reports), max_size=5))
    disorder = draw(st.permutations(reports + again))
    found = []
    while disorder:
        size = draw(st.integers(1, len(disorder)))
        batch, disorder = list(disorder[:size]), disorder[size:]
        found += [Delivery(batch, crashes=True)] * draw(st.integers(0, 1)) + [Delivery(batch, crashes=False)]
    return reports, found


def expected_cells(reports: list[ArrivedReport]) -> dict[tuple[str, str, str], tuple[bool, datetime, int]]:
    """Told plainly: of each day, source and counter the largest (complete, as-of, quantity) holds."""
    cells: dict[tuple[str, str, str], tuple[bool, datetime, int]] = {}
    for each in (item.report for item in reports):
        for counter, quantity in each.counters.items():
            key = (each.window.start.date().isoformat(), each.source, counter)
            claim = (each.completeness is Completeness.COMPLETE, each.as_of, quantity)
            cells[key] = max(cells.get(key, claim), claim)
    return cells


Outcome = tuple[Any, Any, Any]


async def outcome_of(tx: Any, corrections: Any) -> Outcome:
    """Cells, totals of complete and partial days, and the explanation's cells with who holds and why not the others.

    Maxima and timelines tell of the order of arrival and are left out; kept ids are places in it.
    """
    cells = {key: held.cells for key, held in await tx.windows_after("acme", None, limit=1_000)}
    (held,) = await tx.periods_in_force("acme", newest=None)
    totals = {counter: (usage.complete, usage.partial) for counter, usage in held.counters.items()}
    explained = []
    for counter in sorted(totals):
        explanation = await explain_usage(ACME, OCTOBER, counter, tx=tx, corrections=corrections)
        usage = explanation.explanation.usage
        assert (usage.complete, usage.partial) == totals[counter]
        explained += [
            (
                counter,
                cell.window,
                cell.source,
                cell.cell,
                [(claim.evidence.report.content_hash, claim.cell, claim.standing) for claim in cell.claims],
            )
            for cell in explanation.explanation.cells
        ]
    return cells, totals, explained


async def check(begin: Any, corrections_of: Any, sent: list[Delivery]) -> Outcome:
    async with begin() as tx:
        await project_customers([ACME], tx=tx)
    for delivery in sent:
        with suppress(Crash):
            async with begin() as tx:
                await record_reports(delivery.reports, tx=tx, now=NOW, is_publication_due=False)
                if delivery.crashes:
                    raise Crash
    async with begin() as tx:
        return await outcome_of(tx, corrections_of(tx))


@settings(max_examples=150)
@given(deliveries())
def test_reports_of_all_intakes_in_any_order_repetition_cut_and_crash_are_the_same_numbers(drawn):
    reports, sent = drawn
    plainly = asyncio.run(check(MemoryUsage().begin, lambda _tx: MemoryCorrections(), [Delivery(reports, False)]))
    mixed = asyncio.run(check(MemoryUsage().begin, lambda _tx: MemoryCorrections(), sent))
    assert mixed == plainly
    cells, totals, explained = plainly
    expected = expected_cells(reports)
    quantities = {
        (key.start.date().isoformat(), key.source, counter): cell.quantity
        for key, held in cells.items()
        for counter, cell in held.items()
    }
    assert quantities == {key: quantity for key, (_, _, quantity) in expected.items()}
    for counter, (complete, partial) in totals.items():
        own = [claim for (_, _, named), claim in expected.items() if named == counter]
        assert complete == sum(quantity for is_complete, _, quantity in own if is_complete)
        assert partial == sum(quantity for is_complete, _, quantity in own if not is_complete)
    assert all(claims[0][2] is Standing.HOLDS for *_, claims in explained)


@pytest.mark.integration
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=deliveries())
def test_on_postgres_they_are_the_same_numbers_as_in_memory(migrated_urls, drawn):
    """The same law on the real store, where a crash is a transaction rolled back."""
    reports, sent = drawn
    plainly = asyncio.run(check(MemoryUsage().begin, lambda _tx: MemoryCorrections(), [Delivery(reports, False)]))

    async def on_postgres() -> Outcome:
        database, slots = Database(migrated_urls(), pool_size=2), CounterSlots()
        opened: list[Transaction] = []

        @asynccontextmanager
        async def begin() -> AsyncIterator[PostgresUsage]:
            async with database.begin() as transaction:
                opened.append(transaction)
                yield PostgresUsage(transaction, slots)

        try:
            return await check(begin, lambda _tx: PostgresCorrections(opened[-1]), sent)
        finally:
            await database.close()

    assert asyncio.run(on_postgres()) == plainly

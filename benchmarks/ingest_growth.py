"""What a usage report costs with one million cells kept, and with twenty: the hot path must not know the difference.

Run with ``python -m benchmarks.ingest_growth [--quick] [--json]``; see README.md for how to read it.
"""

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

from quill_runtime.database import Database
from quill_stack.progress import Progress
from quill_stack.stores import Stores
from quill_usage_ingest.store.partitions import Partitions
from quill_usage_ingest.wire.usage_reports import from_wire_usage_report

from benchmarks.support.bare_writes import BareWriter, connected
from benchmarks.support.figures import Ratio, machine, median_of, print_json, print_ratios, print_table
from benchmarks.support.history import History
from benchmarks.support.ingest_run import IngestRun, message_of, opened_run
from benchmarks.support.population import COUNTERS_PER_REPORT, Regions, organization_id
from benchmarks.support.service import running_service
from benchmarks.support.stores import benchmark_stores

ORGANIZATIONS: Final = 2_000
HISTORY_DAYS: Final = 20
CELLS_PER_ORGANIZATION: Final = HISTORY_DAYS * COUNTERS_PER_REPORT
GROWTH_MAX: Final = 1.3
BATCH_REPORTS: Final = 1_000

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Plan:
    """How many cells are there at first, how many in the end, and how often each is measured."""

    few: int
    many: int
    rounds: int

    @classmethod
    def of(cls, *, quick: bool) -> Self:
        return cls(250_000, 1_000_000, 2) if quick else cls(1_000_000, 20_000_000, 4)


async def _rounds(run: IngestRun, regions: Regions, bare: BareWriter, count: int) -> list[Figures]:
    """Each a day that nobody reported yet, beside a bare merge of the same, which knows no history."""
    rounds = []
    for _ in range(count):
        messages = [message_of(report) for report in regions.next_day()]
        written = await bare.write([from_wire_usage_report(message.value or b"") for message in messages])
        drain, _ = await run.drain(messages, read_first=None)
        reports = len(messages)
        rounds.append(
            {
                "reports": reports / drain.seconds,
                "merged": reports / written.merged,
                "service_us": drain.service_cpu / reports * 1e6,
                "postgres_us": drain.postgres_cpu / reports * 1e6,
                "wal": drain.wal_bytes / reports,
            }
        )
    return rounds


async def _measure(plan: Plan, stores: Stores, says: Progress) -> tuple[list[Figures], list[Figures]]:
    # A month that is over: every day of it, the copied and the measured ones, stands in one partition.
    month = (datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)).replace(
        day=1
    )
    first_day = month + timedelta(days=HISTORY_DAYS)
    regions = Regions(organizations=ORGANIZATIONS, first_day=first_day)
    with running_service("usage-ingest", stores, says) as service:
        bare: Any = await connected(stores.create_database("bare_writes"))
        try:
            writer = BareWriter(bare, batch_reports=BATCH_REPORTS)
            await writer.prepare()
            async with opened_run(stores, service, regions, says) as run:
                await run.introduce_customers()
                await run.drain([message_of(report) for report in regions.next_day()], read_first=None)
                # The partitions job would do it within the hour: measured is a month with a partition of its own.
                rows = Database(service.database_url)
                await Partitions(rows).run(datetime.now(UTC))
                await rows.close()
                history = History(run.database, organization_id(0), first_day, HISTORY_DAYS)
                few, many = (cells // CELLS_PER_ORGANIZATION for cells in (plan.few, plan.many))
                with says.step(f"Copying a past of {plan.few:,} cells"):
                    await history.grow(0, few)
                    await history.settle()
                before = await _rounds(run, regions, writer, plan.rounds)
                with says.step(f"Copying a past of {plan.many:,} cells"):
                    await history.grow(few, many)
                    await history.settle()
                after = await _rounds(run, regions, writer, plan.rounds)
                await run.check_truth()
        finally:
            await bare.close()
    return before, after


def _ratios(before: Sequence[Figures], after: Sequence[Figures]) -> list[Ratio]:
    def cost(rounds: Sequence[Figures], name: str) -> float:
        return median_of(rounds, name)

    def growth(text: str, few: float, many: float, *, limit: float | None = GROWTH_MAX) -> Ratio:
        ratio = many / few
        return Ratio("", text, ratio, ratio, ratio, None if limit is None else 1.0, limit, "lower")

    def cpu(rounds: Sequence[Figures]) -> float:
        return cost(rounds, "service_us") + cost(rounds, "postgres_us")

    def seconds(rounds: Sequence[Figures]) -> float:
        return cost(rounds, "merged") / cost(rounds, "reports")

    return [
        growth("processor time per report, many cells / few", cpu(before), cpu(after)),
        # Right after a checkpoint each page is logged whole once, and more cells lie on more pages: no bound is set.
        growth("log bytes per report, many cells / few", cost(before, "wal"), cost(after, "wal"), limit=None),
        growth("seconds per report against the bare merge, many / few", seconds(before), seconds(after)),
    ]


def _show(plan: Plan, before: Sequence[Figures], after: Sequence[Figures]) -> None:
    names = ("reports", "merged", "service_us", "postgres_us", "wal")
    print_table(
        "Usage ingest with a long past",
        ["cells kept", "reports/s", "bare merge/s", "service CPU us", "Postgres CPU us", "log bytes"],
        [
            [f"{cells:,}", *(f"{median_of(rounds, name):,.0f}" for name in names)]
            for cells, rounds in ((plan.few, before), (plan.many, after))
        ],
        caption=f"medians of {plan.rounds} rounds of {ORGANIZATIONS:,} reports, per report; {machine()}",
    )
    print_ratios(_ratios(before, after), caption="floor: what issue 3 asks for; information only")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="from a quarter of a million cells to one million")
    parser.add_argument("--json", action="store_true", help="print figures for machines")
    arguments = parser.parse_args()
    says, plan = Progress(), Plan.of(quick=arguments.quick)
    with benchmark_stores("ingest-growth", says) as stores:
        before, after = asyncio.run(_measure(plan, stores, says))
    if arguments.json:
        print_json({"benchmark": "ingest_growth", "few": before, "many": after}, _ratios(before, after))
    else:
        _show(plan, before, after)


if __name__ == "__main__":
    main()

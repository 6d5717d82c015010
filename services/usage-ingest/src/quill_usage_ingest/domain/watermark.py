"""A claim that a source has told everything, waiting until what it speaks for was entered."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from quill_usage_ingest.domain.complete_through import CompleteThrough, Span
from quill_usage_ingest.domain.completeness import Completeness
from quill_usage_ingest.domain.report_run import ReportRun
from quill_usage_ingest.domain.usage_report import DAY, UsageReport

LogEnds = Mapping[tuple[str, int], int]
"""By topic and partition: the offset that the next record would get."""


@dataclass(frozen=True, slots=True)
class WatermarkClaim:
    """Somebody's word for ``source``.

    Attributes:
        through: All windows that end by then were sent.
        start: None for a watermark; else only windows in [``start``, ``through``) are meant.
        as_of: When it was said; a reset takes back what was said until then.
        origin: Where it came from: a topic, ``http``, ``api``, or the run of chunk files.
        actor: Who said it: the source itself, a license, or a person.
        reason: Why, when a person said it.
    """

    source: str
    through: datetime
    as_of: datetime
    origin: str
    actor: str
    start: datetime | None = None
    reason: str = ""

    def added_to(self, complete: CompleteThrough) -> CompleteThrough:
        """What is complete with this claim."""
        if self.start is None:
            return complete.told_before(self.through)
        return complete.told(Span(self.start, self.through))


def watermark_of_run(run: ReportRun) -> WatermarkClaim | None:
    """What a wholly copied run says of its source: its day was told, if it was counted to its end."""
    if run.completeness is not Completeness.COMPLETE:
        return None
    start = datetime(run.date.year, run.date.month, run.date.day, tzinfo=UTC)
    return WatermarkClaim(
        source=run.source,
        start=start,
        through=start + DAY,
        as_of=run.as_of,
        origin=f"run:{run.run_id}",
        actor=f"source:{run.source}",
    )


def watermark_of_day(report: UsageReport, *, actor: str) -> WatermarkClaim | None:
    """What a complete daily report says of a source that has no other organization."""
    if report.completeness is not Completeness.COMPLETE:
        return None
    return WatermarkClaim(
        source=report.source,
        start=report.window.start,
        through=report.window.end,
        as_of=report.as_of,
        origin="http",
        actor=actor,
    )


def is_passed(fence: LogEnds, settled: LogEnds) -> bool:
    """Whether everything that stood in the logs when the fence was put up has been entered and published since.

    ``settled`` are this service's own positions; a partition it does not know yet has nothing entered.
    """
    return all(settled.get(partition, 0) >= end for partition, end in fence.items())

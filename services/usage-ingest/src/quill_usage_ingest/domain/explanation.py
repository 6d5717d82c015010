"""Why a number is what it is: the cells, the report that holds each, why the others do not, and how it came (L5).

The cells of an explanation depend on what was reported and not on the order in which it arrived: a cell is held by the
report with the largest (rank, quantity), and among equals by the one with the smallest content hash. Only the timeline
tells of arrival.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import groupby
from typing import Final, NamedTuple

from quill_usage_ingest.domain.completeness import Completeness
from quill_usage_ingest.domain.evidence import Evidence, OutOfCount
from quill_usage_ingest.domain.period_maximum import PeriodMaximum
from quill_usage_ingest.domain.period_usage import NOTHING_USED, CounterUsage
from quill_usage_ingest.domain.usage_book import Verdict
from quill_usage_ingest.domain.usage_cells import NEVER_REPORTED, Cell, is_complete, join, rank_of
from quill_usage_ingest.domain.usage_report import UsageReport, UsageWindow, WindowKey


class Standing(StrEnum):
    """What a report is to a cell that it claims."""

    HOLDS = "holds"
    OLDER = "older_as_of"
    """The holder was counted later."""
    PARTIAL = "partial_behind_complete"
    """The holder calls its window complete; this one was still counting."""
    BEHIND_CORRECTION = "behind_correction"
    """A person of ours replaced what the source says."""
    SMALLER = "smaller_quantity"
    """Same rank; of two equals the larger quantity wins."""
    EQUAL = "equal"
    """Same rank and quantity: it says the same, and either could hold the cell."""
    VOIDED = "voided"
    SHADOWED = "shadowed"


class CellClaim(NamedTuple):
    """What one report says of one cell, and why it holds it or not."""

    evidence: Evidence
    cell: Cell
    standing: Standing

    @property
    def voided_by(self) -> OutOfCount | None:
        """The correction that keeps it out of count now."""
        spans = [span for span in self.evidence.out_of_count if span.until is None]
        return spans[0] if spans and self.standing is Standing.VOIDED else None


@dataclass(frozen=True, slots=True)
class ExplainedCell:
    """One (window, source) of a counter; ``cell`` is `NEVER_REPORTED` when nothing that claims it counts.

    ``claims`` begin with the holder; the others follow by falling (rank, quantity).
    """

    window: UsageWindow
    source: str
    cell: Cell
    claims: tuple[CellClaim, ...]

    @property
    def holder(self) -> CellClaim | None:
        return self.claims[0] if self.claims[0].standing is Standing.HOLDS else None


class StepKind(StrEnum):
    """What moved a number, or could have."""

    ARRIVED = "arrived"
    REPLACED = "replaced"
    VOIDED = "voided"
    REVERTED = "reverted"


@dataclass(frozen=True, slots=True)
class Step:
    """One arrival or correction, and what it did to the total and the maximum.

    ``correction`` names who and why, if a person did it. One correction is one step, however many reports it concerns.
    """

    at: datetime
    kind: StepKind
    kept_ids: tuple[int, ...]
    sources: tuple[str, ...]
    before: CounterUsage
    after: CounterUsage
    correction: OutOfCount | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """One counter in one span of windows."""

    counter: str
    cells: tuple[ExplainedCell, ...]
    timeline: tuple[Step, ...]

    @property
    def usage(self) -> CounterUsage:
        """What the cells add up to, with the maximum of the timeline (L2, L3)."""
        complete = sum(held.cell.quantity for held in self.cells if is_complete(held.cell.rank))
        partial = sum(held.cell.quantity for held in self.cells if not is_complete(held.cell.rank))
        maximum = self.timeline[-1].after.maximum if self.timeline else 0
        return CounterUsage(complete, partial, maximum)


def explain(counter: str, evidence: Iterable[Evidence]) -> Explanation:
    """Explain one counter from all reports ever kept for its windows, in whatever order they are given."""
    claiming = [held for held in evidence if counter in held.report.counters]
    by_cell: dict[tuple[datetime, str], list[Evidence]] = {}
    for held in claiming:
        by_cell.setdefault((held.report.window.start, held.report.source), []).append(held)
    cells = tuple(_explain_cell(counter, by_cell[key]) for key in sorted(by_cell))
    return Explanation(counter, cells, tuple(_timeline(counter, claiming)))


def known_at(instant: datetime, evidence: Iterable[Evidence]) -> dict[str, CounterUsage]:
    """Every counter's total as it was known at an instant; the maximum is left to the timeline of `explain`.

    Reports that had arrived by then count, unless a correction held them out of count then.
    """
    windows: dict[WindowKey, dict[str, Cell]] = {}
    for held in evidence:
        if held.counted_at(instant):
            report = held.report
            rank = rank_of(report.completeness, report.as_of)
            claimed = {counter: Cell(rank, quantity) for counter, quantity in report.counters.items()}
            windows[report.window_key] = join(windows.get(report.window_key, {}), claimed)
    sums: dict[str, CounterUsage] = {}
    for cells in windows.values():
        for counter, cell in cells.items():
            sums[counter] = _with(sums.get(counter, NOTHING_USED), cell, sign=1)
    return {counter: usage._replace(maximum=usage.to_date) for counter, usage in sums.items()}


def usage_at(explanation: Explanation, instant: datetime) -> CounterUsage:
    """Total and maximum after the last step at or before an instant."""
    known = NOTHING_USED
    for step in explanation.timeline:
        if step.at > instant:
            break
        known = step.after
    return known


def _cell_of(report: UsageReport, counter: str) -> Cell:
    return Cell(rank_of(report.completeness, report.as_of), report.counters[counter])


def _explain_cell(counter: str, claiming: Sequence[Evidence]) -> ExplainedCell:
    # By content and never by arrival. A stable sort by hash first leaves the smallest hash in front among equals.
    ordered = sorted(claiming, key=lambda held: held.report.content_hash)
    ordered.sort(key=lambda held: _cell_of(held.report, counter), reverse=True)
    ordered.sort(key=lambda held: not held.counts)
    holder = ordered[0] if ordered[0].counts else None
    claims = tuple(
        CellClaim(held, _cell_of(held.report, counter), _standing(held, counter, holder=holder)) for held in ordered
    )
    first = ordered[0].report
    cell = claims[0].cell if holder is not None else NEVER_REPORTED
    return ExplainedCell(first.window, first.source, cell, claims)


_COMPLETENESS_ORDER: Final = (Completeness.PARTIAL, Completeness.COMPLETE, Completeness.CORRECTED)


def _standing(held: Evidence, counter: str, *, holder: Evidence | None) -> Standing:
    if held is holder:
        return Standing.HOLDS
    if holder is None or not held.counts:
        return Standing.SHADOWED if held.verdict is Verdict.SHADOWED else Standing.VOIDED
    mine, other = held.report, holder.report
    if mine.completeness is not other.completeness:
        is_corrected = other.completeness is Completeness.CORRECTED
        return Standing.BEHIND_CORRECTION if is_corrected else Standing.PARTIAL
    if mine.as_of != other.as_of:
        return Standing.OLDER
    return Standing.EQUAL if mine.counters[counter] == other.counters[counter] else Standing.SMALLER


class _Move(NamedTuple):
    """A report that begins or ceases to count at an instant."""

    at: datetime
    kind: StepKind
    correction: OutOfCount | None
    evidence: Evidence
    counts: bool

    @property
    def step_key(self) -> tuple[datetime, str, str]:
        """What belongs to one step: everything one correction did; each arrival is a step of its own."""
        if self.correction is not None:
            return (self.at, self.kind.value, self.correction.correction_id)
        return (self.at, self.kind.value, f"#{self.evidence.kept_id:020}")


def _moves(held: Evidence) -> Iterable[_Move]:
    if held.verdict is Verdict.SHADOWED or (held.verdict is Verdict.VOIDED and not held.out_of_count):
        return
    report = held.report
    if held.correction_id is not None and report.correction is not None:
        by = OutOfCount(held.correction_id, report.correction.actor, report.correction.reason, held.received_at)
        yield _Move(held.received_at, StepKind.REPLACED, by, held, counts=True)
    else:
        yield _Move(held.received_at, StepKind.ARRIVED, None, held, counts=True)
    for span in held.out_of_count:
        is_own = span.correction_id == held.correction_id
        yield _Move(span.since, StepKind.REVERTED if is_own else StepKind.VOIDED, span, held, counts=False)
        if span.until is not None:
            # Another correction may still hold it out of count.
            yield _Move(span.until, StepKind.REVERTED, span, held, counts=held.counted_at(span.until))


def _timeline(counter: str, claiming: Iterable[Evidence]) -> Iterable[Step]:
    moves = [move for held in claiming for move in _moves(held)]
    # At one instant arrivals come first, in the order they were kept; then what people did.
    moves.sort(key=lambda move: (move.at, move.correction is not None, move.step_key, move.evidence.kept_id))
    counted: _Counted = {}
    counting: dict[int, UsageReport] = {}
    usage = NOTHING_USED
    for _, grouped in groupby(moves, key=lambda move: move.step_key):
        group = list(grouped)
        first, before = group[0], usage
        is_correction = first.correction is not None or first.evidence.report.correction is not None
        usage = _stepped(usage, group, counter, counted)
        for move in group:
            if move.counts:
                counting[move.evidence.kept_id] = move.evidence.report
            else:
                counting.pop(move.evidence.kept_id, None)
        if is_correction:
            usage = usage._replace(maximum=_greatest_total(counter, counting))
        yield Step(
            at=first.at,
            kind=first.kind,
            kept_ids=tuple(sorted({move.evidence.kept_id for move in group})),
            sources=tuple(sorted({move.evidence.report.source for move in group})),
            before=before,
            after=usage,
            correction=first.correction,
        )


_Counted = dict[tuple[datetime, str], dict[int, Cell]]
"""What counts in each cell, by kept id."""


def _stepped(usage: CounterUsage, group: Iterable[_Move], counter: str, counted: _Counted) -> CounterUsage:
    """After one step as a whole: what it passed through on the way was never published (L3)."""
    held: dict[tuple[datetime, str], Cell] = {}
    for move in group:
        report = move.evidence.report
        key = (report.window.start, report.source)
        claims = counted.setdefault(key, {})
        held.setdefault(key, max(claims.values(), default=NEVER_REPORTED))
        if move.counts:
            claims[move.evidence.kept_id] = _cell_of(report, counter)
        else:
            claims.pop(move.evidence.kept_id, None)
    for key, before in held.items():
        after = max(counted[key].values(), default=NEVER_REPORTED)
        if before != after:
            usage = _with(_with(usage, before, sign=-1), after, sign=1)
    return usage._replace(maximum=max(usage.maximum, usage.to_date))


def _greatest_total(counter: str, counting: Mapping[int, UsageReport]) -> int:
    """After a correction: as if only these reports had arrived, in the order of their kept ids (L3)."""
    greatest = PeriodMaximum(only={counter})
    for _, report in sorted(counting.items()):
        greatest.enter(report)
    return greatest.maxima.get(counter, 0)


def _with(usage: CounterUsage, cell: Cell, *, sign: int) -> CounterUsage:
    """With a cell's quantity put in (1) or taken out (-1); the maximum is the caller's."""
    if is_complete(cell.rank):
        return usage._replace(complete=usage.complete + sign * cell.quantity)
    return usage._replace(partial=usage.partial + sign * cell.quantity)

"""Enter reports from a file, and say for each what it changed (L1, L4).

A dry run is the same work in a transaction that is given up: it cannot say anything else than entering would.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from quill_usage_ingest.domain.usage_book import Refusal, Verdict
from quill_usage_ingest.domain.usage_cells import CellChange, WindowCells, changes_by, claimed_cells
from quill_usage_ingest.ports import ArrivedReport, UsageTransaction
from quill_usage_ingest.usecases.record_reports import record_reports


@dataclass(frozen=True, slots=True)
class Backfilled:
    """What became of one report: the verdict or the refusal, and the cells it won."""

    outcome: Verdict | Refusal
    changes: Mapping[str, CellChange] = field(default_factory=dict)


async def backfill_reports(
    arrived: Sequence[ArrivedReport], *, tx: UsageTransaction, now: datetime
) -> list[Backfilled]:
    """Enter reports in the order given.

    Raises:
        TooManyCounters: a new counter name found no slot; nothing may be committed.
    """
    await tx.lock_organizations({item.report.organization_id for item in arrived})
    await tx.archived_months()  # Read before any cell: no month leaves in between.
    windows = dict(await tx.windows_of_days({item.report.day_key for item in arrived}))
    outcomes = await record_reports(arrived, tx=tx, now=now, is_publication_due=True)
    answers = []
    for item, outcome in zip(arrived, outcomes, strict=True):
        # What is kept already has had its effect, or has been denied it by a correction.
        if isinstance(outcome, Refusal) or outcome is Verdict.NO_CHANGE:
            answers.append(Backfilled(outcome))
            continue
        report = item.report
        known = windows.get(report.window_key, WindowCells(report.window))
        changes = changes_by(claimed_cells(report), to=known.cells)
        cells = {**known.cells, **{counter: change.after for counter, change in changes.items()}}
        windows[report.window_key] = WindowCells(report.window, cells)
        answers.append(Backfilled(outcome, changes))
    return answers

"""Team cells in Postgres (performance 6): packed rows, merged under a lock of their own, never the organization's."""

import hashlib
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

from quill_runtime.database import Transaction
from sqlalchemy import Row, TextClause, text

from quill_usage_ingest.domain.packed_cells import PackedCells
from quill_usage_ingest.domain.team_cells import TeamKey, TeamRows
from quill_usage_ingest.domain.team_usage import TeamName
from quill_usage_ingest.domain.usage_cells import WindowCells
from quill_usage_ingest.domain.usage_report import DayKey, ReportName, UsageWindow, WindowKey
from quill_usage_ingest.domain.usage_series import TeamAmount
from quill_usage_ingest.store.archived_months import PostgresArchivedMonths
from quill_usage_ingest.store.array_text import array_text
from quill_usage_ingest.store.counter_slots import SLOTS_MAX, CounterSlots
from quill_usage_ingest.store.months import of_months
from quill_usage_ingest.store.team_marks import mark_teams

_HOLD: Final[TextClause] = text(
    "select pg_advisory_xact_lock(held.key) from unnest(cast(:locks as bigint[])) as held(key)"
)
_OUT_OF_COUNT: Final = """
    select r.organization_id, r.source, r.report_id, k.month, r.content_hash
    from unnest(cast(:organization_ids as text[]), cast(:sources as text[]), cast(:report_ids as text[]),
                cast(:months as timestamptz[])) as k(organization_id, source, report_id, month)
    join usage_reports as r using (organization_id, source, report_id)
    where r.verdict in ('voided', 'shadowed')
      and r.window_start >= k.month and r.window_start < k.month + interval '1 month' and {r.window_start}
    """
_ROWS_OF_DAYS: Final = """
    select w.organization_id, w.window_start, w.source, w.team_id, w.window_end, w.quantities, w.ranks
    from unnest(cast(:organization_ids as text[]), cast(:days as timestamptz[]), cast(:sources as text[]))
             as k(organization_id, day, source)
    join team_windows as w
      on w.organization_id = k.organization_id and w.source = k.source
     and w.window_start >= k.day and w.window_start < k.day + interval '1 day'
    where {w.window_start}
    """
_SAVE_ROWS: Final[TextClause] = text(
    """
    insert into team_windows (organization_id, window_start, source, team_id, window_end, quantities, ranks)
    select k.organization_id, k.window_start, k.source, k.team_id, k.window_end,
           cast(k.quantities as bigint[]), cast(k.ranks as bigint[])
    from unnest(
        cast(:organization_ids as text[]), cast(:starts as timestamptz[]), cast(:sources as text[]),
        cast(:team_ids as text[]), cast(:ends as timestamptz[]), cast(:quantities as text[]), cast(:ranks as text[])
    ) as k(organization_id, window_start, source, team_id, window_end, quantities, ranks)
    on conflict (organization_id, window_start, source, team_id)
    do update set quantities = excluded.quantities, ranks = excluded.ranks
    """
)
_FORGET_WINDOWS: Final = """
    delete from team_windows as w
    using unnest(cast(:organization_ids as text[]), cast(:starts as timestamptz[]), cast(:sources as text[]))
              as k(organization_id, window_start, source)
    where w.organization_id = k.organization_id and w.window_start = k.window_start and w.source = k.source
      and {w.window_start}
    returning w.organization_id, w.team_id
    """
_AMOUNTS: Final[TextClause] = text(
    """
    select date_trunc(:interval, w.window_start, 'UTC') as start, w.team_id, s.slot,
           sum(w.quantities[s.slot + 1]) as quantity,
           bool_or(w.ranks[s.slot + 1] < :complete_from) as is_partial
    from team_windows as w
    cross join unnest(cast(:slots as int[])) as s(slot)
    where w.organization_id = :organization_id and w.window_start >= :start and w.window_start < :end
      and (cast(:team_ids as text[]) is null or w.team_id = any(cast(:team_ids as text[])))
      and w.ranks[s.slot + 1] > 0
    group by 1, 2, 3
    order by 1, 2, 3
    limit :rows
    """
)
_TEAM_IDS: Final[TextClause] = text(
    """
    select distinct w.team_id from team_windows as w
    where w.organization_id = :organization_id and w.window_start >= :start and w.window_start < :end
    limit :rows
    """
)
_COMPLETE_FROM: Final = 1 << 60
"""Ranks below it are of windows their source still counts (L6)."""


class PostgresTeams(PostgresArchivedMonths):
    """`TeamTransaction` on one open transaction."""

    def __init__(self, transaction: Transaction, slots: CounterSlots) -> None:
        self._connection = transaction.connection
        self._slots = slots.of(transaction)

    async def hold_teams(self, organization_ids: Collection[str], *, counters: Collection[str]) -> None:
        # Registry first, then teams: whoever enters an organization's counters takes them in this order as well.
        await self._slots.ensure(counters)
        locks = sorted({teams_lock(organization_id) for organization_id in organization_ids})
        await self._connection.execute(_HOLD, {"locks": locks})

    async def out_of_count(self, names: Collection[ReportName]) -> set[tuple[object, bytes]]:
        if not names:
            return set()
        rows = await self._connection.execute(
            of_months(_OUT_OF_COUNT, (name.month for name in names)),
            {
                "organization_ids": [name.organization_id for name in names],
                "sources": [name.source for name in names],
                "report_ids": [name.report_id for name in names],
                "months": [name.month for name in names],
            },
        )
        return {
            (ReportName(row.organization_id, row.source, row.report_id, row.month), bytes(row.content_hash))
            for row in rows
        }

    async def team_rows_of_days(self, days: Collection[DayKey]) -> TeamRows:
        if not days:
            return {}
        ordered = sorted(days)
        rows = await self._connection.execute(
            of_months(_ROWS_OF_DAYS, (day.day for day in ordered)),
            {
                "organization_ids": [day.organization_id for day in ordered],
                "days": [day.day for day in ordered],
                "sources": [day.source for day in ordered],
            },
        )
        return await self._team_rows(rows.all())

    async def save_team_rows(self, rows: TeamRows) -> None:
        if not rows:
            return
        ordered = sorted(rows.items())
        packed = [PackedCells.of(row.cells, self._slots.layout) for _, row in ordered]
        await self._connection.execute(
            _SAVE_ROWS,
            {
                "organization_ids": [key.organization_id for key, _ in ordered],
                "starts": [key.start for key, _ in ordered],
                "sources": [key.source for key, _ in ordered],
                "team_ids": [key.team_id for key, _ in ordered],
                "ends": [row.window.end for _, row in ordered],
                "quantities": [array_text(cells.quantities) for cells in packed],
                "ranks": [array_text(cells.ranks) for cells in packed],
            },
        )

    async def forget_team_windows(self, windows: Collection[WindowKey]) -> set[TeamName]:
        if not windows:
            return set()
        rows = await self._connection.execute(
            of_months(_FORGET_WINDOWS, (window.start for window in windows)),
            {
                "organization_ids": [window.organization_id for window in windows],
                "starts": [window.start for window in windows],
                "sources": [window.source for window in windows],
            },
        )
        return {TeamName(row.organization_id, row.team_id) for row in rows}

    async def mark_teams(self, teams: Collection[TeamName]) -> None:
        await mark_teams(self._connection, teams)

    async def team_amounts(
        self,
        organization_id: str,
        start: datetime,
        end: datetime,
        *,
        interval: str,
        counters: Collection[str],
        team_ids: Collection[str] | None,
        limit: int,
    ) -> list[TeamAmount]:
        await self._refuse_archived(start, end)
        names = (await self._slots.reaching(SLOTS_MAX)).names
        slots = [slot for slot, name in enumerate(names) if name in counters]
        rows = await self._connection.execute(
            _AMOUNTS,
            {
                "interval": interval,
                "organization_id": organization_id,
                "start": start,
                "end": end,
                "slots": slots,
                "team_ids": None if team_ids is None else sorted(team_ids),
                "complete_from": _COMPLETE_FROM,
                "rows": limit,
            },
        )
        return [
            TeamAmount(row.start, row.team_id, names[row.slot], int(row.quantity), is_partial=row.is_partial)
            for row in rows
        ]

    async def team_ids(self, organization_id: str, start: datetime, end: datetime, *, limit: int) -> list[str]:
        await self._refuse_archived(start, end)
        rows = await self._connection.execute(
            _TEAM_IDS, {"organization_id": organization_id, "start": start, "end": end, "rows": limit}
        )
        return sorted(row.team_id for row in rows)

    async def _team_rows(self, rows: Sequence[Row[Any]]) -> TeamRows:
        layout = await self._slots.reaching(max((len(row.ranks) for row in rows), default=0))
        return {
            TeamKey(row.organization_id, row.window_start, row.source, row.team_id): WindowCells(
                UsageWindow(row.window_start, row.window_end), PackedCells(layout, row.quantities, row.ranks)
            )
            for row in rows
        }


def teams_lock(organization_id: str) -> int:
    """The advisory lock of one organization's team rows; many are taken in the order of these numbers."""
    digest = hashlib.blake2b(organization_id.encode(), digest_size=8, person=b"quill-teams").digest()
    return int.from_bytes(digest, "big", signed=True)

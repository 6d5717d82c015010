"""Team usage in Postgres: marks, the numbers last told, and organizations whose teams must all be counted again.

Marks are rows of their own and no column beside the numbers: a writer of cells then never waits for a snapshot that is
on its way to Kafka.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from quill_pricing.period import BillingPeriod
from quill_pricing.schedule_history import Schedules
from quill_runtime.database import Transaction
from sqlalchemy import Row, TextClause, delete, text, update

from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.team_usage import (
    TOTAL_MAX,
    TeamMeters,
    TeamMeterUsage,
    TeamName,
    TeamPeriod,
    TeamSpan,
    TeamUsage,
)
from quill_usage_ingest.domain.usage_cells import COMPLETE_BIT, CORRECTED_BIT
from quill_usage_ingest.domain.usage_month import month_after, month_of
from quill_usage_ingest.store.archived_months import PostgresArchivedMonths
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.metered_product_rows import PostgresMeteredProducts
from quill_usage_ingest.store.months import of_months
from quill_usage_ingest.store.schedules import schedules_of
from quill_usage_ingest.store.short_vectors import rank_in
from quill_usage_ingest.store.team_marks import mark_teams, sweep_organizations
from quill_usage_ingest.store.team_tables import team_usage_sweeps

SWEEPS_LOCK: Final = 0x5155_494C_4C12
_SHARE_SWEEPS: Final = text("select pg_advisory_xact_lock_shared(:lock)")
_HOLD_SWEEPS: Final = text("select pg_advisory_xact_lock(:lock)")
_MARKED: Final[TextClause] = text(
    """
    select m.organization_id, m.team_id from team_usage_marks as m
    where cast(:organization_ids as text[]) is null or m.organization_id = any(cast(:organization_ids as text[]))
    order by m.organization_id, m.team_id
    limit :rows
    for update skip locked
    """
)
_NAMED: Final = """
    select u.organization_id, u.team_id, u.revision, u.periods
    from unnest(cast(:organization_ids as text[]), cast(:team_ids as text[])) as k(organization_id, team_id)
    join team_usage as u using (organization_id, team_id)
    """
_KNOWN: Final[TextClause] = text(_NAMED)
_FREE: Final[TextClause] = text(f"{_NAMED} order by u.organization_id, u.team_id for update of u skip locked")
_UNMARK: Final[TextClause] = text(
    """
    delete from team_usage_marks as m
    using unnest(cast(:organization_ids as text[]), cast(:team_ids as text[])) as k(organization_id, team_id)
    where m.organization_id = k.organization_id and m.team_id = k.team_id
    """
)
_SCHEDULES: Final[TextClause] = text(
    """
    select organization_id, schedule_anchor, schedule_interval, ended_schedules from organizations
    where organization_id = any(cast(:organization_ids as text[]))
    """
)
_SUMS: Final = f"""
    select k.place, s.meter,
           sum(w.quantities[s.slot + 1]) filter (where w.ranks[s.slot + 1] >= :complete_from) as complete,
           sum(w.quantities[s.slot + 1]) filter (where w.ranks[s.slot + 1] < :complete_from) as partial
    from unnest(cast(:organization_ids as text[]), cast(:team_ids as text[]), cast(:starts as timestamptz[]),
                cast(:ends as timestamptz[])) with ordinality
             as k(organization_id, team_id, period_start, period_end, place)
    join team_windows as w
      on w.organization_id = k.organization_id and w.team_id = k.team_id
     and w.window_start >= k.period_start and w.window_start < k.period_end
    join unnest(cast(:meters as text[]), cast(:slots as int[]), cast(:counts_from as timestamptz[]))
             as s(meter, slot, counts_from)
      on s.counts_from is null or w.window_start >= s.counts_from
    left join usage_windows as o
      on o.organization_id = w.organization_id and o.window_start = w.window_start and o.source = w.source
     and {{o.window_start}}
    where w.ranks[s.slot + 1] > 0 and {{w.window_start}}
      and coalesce({rank_in("o", "s.slot")}, 0) < :replaced_from
    group by k.place, s.meter
    """  # noqa: S608 - columns written in `short_vectors`
_SAVE: Final[TextClause] = text(
    """
    insert into team_usage as held (organization_id, team_id, revision, periods, is_publication_due)
    select k.organization_id, k.team_id, k.revision, cast(k.periods as jsonb), k.revision > 0
    from unnest(cast(:organization_ids as text[]), cast(:team_ids as text[]), cast(:revisions as bigint[]),
                cast(:periods as text[])) as k(organization_id, team_id, revision, periods)
    on conflict (organization_id, team_id) do update
    set revision = excluded.revision, periods = excluded.periods, is_publication_due = true
    where held.revision < excluded.revision
    """
)
_DUE: Final[TextClause] = text(
    """
    select u.organization_id, u.team_id, u.revision, u.periods from team_usage as u
    where u.is_publication_due
      and (cast(:organization_ids as text[]) is null or u.organization_id = any(cast(:organization_ids as text[])))
    order by u.organization_id, u.team_id
    limit :rows
    for update skip locked
    """
)
_DONE: Final[TextClause] = text(
    """
    update team_usage as u set is_publication_due = false
    from unnest(cast(:organization_ids as text[]), cast(:team_ids as text[])) as k(organization_id, team_id)
    where u.organization_id = k.organization_id and u.team_id = k.team_id
    """
)
_SWEEPS: Final[TextClause] = text(
    """
    select organization_id, after_team_id from team_usage_sweeps
    order by organization_id limit :rows for update skip locked
    """
)
_NEXT_TEAMS: Final[TextClause] = text(
    """
    select team_id from team_usage where organization_id = :organization_id and team_id > :after
    order by team_id limit :rows
    """
)
SWEEPS_AT_ONCE: Final = 50
"""Organizations gone through in one transaction, together by at most as many teams as it may mark."""


class PostgresTeamUsage(PostgresMeteredProducts, PostgresArchivedMonths):
    """`TeamUsageTransaction` on one open transaction, and what publishing needs beside it."""

    def __init__(self, transaction: Transaction, slots: CounterSlots) -> None:
        self._connection = transaction.connection
        self._slots = slots.of(transaction)

    async def take_marked_teams(
        self, organization_ids: Collection[str] | None, *, limit: int
    ) -> dict[TeamName, TeamUsage]:
        # A sweep that begins waits for this transaction, so it sees the teams that become known in it.
        await self._connection.execute(_SHARE_SWEEPS, {"lock": SWEEPS_LOCK})
        rows = await self._connection.execute(_MARKED, {"organization_ids": _listed(organization_ids), "rows": limit})
        marked = [TeamName(row.organization_id, row.team_id) for row in rows]
        if not marked:
            return {}
        free = _usages(await self._connection.execute(_FREE, _columns(marked)))
        known = {
            TeamName(row.organization_id, row.team_id)
            for row in await self._connection.execute(_KNOWN, _columns(marked))
        }
        # Whose snapshot is being sent at this moment stays marked, so that nobody waits for Kafka here.
        taken = {team: free.get(team, TeamUsage()) for team in marked if team in free or team not in known}
        await self._connection.execute(_UNMARK, _columns(taken))
        return taken

    async def schedules_of(self, organization_ids: Collection[str]) -> dict[str, Schedules]:
        rows = await self._connection.execute(_SCHEDULES, {"organization_ids": sorted(organization_ids)})
        return {
            row.organization_id: schedules_of(row.schedule_anchor, row.schedule_interval, row.ended_schedules)
            for row in rows
        }

    async def team_sums(self, spans: Sequence[TeamSpan], meters: MeterMap) -> dict[TeamSpan, TeamMeters]:
        slots = await self._slots.places(meters.counters)
        placed = [(meter, slots[counter]) for meter, counter in meters.counter_by_meter.items() if counter in slots]
        if not spans or not placed:
            return {}
        rows = await self._connection.execute(
            of_months(_SUMS, (month for period in {span.period for span in spans} for month in _months(period))),
            {
                **_columns(span.team for span in spans),
                "starts": [span.period.start for span in spans],
                "ends": [span.period.end for span in spans],
                "meters": [meter for meter, _ in placed],
                "slots": [slot for _, slot in placed],
                "counts_from": [meters.counts_from.get(meter) for meter, _ in placed],
                "complete_from": COMPLETE_BIT,
                "replaced_from": CORRECTED_BIT,
            },
        )
        sums: dict[TeamSpan, dict[str, TeamMeterUsage]] = {}
        for row in rows:
            used = TeamMeterUsage(_total(row.complete), _total(row.partial))
            sums.setdefault(spans[row.place - 1], {})[row.meter] = used
        return dict(sums)

    async def save_team_usage(self, usages: Mapping[TeamName, TeamUsage]) -> None:
        if usages:
            parameters = {
                **_columns(usages),
                "revisions": [usage.revision for usage in usages.values()],
                "periods": [json.dumps(_documents(usage.periods)) for usage in usages.values()],
            }
            await self._connection.execute(_SAVE, parameters)

    # -- organizations whose teams are all counted again -----------------------------------------------------------

    async def sweep_teams(self, *, limit: int) -> int:
        rows = (await self._connection.execute(_SWEEPS, {"rows": SWEEPS_AT_ONCE})).all()
        if not rows:
            return 0
        await self._connection.execute(_HOLD_SWEEPS, {"lock": SWEEPS_LOCK})
        left, finished = limit, 0
        for row in rows:
            parameters = {"organization_id": row.organization_id, "after": row.after_team_id, "rows": left}
            found = [team.team_id for team in await self._connection.execute(_NEXT_TEAMS, parameters)]
            await mark_teams(self._connection, {TeamName(row.organization_id, team_id) for team_id in found})
            left -= len(found)
            of_organization = team_usage_sweeps.c.organization_id == row.organization_id
            if left == 0:
                await self._connection.execute(
                    update(team_usage_sweeps).where(of_organization).values(after_team_id=found[-1])
                )
                break
            await self._connection.execute(delete(team_usage_sweeps).where(of_organization))
            finished += 1
        return limit - left + finished

    async def begin_sweeps(self, organization_ids: Collection[str]) -> None:
        await sweep_organizations(self._connection, organization_ids)

    # -- publication -----------------------------------------------------------------------------------------------

    async def lock_due_team_usage(
        self, organization_ids: Collection[str] | None, *, limit: int
    ) -> dict[TeamName, TeamUsage]:
        """Teams whose newest revision has not been sent, locked until it is; those that somebody sends are left out."""
        parameters = {"organization_ids": _listed(organization_ids), "rows": limit}
        return _usages(await self._connection.execute(_DUE, parameters))

    async def team_publication_done(self, teams: Collection[TeamName]) -> None:
        await self._connection.execute(_DONE, _columns(teams))


def _listed(organization_ids: Collection[str] | None) -> list[str] | None:
    return None if organization_ids is None else sorted(organization_ids)


def _columns(teams: Iterable[TeamName]) -> dict[str, list[Any]]:
    listed = list(teams)
    return {
        "organization_ids": [team.organization_id for team in listed],
        "team_ids": [team.team_id for team in listed],
    }


def _months(period: BillingPeriod) -> Iterable[datetime]:
    month = month_of(period.start)
    while month < period.end:
        yield month
        month = month_after(month)


def _total(added_up: int | None) -> int:
    return min(int(added_up or 0), TOTAL_MAX)


def _documents(periods: Sequence[TeamPeriod]) -> list[dict[str, Any]]:
    return [
        {"start": held.period.start.isoformat(), "end": held.period.end.isoformat(), "meters": dict(held.meters)}
        for held in periods
    ]


def _usages(rows: Iterable[Row[Any]]) -> dict[TeamName, TeamUsage]:
    return {
        TeamName(row.organization_id, row.team_id): TeamUsage(
            row.revision, tuple(_period(each) for each in row.periods)
        )
        for row in rows
    }


def _period(document: Mapping[str, Any]) -> TeamPeriod:
    return TeamPeriod(
        BillingPeriod(datetime.fromisoformat(document["start"]), datetime.fromisoformat(document["end"])),
        {meter: TeamMeterUsage(*used) for meter, used in document["meters"].items()},
    )

"""Rule versions, where they stand, and the shadow run, in Postgres."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import msgspec
import structlog
from prometheus_client import Counter
from quill_runtime.database import Transaction
from quill_runtime.event_store import NewEvent, PostgresEventStream, StoredEvent
from sqlalchemy import Row, bindparam, delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from quill_quota_limiter.domain.limit_state import LimitState
from quill_quota_limiter.domain.rule_table import RuleTable
from quill_quota_limiter.domain.rulebook import RulesStanding, RuleVersion
from quill_quota_limiter.domain.shadow import ShadowDifference, ShadowEvaluation, ShadowLimits
from quill_quota_limiter.ports import (
    RULES_STREAM,
    SHADOW_DIFFERENCES_MAX,
    SHADOW_RUNS_KEPT,
    ActiveRules,
    ShadowPlace,
    ShadowRow,
    ShadowTally,
)
from quill_quota_limiter.store import tables
from quill_quota_limiter.wire.rules import to_table

VERSIONS_MAX = 1_000

DIFFERENCES_LEFT_OUT = Counter(
    "quill_shadow_differences_left_out", "Differences of a shadow run that were not kept because the run has its most"
)

log = structlog.get_logger(__name__)


class PostgresRulebook:
    """Implements `quill_quota_limiter.ports.Rulebook`. ``read`` keeps tables read before: a version never changes."""

    def __init__(self, transaction: Transaction, read: dict[int, RuleTable]) -> None:
        self._connection = transaction.connection
        self._events = PostgresEventStream(transaction)
        self._read = read

    async def active(self) -> ActiveRules:
        standing = await self.standing()
        table = await self._table(standing.in_force)
        shadow = None if standing.shadow is None else await self._table(standing.shadow)
        return ActiveRules(table, shadow, standing.shadow_run)

    async def standing(self) -> RulesStanding:
        return _standing((await self._connection.execute(select(tables.rules_standing))).one())

    async def lock_standing(self, *, wait: bool = True) -> RulesStanding | None:
        row = await self._connection.execute(select(tables.rules_standing).with_for_update(skip_locked=not wait))
        found = row.one_or_none()
        return None if found is None else _standing(found)

    async def save_standing(self, standing: RulesStanding) -> None:
        await self._connection.execute(
            update(tables.rules_standing).values(
                in_force=standing.in_force,
                shadow=standing.shadow,
                shadow_since=standing.shadow_since,
                shadow_run=standing.shadow_run,
                last_shadow=standing.last_shadow,
                walked_to=standing.walked_to,
                retired=list(standing.retired),
            )
        )

    async def versions(self) -> list[RuleVersion]:
        table = tables.limit_rules
        rows = await self._connection.execute(select(table).order_by(table.c.version).limit(VERSIONS_MAX))
        return [
            RuleVersion(row.version, dict(row.document), row.created_at, row.created_by, row.reason) for row in rows
        ]

    async def add(self, version: RuleVersion) -> None:
        await self._connection.execute(
            insert(tables.limit_rules).values(
                version=version.version,
                document=version.document,
                created_at=version.created_at,
                created_by=version.created_by,
                reason=version.reason,
            )
        )

    async def record(self, event: NewEvent) -> None:
        stored = await self._events.read(RULES_STREAM)
        await self._events.append(RULES_STREAM, expected_version=len(stored), events=[event])

    async def events(self) -> list[StoredEvent]:
        return await self._events.read(RULES_STREAM)

    async def shadow_limits(self, organization_ids: Collection[str], *, run: int) -> dict[str, ShadowLimits]:
        table = tables.shadow_limits
        rows = await self._connection.execute(
            select(table).where(table.c.organization_id == func.any(list(organization_ids)), table.c.run == run)
        )
        return {
            row.organization_id: ShadowLimits(
                row.organization_id, row.run, msgspec.convert(row.states, dict[str, LimitState])
            )
            for row in rows
        }

    async def save_shadow(self, evaluations: Sequence[ShadowEvaluation], *, now: datetime) -> None:
        if not evaluations:
            return
        rows = [
            {
                "organization_id": each.limits.organization_id,
                "run": each.limits.run,
                "states": msgspec.to_builtins(each.limits.states),
            }
            for each in sorted(evaluations, key=lambda each: each.limits.organization_id)
            if each.is_changed
        ]
        if rows:
            statement = insert(tables.shadow_limits)
            await self._connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["organization_id"],
                    set_={"run": statement.excluded.run, "states": statement.excluded.states},
                ),
                rows,
            )
        await self._keep_differences(evaluations, run=evaluations[0].limits.run, now=now)

    async def _keep_differences(self, evaluations: Sequence[ShadowEvaluation], *, run: int, now: datetime) -> None:
        table = tables.shadow_differences
        organization_ids = [each.limits.organization_id for each in evaluations]
        rows = await self._connection.execute(
            select(table.c.organization_id, table.c.usage_key, table.c.live_sequence, table.c.shadow_sequence).where(
                table.c.run == run, table.c.organization_id == func.any(organization_ids), table.c.ended_at.is_(None)
            )
        )
        open_before = {tuple(row) for row in rows}
        holding = {_pair(each): each for evaluation in evaluations for each in evaluation.differences}
        ended = sorted(open_before - holding.keys())
        if ended:
            await self._connection.execute(
                update(table)
                .where(
                    table.c.run == run,
                    table.c.organization_id == bindparam("of_organization"),
                    table.c.usage_key == bindparam("of_meter"),
                    table.c.live_sequence == bindparam("of_live"),
                    table.c.shadow_sequence == bindparam("of_shadow"),
                )
                .values(ended_at=now),
                [
                    {"of_organization": name, "of_meter": meter, "of_live": live, "of_shadow": shadow}
                    for name, meter, live, shadow in ended
                ],
            )
        begun = [holding[pair] for pair in sorted(holding.keys() - open_before)]
        if not begun:
            return
        room = SHADOW_DIFFERENCES_MAX - await self._kept(run)
        if len(begun) > room:
            DIFFERENCES_LEFT_OUT.inc(len(begun) - max(0, room))
            log.warning("shadow.differences_left_out", run=run, most=SHADOW_DIFFERENCES_MAX)
            begun = begun[: max(0, room)]
        if begun:
            await self._connection.execute(
                insert(table).on_conflict_do_nothing(), [_difference_row(each) for each in begun]
            )

    async def _kept(self, run: int) -> int:
        table = tables.shadow_differences
        most = select(table.c.run).where(table.c.run == run).limit(SHADOW_DIFFERENCES_MAX).subquery()
        return int(await self._connection.scalar(select(func.count()).select_from(most)) or 0)

    async def shadow_tally(self, run: int) -> ShadowTally:
        table = tables.shadow_differences
        organizations = await self._connection.scalar(
            select(func.count()).select_from(tables.shadow_limits).where(tables.shadow_limits.c.run == run)
        )
        rows = await self._connection.execute(
            select(
                table.c.usage_key,
                table.c.live_state,
                table.c.shadow_state,
                func.count().filter(table.c.ended_at.is_(None)).label("now"),
                func.count().label("ever"),
            )
            .where(table.c.run == run)
            .group_by(table.c.usage_key, table.c.live_state, table.c.shadow_state)
            .order_by(table.c.usage_key, table.c.live_state, table.c.shadow_state)
        )
        groups = tuple((row.usage_key, row.live_state, row.shadow_state, row.now, row.ever) for row in rows)
        return ShadowTally(int(organizations or 0), groups, is_full=await self._kept(run) >= SHADOW_DIFFERENCES_MAX)

    async def shadow_page(self, run: int, *, after: ShadowPlace | None, at_most: int) -> list[ShadowRow]:
        table = tables.shadow_differences
        key = (table.c.organization_id, table.c.usage_key, table.c.live_sequence, table.c.shadow_sequence)
        chosen = select(table).where(table.c.run == run)
        if after is not None:
            chosen = chosen.where(tuple_(*key) > tuple_(*after))
        rows = await self._connection.execute(chosen.order_by(*key).limit(at_most))
        return [
            ShadowRow(
                place=(row.organization_id, row.usage_key, row.live_sequence, row.shadow_sequence),
                version=row.version,
                at=row.at,
                ended_at=row.ended_at,
                live=dict(row.live),
                shadow=dict(row.shadow),
                evidence=dict(row.evidence),
            )
            for row in rows
        ]

    async def forget_shadow_runs(self, newest: int) -> None:
        table = tables.shadow_differences
        await self._connection.execute(delete(table).where(table.c.run <= newest - SHADOW_RUNS_KEPT))

    async def _table(self, version: int) -> RuleTable:
        if version not in self._read:
            table = tables.limit_rules
            document = await self._connection.scalar(select(table.c.document).where(table.c.version == version))
            self._read[version] = to_table(version, document)
        return self._read[version]


def _standing(row: Row[Any]) -> RulesStanding:
    return RulesStanding(
        in_force=row.in_force,
        shadow=row.shadow,
        shadow_since=row.shadow_since,
        shadow_run=row.shadow_run,
        last_shadow=row.last_shadow,
        walked_to=row.walked_to,
        retired=tuple(row.retired),
    )


def _pair(difference: ShadowDifference) -> ShadowPlace:
    return (
        difference.organization_id,
        difference.usage_key,
        difference.live_sequence,
        difference.shadow_sequence,
    )


def _difference_row(difference: ShadowDifference) -> dict[str, Any]:
    return {
        "run": difference.run,
        "organization_id": difference.organization_id,
        "usage_key": difference.usage_key,
        "live_sequence": difference.live_sequence,
        "shadow_sequence": difference.shadow_sequence,
        "version": difference.version,
        "at": difference.at,
        "ended_at": None,
        "live_state": difference.live.state,
        "shadow_state": difference.shadow.state,
        "live": msgspec.to_builtins(difference.live),
        "shadow": msgspec.to_builtins(difference.shadow),
        "evidence": msgspec.to_builtins(difference.evidence),
    }

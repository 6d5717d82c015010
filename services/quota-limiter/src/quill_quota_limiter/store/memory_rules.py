"""The rulebook without Postgres, for simulation and unit tests; it begins with the version that migrations seed."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import msgspec
from quill_runtime.event_store import MemoryEventStream, NewEvent, StoredEvent

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
from quill_quota_limiter.wire.rules import FIRST_RULES, to_table

_SEEDED = RuleVersion(1, dict(FIRST_RULES), datetime(2026, 1, 1, tzinfo=UTC), "migration", "PostHog's numbers")


@dataclass(slots=True)
class RulebookRows:
    """What the rulebook keeps."""

    standing: RulesStanding = field(default_factory=lambda: RulesStanding(in_force=1))
    versions: dict[int, RuleVersion] = field(default_factory=lambda: {1: _SEEDED})
    shadow_limits: dict[str, ShadowLimits] = field(default_factory=dict)
    differences: dict[tuple[int, ShadowPlace], ShadowRow] = field(default_factory=dict)

    def copy(self) -> "RulebookRows":
        return RulebookRows(self.standing, dict(self.versions), dict(self.shadow_limits), dict(self.differences))


class MemoryRulebook:
    """Implements `quill_quota_limiter.ports.Rulebook`."""

    def __init__(self, rows: RulebookRows, events: MemoryEventStream) -> None:
        self._rows = rows
        self._events = events

    async def active(self) -> ActiveRules:
        standing = self._rows.standing
        shadow = None if standing.shadow is None else self._table(standing.shadow)
        return ActiveRules(self._table(standing.in_force), shadow, standing.shadow_run)

    async def standing(self) -> RulesStanding:
        return self._rows.standing

    async def lock_standing(self, *, wait: bool = True) -> RulesStanding | None:  # noqa: ARG002 - transactions take turns
        return self._rows.standing

    async def save_standing(self, standing: RulesStanding) -> None:
        self._rows.standing = standing

    async def versions(self) -> list[RuleVersion]:
        return [self._rows.versions[number] for number in sorted(self._rows.versions)]

    async def add(self, version: RuleVersion) -> None:
        self._rows.versions[version.version] = version

    async def record(self, event: NewEvent) -> None:
        stored = await self._events.read(RULES_STREAM)
        await self._events.append(RULES_STREAM, expected_version=len(stored), events=[event])

    async def events(self) -> list[StoredEvent]:
        return await self._events.read(RULES_STREAM)

    async def shadow_limits(self, organization_ids: Collection[str], *, run: int) -> dict[str, ShadowLimits]:
        found = {name: self._rows.shadow_limits.get(name) for name in organization_ids}
        return {name: limits for name, limits in found.items() if limits is not None and limits.run == run}

    async def save_shadow(self, evaluations: Sequence[ShadowEvaluation], *, now: datetime) -> None:
        for evaluation in evaluations:
            name, run = evaluation.limits.organization_id, evaluation.limits.run
            self._rows.shadow_limits[name] = evaluation.limits
            holding = {_pair(each): each for each in evaluation.differences}
            for (of_run, place), row in self._rows.differences.items():
                if of_run == run and place[0] == name and row.ended_at is None and place not in holding:
                    self._rows.differences[of_run, place] = replace(row, ended_at=now)
            kept = sum(of_run == run for of_run, _ in self._rows.differences)
            for place in sorted(holding):
                if (run, place) not in self._rows.differences and kept < SHADOW_DIFFERENCES_MAX:
                    self._rows.differences[run, place] = _row(holding[place])
                    kept += 1

    async def shadow_tally(self, run: int) -> ShadowTally:
        groups: dict[tuple[str, str, str], list[bool]] = {}
        for (of_run, place), row in self._rows.differences.items():
            if of_run == run:
                groups.setdefault((place[1], row.live["state"], row.shadow["state"]), []).append(row.ended_at is None)
        kept = sum(of_run == run for of_run, _ in self._rows.differences)
        return ShadowTally(
            organizations=sum(limits.run == run for limits in self._rows.shadow_limits.values()),
            groups=tuple((*group, sum(still), len(still)) for group, still in sorted(groups.items())),
            is_full=kept >= SHADOW_DIFFERENCES_MAX,
        )

    async def shadow_page(self, run: int, *, after: ShadowPlace | None, at_most: int) -> list[ShadowRow]:
        places = sorted(p for of_run, p in self._rows.differences if of_run == run and (after is None or p > after))
        return [self._rows.differences[run, place] for place in places[:at_most]]

    async def forget_shadow_runs(self, newest: int) -> None:
        for run, place in list(self._rows.differences):
            if run <= newest - SHADOW_RUNS_KEPT:
                del self._rows.differences[run, place]

    def _table(self, version: int) -> RuleTable:
        return to_table(version, self._rows.versions[version].document)


def _pair(difference: ShadowDifference) -> ShadowPlace:
    return difference.organization_id, difference.usage_key, difference.live_sequence, difference.shadow_sequence


def _row(difference: ShadowDifference) -> ShadowRow:
    return ShadowRow(
        place=_pair(difference),
        version=difference.version,
        at=difference.at,
        ended_at=None,
        live=msgspec.to_builtins(difference.live),
        shadow=msgspec.to_builtins(difference.shadow),
        evidence=msgspec.to_builtins(difference.evidence),
    )

"""The same store and board without Postgres and Redis, for simulation and unit tests.

A transaction works on a copy that replaces the original on success, and transactions take turns; so it shows the same
all-or-nothing behaviour, if not the same concurrency.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

from quill_runtime.event_store import MemoryEventStream, NewEvent, StoredEvent
from quill_runtime.publisher import Outgoing

from quill_quota_limiter import wire
from quill_quota_limiter.domain.credit_balance import CreditBalance
from quill_quota_limiter.domain.entitlement import Customer
from quill_quota_limiter.domain.evaluation import Evaluation, OrganizationLimits
from quill_quota_limiter.domain.limit_state import LogEntry
from quill_quota_limiter.domain.period_usage import OrganizationUsage
from quill_quota_limiter.domain.project_marks import ProjectTokens, marks_of
from quill_quota_limiter.domain.quota_answer import OrganizationStanding, standing_of
from quill_quota_limiter.domain.team_usage import TeamUsage
from quill_quota_limiter.domain.threshold import ThresholdReached
from quill_quota_limiter.ports import BoardReading, BoardUnavailable, TokensOf
from quill_quota_limiter.store.limit_streams import appends_of, stream_of
from quill_quota_limiter.store.memory_rules import MemoryRulebook, RulebookRows
from quill_quota_limiter.store.memory_webhooks import MemoryWebhooks, WebhookRows
from quill_quota_limiter.store.webhook_facts import plan_deliveries
from quill_quota_limiter.wire import limit_log


@dataclass(slots=True)
class _Rows:
    customers: dict[str, Customer] = field(default_factory=dict)
    usages: dict[str, OrganizationUsage] = field(default_factory=dict)
    limits: dict[str, OrganizationLimits] = field(default_factory=dict)
    tokens: dict[str, tuple[str, bool]] = field(default_factory=dict)
    streams: dict[str, list[StoredEvent]] = field(default_factory=dict)
    outbox: list[Outgoing] = field(default_factory=list)
    credits: dict[str, CreditBalance] = field(default_factory=dict)
    reached: dict[str, datetime] = field(default_factory=dict)
    team_usages: dict[tuple[str, str], TeamUsage] = field(default_factory=dict)
    rulebook: RulebookRows = field(default_factory=RulebookRows)
    webhooks: WebhookRows = field(default_factory=WebhookRows)

    def copy(self) -> "_Rows":
        return _Rows(
            dict(self.customers),
            dict(self.usages),
            dict(self.limits),
            dict(self.tokens),
            {stream: list(events) for stream, events in self.streams.items()},
            list(self.outbox),
            dict(self.credits),
            dict(self.reached),
            dict(self.team_usages),
            self.rulebook.copy(),
            self.webhooks.copy(),
        )


class MemoryLimits:
    """Implements `quill_quota_limiter.ports.LimitsStore`."""

    def __init__(self) -> None:
        self._rows = _Rows()
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator["MemoryLimitsTransaction"]:
        async with self._turn:
            transaction = MemoryLimitsTransaction(self._rows.copy())
            yield transaction
            self._rows = transaction.rows

    @property
    def published(self) -> list[Outgoing]:
        """Messages of committed transactions, oldest first."""
        return list(self._rows.outbox)


class MemoryLimitsTransaction:
    """Implements `quill_quota_limiter.ports.LimitsTransaction`."""

    def __init__(self, rows: _Rows) -> None:
        self.rows = rows
        self._events = MemoryEventStream(rows.streams)
        self.rulebook = MemoryRulebook(rows.rulebook, self._events)
        self.webhooks = MemoryWebhooks(rows.webhooks)

    async def lock_organizations(self, organization_ids: Collection[str]) -> dict[str, OrganizationLimits]:
        for name in organization_ids:
            self.rows.limits.setdefault(name, OrganizationLimits(name))
        return {name: self.rows.limits[name] for name in sorted(organization_ids)}

    async def keep_customers(self, customers: Collection[Customer]) -> frozenset[str]:
        changed: set[str] = set()
        for customer in sorted(customers, key=lambda customer: customer.organization_id):
            name = customer.organization_id
            known = self.rows.customers.get(name)
            if known is not None and customer.revision <= known.revision:
                continue
            self.rows.customers[name] = customer
            before, teams = (known.tokens, known.teams) if known else (frozenset(), {})
            for token in customer.tokens - before:
                self.rows.tokens[token] = (name, True)
                changed.add(name)
            if any(teams.get(token) != customer.teams.get(token) for token in customer.tokens & before):
                changed.add(name)
            for token in before - customer.tokens:
                if self.rows.tokens[token][0] == name:
                    self.rows.tokens[token] = (name, False)
                changed.add(name)
        return frozenset(changed)

    async def keep_usage(self, usages: Collection[OrganizationUsage]) -> dict[str, OrganizationUsage]:
        for usage in usages:
            known = self.rows.usages.get(usage.organization_id)
            if known is None or usage.revision > known.revision:
                self.rows.usages[usage.organization_id] = usage
        return {usage.organization_id: self.rows.usages[usage.organization_id] for usage in usages}

    async def keep_team_usage(self, usages: Collection[TeamUsage]) -> None:
        for usage in usages:
            known = self.rows.team_usages.get((usage.organization_id, usage.team_id))
            if known is None or usage.revision > known.revision:
                self.rows.team_usages[usage.organization_id, usage.team_id] = usage

    async def team_usages(self, organization_id: str) -> dict[str, TeamUsage]:
        return {team: usage for (name, team), usage in self.rows.team_usages.items() if name == organization_id}

    async def keep_credits(self, balances: Collection[CreditBalance]) -> None:
        for balance in balances:
            known = self.rows.credits.get(balance.organization_id)
            if known is None or balance.revision > known.revision:
                self.rows.credits[balance.organization_id] = balance

    async def credits(self, organization_ids: Collection[str]) -> dict[str, CreditBalance]:
        return {name: self.rows.credits[name] for name in organization_ids if name in self.rows.credits}

    async def prices(self, organization_id: str) -> Mapping[str, Mapping[str, object]]:
        known = self.rows.customers.get(organization_id)
        return known.prices if known else {}

    async def prices_of(self, organization_ids: Collection[str]) -> dict[str, Mapping[str, Mapping[str, object]]]:
        return {name: self.rows.customers[name].prices for name in organization_ids if name in self.rows.customers}

    async def customers(self, organization_ids: Collection[str]) -> dict[str, Customer]:
        found = {name: self.rows.customers[name] for name in organization_ids if name in self.rows.customers}
        return {name: replace(customer, tokens=frozenset(), prices={}) for name, customer in found.items()}

    async def usages(self, organization_ids: Collection[str]) -> dict[str, OrganizationUsage]:
        return {name: self.rows.usages[name] for name in organization_ids if name in self.rows.usages}

    async def save(self, evaluations: Sequence[Evaluation]) -> None:
        transitions = [transition for evaluation in evaluations for transition in evaluation.transitions]
        for evaluation in evaluations:
            self.rows.limits[evaluation.limits.organization_id] = evaluation.limits
        await self._events.append_all([each for evaluation in evaluations for each in appends_of(evaluation)])
        changed = [evaluation.limits for evaluation in evaluations if evaluation.is_changed]
        self.rows.outbox += [
            *map(wire.to_wire_transition_message, transitions),
            *map(wire.to_wire_states_message, changed),
        ]
        news: list[ThresholdReached] = []
        for each in (each for evaluation in evaluations for each in evaluation.reached):
            if each.reached_id not in self.rows.reached:
                self.rows.reached[each.reached_id] = each.period_end
                news.append(each)
        self.rows.outbox += map(wire.to_wire_reached_message, news)
        await plan_deliveries(evaluations, news, book=self.webhooks)

    async def record(self, stream: str, event: NewEvent) -> None:
        stored = await self._events.read(stream)
        await self._events.append(stream, expected_version=len(stored), events=[event])

    async def recorded(self, stream: str) -> list[StoredEvent]:
        return await self._events.read(stream)

    async def forget_reached(self, before: datetime) -> int:
        old = [name for name, period_end in self.rows.reached.items() if period_end < before]
        for name in old:
            del self.rows.reached[name]
        return len(old)

    async def due_organizations(self, now: datetime, *, at_most: int) -> list[str]:
        due = [
            (found.next_evaluation_at, name)
            for name, found in self.rows.limits.items()
            if found.next_evaluation_at is not None and found.next_evaluation_at <= now
        ]
        return [name for _, name in sorted(due)[:at_most]]

    async def schedule_evaluations(self, limits: Collection[OrganizationLimits]) -> None:
        for found in limits:
            stored = self.rows.limits[found.organization_id]
            if (stored.revision, stored.evaluated_at) == (found.revision, found.evaluated_at):
                self.rows.limits[found.organization_id] = replace(stored, next_evaluation_at=found.next_evaluation_at)

    async def limits(self, organization_ids: Collection[str]) -> dict[str, OrganizationLimits]:
        return {name: self.rows.limits[name] for name in organization_ids if name in self.rows.limits}

    async def known_among(self, organization_ids: Collection[str]) -> frozenset[str]:
        limits = self.rows.limits
        return frozenset(name for name in organization_ids if name in limits and limits[name].is_known)

    async def known_limits_after(self, organization_id: str, *, at_most: int) -> list[OrganizationLimits]:
        known = sorted(name for name, found in self.rows.limits.items() if found.is_known and name > organization_id)
        return [self.rows.limits[name] for name in known[:at_most]]

    async def tokens(self, organization_ids: Collection[str]) -> dict[str, ProjectTokens]:
        owned = {
            name: sorted((token, active) for token, (owner, active) in self.rows.tokens.items() if owner == name)
            for name in organization_ids
        }
        return {
            name: ProjectTokens(
                active=tuple(token for token, active in tokens if active),
                retired=tuple(token for token, active in tokens if not active),
                teams={token: team for token, active in tokens if active and (team := self._teams(name).get(token))},
            )
            for name, tokens in owned.items()
        }

    def _teams(self, organization_id: str) -> Mapping[str, str]:
        known = self.rows.customers.get(organization_id)
        return known.teams if known else {}

    async def token_owners(self, tokens: Collection[str]) -> dict[str, str]:
        return {token: self.rows.tokens[token][0] for token in tokens if token in self.rows.tokens}

    async def active_token_owners(self, tokens: Collection[str]) -> dict[str, str]:
        return {token: self.rows.tokens[token][0] for token in tokens if self.rows.tokens.get(token, ("", False))[1]}

    async def log(
        self, organization_id: str, usage_key: str, *, scope: str | None = None, as_of: datetime | None = None
    ) -> list[LogEntry]:
        stored = await self._events.read(stream_of(organization_id, usage_key, scope), as_of=as_of)
        return [limit_log.from_event(event) for event in stored]

    async def log_page(
        self,
        organization_id: str,
        usage_key: str,
        *,
        scope: str | None = None,
        after: int,
        start: datetime | None,
        end: datetime | None,
        at_most: int,
    ) -> list[tuple[int, LogEntry]]:
        stored = await self._events.page(
            stream_of(organization_id, usage_key, scope), after=after, start=start, end=end, at_most=at_most
        )
        return [(event.version, limit_log.from_event(event)) for event in stored]


class MemoryBoard:
    """Implements `quill_quota_limiter.ports.AnswerBoard`; ``is_away`` makes it unreachable."""

    def __init__(self) -> None:
        self.is_away = False
        self.limited: dict[str, dict[str, int]] = {}
        self.suspended: dict[str, dict[str, int]] = {}
        self._generations: dict[str, dict[str, OrganizationStanding]] = {}
        self._guards: dict[str, tuple[int, str]] = {}
        self._owners: dict[str, str] = {}
        self._current: str | None = None
        self._building: str | None = None
        self._rebuilds = 0

    def empty(self) -> None:
        """Lose everything, as a flushed Redis does."""
        self.limited.clear()
        self.suspended.clear()
        self._generations.clear()
        self._guards.clear()
        self._owners.clear()
        self._current = self._building = None

    async def read(self, organization_ids: Collection[str]) -> BoardReading:
        self._reach()
        if self._current is None:
            return BoardReading(is_complete=False, standings={})
        standings = self._generations[self._current]
        found = {name: standings[name] for name in organization_ids if name in standings}
        return BoardReading(is_complete=True, standings=found)

    async def token_owners(self, tokens: Collection[str]) -> Mapping[str, str] | None:
        self._reach()
        if self._current is None:
            return None
        return {token: self._owners[token] for token in tokens if token in self._owners}

    async def publish(
        self, limits: Sequence[OrganizationLimits], *, tokens_of: TokensOf, rewrite: bool = False
    ) -> None:
        self._reach()
        for found in limits:
            name = found.organization_id
            marks = marks_of(found)
            if self._is_refused(found, rewrite=rewrite):
                continue
            if rewrite or self._guards.get(name, (0, ""))[1] != marks.digest():
                tokens = (await tokens_of([name]))[name]
                if self._is_refused(found, rewrite=rewrite):  # somebody was faster meanwhile
                    continue
                _set_marks(self.limited, marks.limited, marks.limited_tokens(tokens), tokens)
                _set_marks(self.suspended, marks.suspended, {}, tokens)
                self._owners.update(dict.fromkeys(tokens.active, name))
                for token in tokens.retired:
                    if self._owners.get(token) == name:
                        del self._owners[token]
            self._guards[name] = (found.revision, marks.digest())
            standing = standing_of(found)
            assert standing is not None
            for generation in self._generations.values():
                generation[name] = standing

    def _is_refused(self, found: OrganizationLimits, *, rewrite: bool) -> bool:
        known, _ = self._guards.get(found.organization_id, (0, ""))
        return known > found.revision or (known == found.revision and not rewrite)

    async def is_complete(self) -> bool:
        self._reach()
        return self._current is not None

    async def begin_rebuild(self) -> str:
        self._reach()
        self._rebuilds += 1
        self._building = str(self._rebuilds)
        self._generations = {
            name: standings for name, standings in self._generations.items() if name == self._current
        } | {self._building: {}}
        return self._building

    async def finish_rebuild(self, mark: str) -> bool:
        self._reach()
        if self._building != mark:
            return False
        self._current, self._building = mark, None
        self._generations = {mark: self._generations[mark]}
        return True

    async def organization_pages(self) -> AsyncIterator[list[str]]:
        self._reach()
        yield list(self._guards)

    async def token_pages(self) -> AsyncIterator[list[str]]:
        self._reach()
        for marks in (self.limited, self.suspended):
            for scores in marks.values():
                yield list(scores)

    async def marks(self, tokens: Collection[str]) -> Mapping[tuple[str, str], Mapping[str, int]]:
        self._reach()
        wanted = set(tokens)
        return {
            (kind, meter): {token: score for token, score in scores.items() if token in wanted}
            for kind, marks in (("limited", self.limited), ("suspended", self.suspended))
            for meter, scores in marks.items()
        }

    async def remove_organizations(self, organization_ids: Collection[str]) -> None:
        self._reach()
        for name in organization_ids:
            self._guards.pop(name, None)
            for generation in self._generations.values():
                generation.pop(name, None)

    async def remove_tokens(self, tokens: Collection[str]) -> None:
        self._reach()
        for marks in (self.limited, self.suspended):
            for scores in marks.values():
                for token in tokens:
                    scores.pop(token, None)

    def _reach(self) -> None:
        if self.is_away:
            raise BoardUnavailable("the board was made unreachable")


def _set_marks(
    marks: dict[str, dict[str, int]],
    until: Mapping[str, int],
    until_of_tokens: Mapping[str, Mapping[str, int]],
    tokens: ProjectTokens,
) -> None:
    for meter in {*marks, *until, *until_of_tokens}:
        scores = marks.setdefault(meter, {})
        of_tokens = until_of_tokens.get(meter, {})
        for token in tokens.active:
            end = of_tokens.get(token, until.get(meter))
            if end is not None:
                scores[token] = end
            else:
                scores.pop(token, None)
        for token in tokens.retired:
            scores.pop(token, None)

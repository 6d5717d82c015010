"""The limiter's tables in Postgres, and the log of transitions in the runtime's event store."""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import msgspec
from quill_pricing.money import Money
from quill_pricing.period import BillingSchedule, Interval
from quill_runtime.database import Database, Transaction
from quill_runtime.event_store import NewEvent, PostgresEventStream, StoredEvent
from quill_runtime.outbox import Outbox
from sqlalchemy import Row, Text, and_, bindparam, cast, delete, func, select, update
from sqlalchemy.dialects.postgresql import ARRAY, insert

from quill_quota_limiter import wire
from quill_quota_limiter.domain.credit_balance import CreditBalance
from quill_quota_limiter.domain.entitlement import Customer, Entitlement
from quill_quota_limiter.domain.evaluation import Evaluation, OrganizationLimits
from quill_quota_limiter.domain.limit_state import LogEntry
from quill_quota_limiter.domain.meter_limit import MeterLimit
from quill_quota_limiter.domain.organization_scopes import OrganizationScopes
from quill_quota_limiter.domain.period_usage import OrganizationUsage, PeriodQuantities
from quill_quota_limiter.domain.rule_table import RuleTable
from quill_quota_limiter.domain.threshold import ThresholdReached
from quill_quota_limiter.store import statements, tables
from quill_quota_limiter.store.limit_streams import appends_of, stream_of
from quill_quota_limiter.store.rules import PostgresRulebook
from quill_quota_limiter.store.team_rows import TeamRows
from quill_quota_limiter.store.webhook_facts import plan_deliveries
from quill_quota_limiter.store.webhooks import PostgresWebhooks
from quill_quota_limiter.wire import limit_log

REACHED_PAGE = 1_000
"""Rows of told thresholds per statement."""


class PostgresLimits:
    """Opens transactions on the limiter's database."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox
        self._rule_tables: dict[int, RuleTable] = {}

    @asynccontextmanager
    async def begin(self) -> AsyncIterator["PostgresLimitsTransaction"]:
        async with self._database.begin() as transaction:
            yield self.within(transaction)

    def within(self, transaction: Transaction) -> "PostgresLimitsTransaction":
        """The same operations inside a transaction that somebody else opened and will commit."""
        return PostgresLimitsTransaction(
            transaction, self._outbox, rulebook=PostgresRulebook(transaction, self._rule_tables)
        )


class PostgresLimitsTransaction(TeamRows):
    """Implements `quill_quota_limiter.ports.LimitsTransaction`. Rows are locked and written in key order."""

    def __init__(self, transaction: Transaction, outbox: Outbox, *, rulebook: PostgresRulebook) -> None:
        self.rulebook = rulebook
        self.webhooks = PostgresWebhooks(transaction)
        self._transaction = transaction
        super().__init__(transaction.connection)
        self._outbox = outbox
        self._events = PostgresEventStream(transaction)

    async def lock_organizations(self, organization_ids: Collection[str]) -> dict[str, OrganizationLimits]:
        wanted = sorted(organization_ids)
        if not wanted:
            return {}
        locked = await self._locked(wanted)
        new = [name for name in wanted if name not in locked]
        if new:
            statement = insert(tables.limit_states).on_conflict_do_nothing()
            await self._connection.execute(statement, [{"organization_id": name} for name in new])
            locked |= await self._locked(new)
        return {name: locked[name] for name in wanted}

    async def _locked(self, organization_ids: Sequence[str]) -> dict[str, OrganizationLimits]:
        rows = await self._connection.execute(_LOCKED, {"organization_ids": organization_ids})
        return {row.organization_id: _limits(row) for row in rows}

    async def keep_customers(self, customers: Collection[Customer]) -> frozenset[str]:
        newest = sorted(customers, key=lambda customer: customer.organization_id)
        known = await self._connection.execute(
            select(
                tables.customers.c.organization_id,
                tables.customers.c.revision,
                tables.customers.c.tokens,
                tables.customers.c.teams,
            ).where(tables.customers.c.organization_id == func.any([customer.organization_id for customer in newest]))
        )
        before = {row.organization_id: row for row in known}
        newer = [
            c for c in newest if c.organization_id not in before or c.revision > before[c.organization_id].revision
        ]
        if not newer:
            return frozenset()
        statement = insert(tables.customers)
        await self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=["organization_id"],
                set_={c.name: statement.excluded[c.name] for c in tables.customers.c if not c.primary_key},
            ),
            [_customer_row(customer) for customer in newer],
        )
        claimed: dict[str, tuple[str, str | None]] = {}
        moved: list[tuple[str, str, str | None]] = []
        retired: list[tuple[str, str]] = []
        for customer in newer:
            row = before.get(customer.organization_id)
            named: set[str] = set(row.tokens) if row else set()
            teams = row.teams if row else {}
            claimed.update(
                (token, (customer.organization_id, customer.teams.get(token))) for token in customer.tokens - named
            )
            moved.extend(
                (token, customer.organization_id, customer.teams.get(token))
                for token in customer.tokens & named
                if teams.get(token) != customer.teams.get(token)
            )
            retired.extend((token, customer.organization_id) for token in named - customer.tokens)
        await self.claim_tokens(claimed)
        await self.move_tokens(moved)
        await self.retire_tokens(retired)
        names = [
            *(name for name, _ in claimed.values()),
            *(name for _, name, _ in moved),
            *(name for _, name in retired),
        ]
        return frozenset(names)

    async def keep_usage(self, usages: Collection[OrganizationUsage]) -> dict[str, OrganizationUsage]:
        if not usages:
            return {}
        ordered = sorted(usages, key=lambda usage: usage.organization_id)
        parameters = {
            "organization_ids": [usage.organization_id for usage in ordered],
            "revisions": [usage.revision for usage in ordered],
            "periods": [_text(usage.periods) for usage in ordered],
        }
        newer = await self._connection.execute(statements.KEEP_USAGE, parameters)
        return {usage.organization_id: usage for usage in ordered} | _usages(newer)

    async def keep_credits(self, balances: Collection[CreditBalance]) -> None:
        if not balances:
            return
        table = tables.credit_balances
        statement = insert(table)
        await self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=["organization_id"],
                set_={c.name: statement.excluded[c.name] for c in table.c if not c.primary_key},
                where=table.c.revision < statement.excluded.revision,
            ),
            [
                {
                    "organization_id": balance.organization_id,
                    "revision": balance.revision,
                    "currency": balance.currency,
                    "balance_minor": balance.balance_minor,
                }
                for balance in sorted(balances, key=lambda balance: balance.organization_id)
            ],
        )

    async def credits(self, organization_ids: Collection[str]) -> dict[str, CreditBalance]:
        rows = await self._connection.execute(_CREDITS, {"organization_ids": list(organization_ids)})
        return {
            row.organization_id: CreditBalance(row.organization_id, row.revision, row.currency, row.balance_minor)
            for row in rows
        }

    async def prices(self, organization_id: str) -> Mapping[str, Mapping[str, object]]:
        table = tables.customers
        found = await self._connection.scalar(select(table.c.prices).where(table.c.organization_id == organization_id))
        return found or {}

    async def prices_of(self, organization_ids: Collection[str]) -> dict[str, Mapping[str, Mapping[str, object]]]:
        if not organization_ids:
            return {}
        table = tables.customers
        rows = await self._connection.execute(
            select(table.c.organization_id, table.c.prices).where(
                table.c.organization_id == func.any(list(organization_ids))
            )
        )
        return {row.organization_id: row.prices for row in rows}

    async def customers(self, organization_ids: Collection[str]) -> dict[str, Customer]:
        rows = await self._connection.execute(_CUSTOMERS, {"organization_ids": list(organization_ids)})
        return {row.organization_id: _customer(row) for row in rows}

    async def usages(self, organization_ids: Collection[str]) -> dict[str, OrganizationUsage]:
        rows = await self._connection.execute(_USAGES, {"organization_ids": list(organization_ids)})
        return _usages(rows)

    async def save(self, evaluations: Sequence[Evaluation]) -> None:
        if not evaluations:
            return
        await self._connection.execute(statements.SAVE_LIMITS, _columns_of([each.limits for each in evaluations]))
        transitions = [transition for evaluation in evaluations for transition in evaluation.transitions]
        await self._events.append_all([each for evaluation in evaluations for each in appends_of(evaluation)])
        changed = [evaluation.limits for evaluation in evaluations if evaluation.is_changed]
        news = await self._keep_reached([each for evaluation in evaluations for each in evaluation.reached])
        await self._outbox.add(
            self._transaction,
            [
                *map(wire.to_wire_transition_message, transitions),
                *map(wire.to_wire_states_message, changed),
                *map(wire.to_wire_reached_message, news),
            ],
        )
        await plan_deliveries(evaluations, news, book=self.webhooks)

    async def record(self, stream: str, event: NewEvent) -> None:
        stored = await self._events.read(stream)
        await self._events.append(stream, expected_version=len(stored), events=[event])

    async def recorded(self, stream: str) -> list[StoredEvent]:
        return await self._events.read(stream)

    async def forget_reached(self, before: datetime) -> int:
        table = tables.thresholds_reached
        old = select(table.c.reached_id).where(table.c.period_end < before).limit(REACHED_PAGE)
        return (await self._connection.execute(delete(table).where(table.c.reached_id.in_(old)))).rowcount

    async def _keep_reached(self, reached: Sequence[ThresholdReached]) -> list[ThresholdReached]:
        """The thresholds that nobody was told about; the primary key decides, whatever the limits' rows say."""
        table = tables.thresholds_reached
        news: set[str] = set()
        for start in range(0, len(reached), REACHED_PAGE):
            rows = [
                {"reached_id": each.reached_id, "period_end": each.period_end, "at": each.at}
                for each in reached[start : start + REACHED_PAGE]
            ]
            statement = insert(table).values(rows).on_conflict_do_nothing().returning(table.c.reached_id)
            news.update(await self._connection.scalars(statement))
        return [each for each in reached if each.reached_id in news]

    async def due_organizations(self, now: datetime, *, at_most: int) -> list[str]:
        table = tables.limit_states
        rows = await self._connection.scalars(
            select(table.c.organization_id)
            .where(table.c.next_evaluation_at <= now)
            .order_by(table.c.next_evaluation_at)
            .limit(at_most)
            .with_for_update(skip_locked=True)
        )
        return list(rows)

    async def schedule_evaluations(self, limits: Collection[OrganizationLimits]) -> None:
        if not limits:
            return
        table = tables.limit_states
        await self._connection.execute(
            update(table)
            .where(
                and_(
                    table.c.organization_id == bindparam("of_organization"),
                    table.c.revision == bindparam("of_revision"),
                    table.c.evaluated_at == bindparam("of_evaluation"),
                )
            )
            .values(next_evaluation_at=bindparam("next_evaluation_at")),
            [
                {
                    "of_organization": found.organization_id,
                    "of_revision": found.revision,
                    "of_evaluation": found.evaluated_at,
                    "next_evaluation_at": found.next_evaluation_at,
                }
                for found in sorted(limits, key=lambda found: found.organization_id)
            ],
        )

    async def limits(self, organization_ids: Collection[str]) -> dict[str, OrganizationLimits]:
        rows = await self._connection.execute(_LIMITS_OF, {"organization_ids": list(organization_ids)})
        return {row.organization_id: _limits(row) for row in rows}

    async def known_among(self, organization_ids: Collection[str]) -> frozenset[str]:
        table = tables.limit_states
        known = select(table.c.organization_id).where(
            table.c.organization_id == func.any(list(organization_ids)), table.c.revision > 0
        )
        return frozenset(await self._connection.scalars(known))

    async def known_limits_after(self, organization_id: str, *, at_most: int) -> list[OrganizationLimits]:
        table = tables.limit_states
        rows = await self._connection.execute(
            _LIMITS.where(table.c.organization_id > organization_id, table.c.revision > 0)
            .order_by(table.c.organization_id)
            .limit(at_most)
        )
        return [_limits(row) for row in rows]

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


_NOT_FOR_DECISIONS = frozenset({"tokens", "prices", "teams"})


def _customer_row(customer: Customer) -> dict[str, Any]:
    return {
        "organization_id": customer.organization_id,
        "revision": customer.revision,
        "license_id": customer.license_id,
        "anchor": customer.schedule.anchor,
        "interval": str(customer.schedule.interval),
        "entitlements": msgspec.to_builtins(customer.entitlements),
        "tokens": sorted(customer.tokens),
        "teams": dict(customer.teams),
        "free_trial_until": customer.free_trial_until,
        "prices": dict(customer.prices),
    }


def _customer(row: Row[Any]) -> Customer:
    return Customer(
        organization_id=row.organization_id,
        revision=row.revision,
        license_id=row.license_id,
        schedule=BillingSchedule(row.anchor, Interval.parse(row.interval)),
        entitlements=msgspec.convert(row.entitlements, tuple[Entitlement, ...]),
        free_trial_until=row.free_trial_until,
    )


def _usages(rows: Iterable[Row[Any]]) -> dict[str, OrganizationUsage]:
    return {
        row.organization_id: OrganizationUsage(
            row.organization_id, row.revision, msgspec.convert(row.periods, tuple[PeriodQuantities, ...])
        )
        for row in rows
    }


def _columns_of(limits: Sequence[OrganizationLimits]) -> dict[str, list[Any]]:
    """Limits as one array a column, by the names of `statements.SAVE_LIMITS`."""
    rows = [
        (
            each.organization_id,
            each.revision,
            each.license_id,
            each.tokens_revision,
            each.period_start,
            each.period_end,
            each.evaluated_at,
            each.next_evaluation_at,
            _text(each.meters),
            _text(each.thresholds),
            None if each.scopes is None else _text(each.scopes),
            _text(each.spend_thresholds),
        )
        for each in limits
    ]
    return dict(zip(statements.LIMITS_COLUMNS, map(list, zip(*rows, strict=True)), strict=True))


def _text(document: object) -> str:
    return msgspec.json.encode(document).decode()


# Documents come as texts and are decoded into what they hold at once, not by way of dicts.
_DOCUMENTS = frozenset({"meters", "thresholds", "scopes", "spend_thresholds"})
_LIMITS = select(*(cast(c, Text).label(c.name) if c.name in _DOCUMENTS else c for c in tables.limit_states.c))
# Made once: what is put together anew each time is also compared with the compiled statements anew.
_ASKED = func.any(bindparam("organization_ids", type_=ARRAY(Text)))
_LIMITS_OF = _LIMITS.where(tables.limit_states.c.organization_id == _ASKED)
_LOCKED = _LIMITS_OF.order_by(tables.limit_states.c.organization_id).with_for_update()
_CUSTOMERS = select(*(column for column in tables.customers.c if column.name not in _NOT_FOR_DECISIONS)).where(
    tables.customers.c.organization_id == _ASKED
)
_USAGES = select(tables.period_usage).where(tables.period_usage.c.organization_id == _ASKED)
_CREDITS = select(tables.credit_balances).where(tables.credit_balances.c.organization_id == _ASKED)
_meters = msgspec.json.Decoder(dict[str, MeterLimit]).decode
_thresholds = msgspec.json.Decoder(dict[str, tuple[int, ...]]).decode
_scopes = msgspec.json.Decoder(OrganizationScopes).decode
_spend_thresholds = msgspec.json.Decoder(dict[str, tuple[Money, ...]]).decode


def _limits(row: Row[Any]) -> OrganizationLimits:
    return OrganizationLimits(
        organization_id=row.organization_id,
        revision=row.revision,
        license_id=row.license_id,
        tokens_revision=row.tokens_revision,
        period_start=row.period_start,
        period_end=row.period_end,
        evaluated_at=row.evaluated_at,
        next_evaluation_at=row.next_evaluation_at,
        meters=_meters(row.meters),
        thresholds=_thresholds(row.thresholds),
        scopes=None if row.scopes is None else _scopes(row.scopes),
        spend_thresholds=_spend_thresholds(row.spend_thresholds),
    )

"""The clock: closing, holding drafts, webhooks; and the effects at the payment rail."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, get_args

from prometheus_client import Gauge
from quill_runtime.clock import Clock
from quill_runtime.consumer import Consumer
from quill_runtime.database import Database, Transaction
from quill_runtime.jobs import PeriodicJob
from quill_runtime.lifecycle import Component
from quill_runtime.operations import Conclude, Operation, OperationRunner, Perform, PermanentFailure
from quill_runtime.positions import Partition

from quill_invoicing.domain.collection import Attempt
from quill_invoicing.domain.completeness_gate import ExpectedSources
from quill_invoicing.domain.operator_alert import AlertKind
from quill_invoicing.domain.period_close import Grace
from quill_invoicing.ports import InvoicingStore, InvoicingTransaction, PaymentRail, RailRefused
from quill_invoicing.settings import InvoicingSettings
from quill_invoicing.usecases import rail_effects
from quill_invoicing.usecases.close_period import COLLECT, HOLD_DRAFT, close_due_periods, hold_drafts
from quill_invoicing.usecases.collect_invoice import END_SUBSCRIPTION, collect_invoice, conclude_collection
from quill_invoicing.usecases.keep_terms import ENSURE_CUSTOMER, ENSURE_SUBSCRIPTION
from quill_invoicing.usecases.operator_alerts import raise_noticed
from quill_invoicing.usecases.receive_webhook import act_on_webhooks
from quill_invoicing.usecases.record_usage import REPORT_USAGE

CLOSE_EVERY_SECONDS = 0.5
HOLD_EVERY_SECONDS = 0.5
WEBHOOKS_EVERY_SECONDS = 0.5
WEBHOOK_BATCH = 100
ALERTS_EVERY_SECONDS = 15.0
HOLD_BATCH = 500
REACH_LOOKS = 40
REACH_SECONDS = 0.05

OPEN_ALERTS = Gauge("quill_invoicing_open_alerts", "What operators must know of the payment rail, unresolved", ["kind"])

Within = Callable[[Transaction], InvoicingTransaction]
CaughtUp = Callable[[], bool]
ReachesNow = Callable[[], Awaitable[bool]]

HELD_CLOSINGS = Gauge("quill_invoicing_held_closings", "Periods whose grace has passed and that wait for a source")


def has_read_everything(consumers: Sequence[Consumer[Any]]) -> CaughtUp:
    """Whether every consumer owns partitions and has read each to its end, as last heard from the broker.

    Closing waits for it: after an outage the clock is far ahead of what was read, and an invoice made then would miss
    usage that is already in Kafka.
    """

    def caught_up() -> bool:
        lags = [consumer.lag() for consumer in consumers]
        return all(lag and not any(lag.values()) for lag in lags)

    return caught_up


def reads_up_to_now(consumers: Sequence[Consumer[Any]]) -> ReachesNow:
    """Whether all that stood in the consumers' partitions when it was asked is applied, waiting a moment for it.

    A source's watermark is published after the usage it speaks for. So what was published before a watermark that is
    known here is in Kafka; closing by that watermark must have read it, whatever the broker was last heard to say.
    """

    async def reached() -> bool:
        ends: dict[Partition, int] = {}
        for consumer in consumers:
            found = await consumer.ends()
            if not found:
                return False
            ends |= found
        for _ in range(REACH_LOOKS):
            applied = {p: offset for consumer in consumers for p, offset in consumer.applied_offsets().items()}
            if all(applied.get(partition, 0) >= end for partition, end in ends.items()):
                return True
            await asyncio.sleep(REACH_SECONDS)
        return False

    return reached


def clockwork(
    *,
    store: InvoicingStore,
    rail: PaymentRail | None,
    settings: InvoicingSettings,
    clock: Clock,
    caught_up: CaughtUp,
    reaches_now: ReachesNow,
    source_of_license: Callable[[str], str | None],
    api_version: str,
) -> list[Component]:
    """Everything that the clock starts."""
    grace = Grace(timedelta(hours=settings.grace_hours))

    async def close(now: datetime) -> object:
        if not caught_up():
            return 0
        async with store.begin() as tx:
            expected = ExpectedSources(await tx.standings(expected_only=True), source_of_license)
            HELD_CLOSINGS.set(await tx.count_held())
        if expected.is_any_expected and not await reaches_now():
            return 0
        return await close_due_periods(store=store, grace=grace, now=now, limit=settings.close_batch, expected=expected)

    async def hold(now: datetime) -> object:
        return await hold_drafts(store=store, now=now, limit=HOLD_BATCH)

    async def webhooks(now: datetime) -> object:
        return await act_on_webhooks(
            store=store, rail=rail, expected_api_version=api_version, now=now, limit=WEBHOOK_BATCH
        )

    async def show_alerts(_now: datetime) -> object:
        async with store.begin() as tx:
            found = await tx.count_open_alerts()
        for kind in get_args(AlertKind):
            OPEN_ALERTS.labels(kind).set(found.get(kind, 0))
        return None

    return [
        PeriodicJob(name="show-alerts", every_seconds=ALERTS_EVERY_SECONDS, run=show_alerts, clock=clock),
        PeriodicJob(name="close-periods", every_seconds=CLOSE_EVERY_SECONDS, run=close, clock=clock),
        PeriodicJob(name="hold-drafts", every_seconds=HOLD_EVERY_SECONDS, run=hold, clock=clock),
        PeriodicJob(name="webhooks", every_seconds=WEBHOOKS_EVERY_SECONDS, run=webhooks, clock=clock),
    ]


def rail_runners(
    *, database: Database, store: InvoicingStore, within: Within, rail: PaymentRail, clock: Clock, workers: int
) -> list[OperationRunner]:
    """Runners that bring effects to the rail; several, because each waits for answers most of the time."""
    performers = RailEffects(store=store, within=within, rail=rail, clock=clock).performers()
    return [
        OperationRunner(name=f"rail-{number}", database=database, clock=clock, performers=performers)
        for number in range(workers)
    ]


class RailEffects:
    """What each kind of effect does at the rail, and what its result changes here (L15)."""

    def __init__(self, *, store: InvoicingStore, within: Within, rail: PaymentRail, clock: Clock) -> None:
        self._store = store
        self._within = within
        self._rail = rail
        self._clock = clock

    def performers(self) -> Mapping[str, tuple[Perform, Conclude]]:
        """By kind: the effect, and what it changes here. A refusal by the rail is final."""
        halves: Mapping[str, tuple[Perform, Conclude]] = {
            ENSURE_CUSTOMER: (self._ensure_customer, self._conclude_customer),
            ENSURE_SUBSCRIPTION: (self._ensure_subscription, self._conclude_subscription),
            END_SUBSCRIPTION: (self._end_subscription, self._conclude_end),
            REPORT_USAGE: (self._report_usage, self._conclude_report),
            HOLD_DRAFT: (self._hold_draft, _nothing_to_conclude),
            COLLECT: (self._collect, self._conclude_collection),
        }
        return {kind: (_refusals_are_final(perform), conclude) for kind, (perform, conclude) in halves.items()}

    async def _ensure_customer(self, operation: Operation) -> Mapping[str, Any]:
        return await rail_effects.ensure_customer(
            operation.subject, operation.request, rail=self._rail, attempt=_attempt(operation)
        )

    async def _conclude_customer(
        self, transaction: Transaction, operation: Operation, result: Mapping[str, Any], now: datetime
    ) -> None:
        await rail_effects.conclude_customer(operation.subject, result, tx=self._within(transaction), now=now)

    async def _ensure_subscription(self, operation: Operation) -> Mapping[str, Any]:
        return await rail_effects.ensure_subscription(
            operation.subject,
            operation.request,
            store=self._store,
            rail=self._rail,
            attempt=_attempt(operation),
            now=self._clock.now(),
        )

    async def _conclude_subscription(
        self, transaction: Transaction, operation: Operation, result: Mapping[str, Any], now: datetime
    ) -> None:
        await rail_effects.conclude_subscription(operation.subject, result, tx=self._within(transaction), now=now)

    async def _end_subscription(self, operation: Operation) -> Mapping[str, Any]:
        return await rail_effects.end_subscription(
            operation.subject, store=self._store, rail=self._rail, attempt=_attempt(operation)
        )

    async def _conclude_end(
        self, transaction: Transaction, operation: Operation, result: Mapping[str, Any], _now: datetime
    ) -> None:
        await rail_effects.conclude_end(operation.subject, result, tx=self._within(transaction))

    async def _report_usage(self, operation: Operation) -> Mapping[str, Any]:
        return await rail_effects.report_usage(
            operation.subject,
            operation.request,
            store=self._store,
            rail=self._rail,
            attempt=_attempt(operation),
            now=self._clock.now(),
        )

    async def _conclude_report(
        self, transaction: Transaction, _operation: Operation, result: Mapping[str, Any], now: datetime
    ) -> None:
        await raise_noticed(result, tx=self._within(transaction), now=now)

    async def _hold_draft(self, operation: Operation) -> Mapping[str, Any]:
        return await rail_effects.hold_draft(
            operation.subject, operation.request, store=self._store, rail=self._rail, attempt=_attempt(operation)
        )

    async def _collect(self, operation: Operation) -> Mapping[str, Any]:
        return await collect_invoice(
            operation.request["invoice_id"],
            store=self._store,
            rail=self._rail,
            attempt=_attempt(operation),
            now=self._clock.now(),
        )

    async def _conclude_collection(
        self, transaction: Transaction, operation: Operation, result: Mapping[str, Any], now: datetime
    ) -> None:
        await conclude_collection(operation.request["invoice_id"], result, tx=self._within(transaction), now=now)


def _attempt(operation: Operation) -> Attempt:
    return Attempt(operation.operation_id, operation.attempts)


def _refusals_are_final(perform: Perform) -> Perform:
    async def performed(operation: Operation) -> Mapping[str, Any]:
        try:
            return await perform(operation)
        except RailRefused as refusal:
            raise PermanentFailure(str(refusal)) from refusal

    return performed


async def _nothing_to_conclude(
    _transaction: Transaction, _operation: Operation, _result: Mapping[str, Any], _now: datetime
) -> None:
    """The effect changes nothing here."""

"""The store in memory, with the behaviour of the one on Postgres; for tests and simulation."""

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

from quill_pricing.period import BillingPeriod

from quill_invoicing.domain.closing import ClosedPeriod, LateUsage
from quill_invoicing.domain.credits import CreditEntry
from quill_invoicing.domain.invoice import MOVES, IllegalMove, Invoice, NotADraft
from quill_invoicing.domain.operator_alert import OperatorAlert
from quill_invoicing.domain.period_usage import KnownUsage, PeriodUsage
from quill_invoicing.domain.reconciliation import Reconciliation
from quill_invoicing.domain.terms import CustomerTerms, TermsHistory
from quill_invoicing.domain.webhook import Webhook
from quill_invoicing.ports import SNAPSHOT_PERIODS, PersonsChange, PlannedEffect, RailAccount, SentReport
from quill_invoicing.store.memory_alerts import MemoryAlertRows
from quill_invoicing.store.memory_credits import MemoryCreditRows
from quill_invoicing.store.memory_sources import MemorySourceRows, SourceState

PeriodKey = tuple[str, datetime]
ProductKey = tuple[str, datetime, str]


class AlreadyThere(ValueError):
    """A unique key is taken."""


@dataclass(slots=True)
class _Customer:
    revision: int
    open_period: BillingPeriod
    held_period_start: datetime | None = None


@dataclass(slots=True)
class _Delivery:
    webhook: Webhook
    due_at: datetime
    outcome: str | None = None
    processed_at: datetime | None = None


@dataclass(slots=True)
class State:
    """Everything stored. Tests look at ``announced``, ``planned`` and ``changes``."""

    customers: dict[str, _Customer] = field(default_factory=dict)
    terms: dict[str, list[CustomerTerms]] = field(default_factory=dict)
    usage: dict[PeriodKey, PeriodUsage] = field(default_factory=dict)
    closed: dict[PeriodKey, ClosedPeriod] = field(default_factory=dict)
    late: dict[ProductKey, list[LateUsage]] = field(default_factory=dict)
    settled: dict[LateUsage, str] = field(default_factory=dict)
    sequences: dict[int, int] = field(default_factory=dict)
    invoices: dict[str, Invoice] = field(default_factory=dict)
    announced: list[Invoice] = field(default_factory=list)
    reconciliations: dict[str, Reconciliation] = field(default_factory=dict)
    changes: list[PersonsChange] = field(default_factory=list)
    planned: dict[str, PlannedEffect] = field(default_factory=dict)
    accounts: dict[str, RailAccount] = field(default_factory=dict)
    reports: dict[ProductKey, SentReport] = field(default_factory=dict)
    webhooks: dict[str, _Delivery] = field(default_factory=dict)
    credits: dict[str, CreditEntry] = field(default_factory=dict)
    alerts: dict[str, OperatorAlert] = field(default_factory=dict)
    of_sources: SourceState = field(default_factory=SourceState)


class MemoryTransaction(MemorySourceRows, MemoryCreditRows, MemoryAlertRows):
    """One transaction over a copy of the state."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._of_sources = state.of_sources
        self._credits = state.credits
        self._alerts = state.alerts

    async def customer_revision(self, organization_id: str) -> int:
        customer = self.state.customers.get(organization_id)
        return 0 if customer is None else customer.revision

    async def save_customer(self, organization_id: str, *, revision: int, open_period: BillingPeriod) -> None:
        known = self.state.customers.get(organization_id)
        held = None if known is None else known.held_period_start
        self.state.customers[organization_id] = _Customer(revision, open_period, held)

    async def open_period(self, organization_id: str) -> BillingPeriod | None:
        customer = self.state.customers.get(organization_id)
        return None if customer is None else customer.open_period

    async def lock_open_period(self, organization_id: str) -> BillingPeriod | None:
        return await self.open_period(organization_id)

    async def move_open_period(self, organization_id: str, period: BillingPeriod) -> None:
        self.state.customers[organization_id].open_period = period

    async def organizations_to_close(self, *, ended_before: datetime, limit: int, now: datetime) -> list[str]:
        waiting = {key for key, (_, look_again_at) in self.state.of_sources.held.items() if look_again_at > now}
        due = self._ended(lambda customer: customer.open_period.end <= ended_before, len(self.state.customers))
        return [name for name in due if (name, self.state.customers[name].open_period.start) not in waiting][:limit]

    async def organizations_to_hold(self, *, now: datetime, limit: int) -> list[str]:
        return self._ended(
            lambda customer: (
                customer.open_period.end <= now and customer.held_period_start != customer.open_period.start
            ),
            limit,
        )

    async def mark_held(self, organization_id: str, period_start: datetime) -> None:
        self.state.customers[organization_id].held_period_start = period_start

    async def add_terms(self, terms: CustomerTerms) -> None:
        self.state.terms.setdefault(terms.organization_id, []).append(terms)

    async def terms_history(self, organization_id: str) -> TermsHistory:
        return TermsHistory.of(self.state.terms.get(organization_id, []))

    async def save_usage(self, organization_id: str, usage: PeriodUsage) -> bool:
        key = (organization_id, usage.period.start)
        known = self.state.usage.get(key)
        if known is not None and known.revision >= usage.revision:
            return False
        self.state.usage[key] = usage
        return True

    async def forget_other_periods(
        self, organization_id: str, periods: Sequence[PeriodUsage], *, revision: int
    ) -> None:
        starts = {usage.period.start for usage in periods}
        oldest = min(starts) if len(starts) >= SNAPSHOT_PERIODS else None
        for key, usage in list(self.state.usage.items()):
            is_older = oldest is not None and key[1] < oldest
            if key[0] == organization_id and key[1] not in starts and not is_older and usage.revision < revision:
                del self.state.usage[key]

    async def known_usage(self, organization_id: str, period: BillingPeriod) -> KnownUsage:
        current = self.state.usage.get((organization_id, period.start))
        earlier = [
            usage
            for (name, start), usage in self.state.usage.items()
            if name == organization_id and start < period.start
        ]
        own = (usage for (name, _), usage in self.state.usage.items() if name == organization_id)
        followed = max((usage.customer_revision for usage in own), default=0)
        newest_before = max(earlier, key=lambda usage: usage.period.start, default=None)
        return KnownUsage.of(period, current, newest_before, followed_revision=followed)

    async def close(self, closed: ClosedPeriod) -> bool:
        key = (closed.organization_id, closed.period.start)
        if key in self.state.closed:
            return False
        self.state.closed[key] = closed
        return True

    async def closed_period(self, organization_id: str, period_start: datetime) -> ClosedPeriod | None:
        return self.state.closed.get((organization_id, period_start))

    async def closed_periods_of(self, organization_id: str, *, limit: int) -> list[ClosedPeriod]:
        own = [closed for (name, _), closed in self.state.closed.items() if name == organization_id]
        return sorted(own, key=lambda closed: closed.period.start, reverse=True)[:limit]

    async def add_late_usage(self, late: LateUsage) -> None:
        self.state.late.setdefault((late.organization_id, late.period_start, late.product_key), []).append(late)

    async def late_usage_of(self, organization_id: str, period_start: datetime, product_key: str) -> LateUsage | None:
        steps = self.state.late.get((organization_id, period_start, product_key), [])
        return steps[-1] if steps else None

    async def unsettled_late_usage(self, organization_id: str) -> list[LateUsage]:
        return [
            step
            for key, steps in sorted(self.state.late.items())
            for step in steps
            if key[0] == organization_id and step not in self.state.settled
        ]

    async def settle_late_usage(self, steps: Sequence[LateUsage], *, invoice_id: str) -> None:
        self.state.settled.update(dict.fromkeys(steps, invoice_id))

    async def next_invoice_sequence(self, year: int) -> int:
        self.state.sequences[year] = self.state.sequences.get(year, 0) + 1
        return self.state.sequences[year]

    async def add_invoice(self, draft: Invoice) -> None:
        taken = {(each.organization_id, each.period.start) for each in self.state.invoices.values()}
        if draft.invoice_id in self.state.invoices or (draft.organization_id, draft.period.start) in taken:
            raise AlreadyThere(f"{draft.organization_id} has an invoice for this period")
        self.state.invoices[draft.invoice_id] = draft

    async def save_invoice(self, invoice: Invoice) -> None:
        known = self.state.invoices[invoice.invoice_id]
        if invoice.status != known.status and invoice.status not in MOVES[known.status]:
            raise IllegalMove(f"invoice {known.number} cannot go from {known.status} to {invoice.status}")
        if known.status != "draft" and (invoice.lines, invoice.period) != (known.lines, known.period):
            raise NotADraft(f"invoice {known.number} is finalized and immutable (L13)")
        self.state.invoices[invoice.invoice_id] = invoice
        self.state.announced.append(invoice)

    async def invoice(self, invoice_id: str, *, locked: bool = False) -> Invoice | None:  # noqa: ARG002 - one at a time
        return self.state.invoices.get(invoice_id)

    async def invoice_at_rail(self, rail_invoice: str) -> Invoice | None:
        return next((each for each in self.state.invoices.values() if each.rail_invoice == rail_invoice), None)

    async def invoices_of(self, organization_id: str, *, limit: int) -> list[Invoice]:
        own = [each for each in self.state.invoices.values() if each.organization_id == organization_id]
        return sorted(own, key=lambda invoice: invoice.period.start, reverse=True)[:limit]

    async def save_reconciliation(self, reconciliation: Reconciliation) -> None:
        self.state.reconciliations[reconciliation.reconciliation_id] = reconciliation

    async def reconciliation(
        self,
        reconciliation_id: str,
        *,
        locked: bool = False,  # noqa: ARG002 - one at a time
    ) -> Reconciliation | None:
        return self.state.reconciliations.get(reconciliation_id)

    async def record_change(self, change: PersonsChange) -> None:
        self.state.changes.append(change)

    async def reconciliations(self, *, is_equal: bool | None, limit: int) -> list[Reconciliation]:
        found = [each for each in self.state.reconciliations.values() if is_equal in (None, each.is_equal)]
        return sorted(found, key=lambda each: (-each.compared_at.timestamp(), each.reconciliation_id))[:limit]

    async def plan(self, effect: PlannedEffect, *, now: datetime) -> bool:  # noqa: ARG002 - due at once
        if effect.operation_id in self.state.planned:
            return False
        self.state.planned[effect.operation_id] = effect
        return True

    async def rail_account(self, organization_id: str) -> RailAccount | None:
        return self.state.accounts.get(organization_id)

    async def save_rail_account(self, account: RailAccount) -> None:
        self.state.accounts[account.organization_id] = account

    async def sent_reports(self, organization_id: str, period_start: datetime) -> dict[str, SentReport]:
        wanted = (organization_id, period_start)
        return {key[2]: report for key, report in self.state.reports.items() if key[:2] == wanted}

    async def save_sent_report(
        self, organization_id: str, product_key: str, period_start: datetime, report: SentReport
    ) -> None:
        self.state.reports[organization_id, period_start, product_key] = report

    async def take_webhook(self, webhook: Webhook, *, received_at: datetime) -> bool:
        if webhook.event_id in self.state.webhooks:
            return False
        self.state.webhooks[webhook.event_id] = _Delivery(webhook, received_at)
        return True

    async def due_webhooks(self, *, now: datetime, limit: int) -> list[Webhook]:
        due = [each for each in self.state.webhooks.values() if each.processed_at is None and each.due_at <= now]
        return [each.webhook for each in sorted(due, key=lambda each: (each.due_at, each.webhook.event_id))][:limit]

    async def mark_webhook(self, event_id: str, *, outcome: str, processed_at: datetime) -> None:
        delivery = self.state.webhooks[event_id]
        delivery.outcome, delivery.processed_at = outcome, processed_at

    async def postpone_webhook(self, event_id: str, *, problem: str, due_at: datetime) -> None:
        delivery = self.state.webhooks[event_id]
        delivery.webhook = replace(delivery.webhook, attempts=delivery.webhook.attempts + 1)
        delivery.outcome, delivery.due_at = problem, due_at

    def _ended(self, is_wanted: Callable[[_Customer], bool], limit: int) -> list[str]:
        found = [(each.open_period.end, name) for name, each in self.state.customers.items() if is_wanted(each)]
        return [name for _, name in sorted(found)][:limit]


class MemoryStore:
    """Opens transactions one at a time; one that raises leaves the state as it was."""

    def __init__(self) -> None:
        self.state = State()
        self._alone = asyncio.Lock()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[MemoryTransaction]:
        async with self._alone:
            transaction = MemoryTransaction(copy.deepcopy(self.state))
            yield transaction
            self.state = transaction.state

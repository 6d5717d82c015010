"""What the use cases need of the outside: a store, a payment rail. Two implementations of each exist."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from quill_pricing.period import BillingPeriod

from quill_invoicing.domain.closing import ClosedPeriod, LateUsage
from quill_invoicing.domain.collection import (
    Attempt,
    ChargedLine,
    MadeCustomer,
    MeterReport,
    RailCustomer,
    RailInvoice,
    RailLine,
    RailSubscription,
    SubscriptionOrder,
)
from quill_invoicing.domain.completeness_gate import HeldClosing, SourceStanding
from quill_invoicing.domain.credits import CreditBalance, CreditEntry
from quill_invoicing.domain.invoice import Invoice
from quill_invoicing.domain.operator_alert import OperatorAlert, RailNotice
from quill_invoicing.domain.period_usage import KnownUsage, PeriodUsage
from quill_invoicing.domain.reconciliation import Reconciliation
from quill_invoicing.domain.terms import CustomerTerms, TermsHistory
from quill_invoicing.domain.webhook import Webhook

SNAPSHOT_PERIODS = 3
"""Periods that a usage snapshot may hold; one with fewer names all that are in force."""


@dataclass(frozen=True, slots=True)
class PlannedEffect:
    """An effect outside, to be written down with the state that makes it due (L15)."""

    operation_id: str
    kind: str
    subject: str
    request: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RailAccount:
    """A customer at the rail.

    Attributes:
        subscribed_revision: The terms' revision that its subscription was last set to.
        billed_from: From when on the rail's subscription bills; earlier periods are collected from our own lines.
        rated_from: By product, the start of the first period that the rail rates; we charge our own lines for others.
    """

    organization_id: str
    customer: str
    subscription: str | None = None
    subscribed_revision: int | None = None
    billed_from: datetime | None = None
    rated_from: Mapping[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SentReport:
    """The last report planned of a product in a period; ``looked_at`` is when it was last asked whether one is due.

    Before the first report the quantity is 0 and the stamp lies before the period.
    """

    quantity: int
    stamped_at: datetime
    looked_at: datetime


@dataclass(frozen=True, slots=True)
class PersonsChange:
    """Something a person did: who, when, why, before and after (L20)."""

    stream: str
    type: str
    actor: str
    occurred_at: datetime
    before: Mapping[str, Any]
    after: Mapping[str, Any]


class CustomerStore(Protocol):
    """Terms and the period that is open."""

    async def customer_revision(self, organization_id: str) -> int:
        """The newest snapshot seen, 0 for an unknown customer; locks the customer until the transaction ends."""
        ...

    async def save_customer(self, organization_id: str, *, revision: int, open_period: BillingPeriod) -> None: ...

    async def open_period(self, organization_id: str) -> BillingPeriod | None: ...

    async def lock_open_period(self, organization_id: str) -> BillingPeriod | None:
        """The open period, locked; None for an unknown customer or when another closer has it."""
        ...

    async def move_open_period(self, organization_id: str, period: BillingPeriod) -> None: ...

    async def organizations_to_close(self, *, ended_before: datetime, limit: int, now: datetime) -> list[str]:
        """Customers whose open period ended at or before an instant, the longest waiting first.

        Those whose closing waits for a source are left out until something may have changed for them.
        """
        ...

    async def organizations_to_hold(self, *, now: datetime, limit: int) -> list[str]:
        """Customers whose open period is over and whose draft at the rail was not asked to wait yet."""
        ...

    async def mark_held(self, organization_id: str, period_start: datetime) -> None: ...

    async def add_terms(self, terms: CustomerTerms) -> None: ...

    async def terms_history(self, organization_id: str) -> TermsHistory: ...


class UsageStore(Protocol):
    """Usage by period, closings and what came after them."""

    async def save_usage(self, organization_id: str, usage: PeriodUsage) -> bool:
        """Keep it in place of an older revision of a period with the same start; True when it is newer."""
        ...

    async def forget_other_periods(
        self, organization_id: str, periods: Sequence[PeriodUsage], *, revision: int
    ) -> None:
        """Forget periods that are not in force any more: not among these newest ones, and not older than all of them.

        What came in a newer snapshot than ``revision`` stays.
        """
        ...

    async def known_usage(self, organization_id: str, period: BillingPeriod) -> KnownUsage:
        """Usage of exactly this period, and of the newest one before it."""
        ...

    async def close(self, closed: ClosedPeriod) -> bool:
        """Write the closing down; False when the period is closed already."""
        ...

    async def closed_period(self, organization_id: str, period_start: datetime) -> ClosedPeriod | None: ...

    async def closed_periods_of(self, organization_id: str, *, limit: int) -> list[ClosedPeriod]:
        """Newest first."""
        ...

    async def add_late_usage(self, late: LateUsage) -> None: ...

    async def late_usage_of(self, organization_id: str, period_start: datetime, product_key: str) -> LateUsage | None:
        """The newest step of a product, settled or not."""
        ...

    async def unsettled_late_usage(self, organization_id: str) -> list[LateUsage]:
        """Every step not on an invoice yet, by period, product and revision."""
        ...

    async def settle_late_usage(self, steps: Sequence[LateUsage], *, invoice_id: str) -> None: ...


class InvoiceStore(Protocol):
    """Invoices and their comparisons. Saving announces the new state in the same transaction."""

    async def next_invoice_sequence(self, year: int) -> int:
        """The next number of a year, without a gap: it is given back when the transaction fails."""
        ...

    async def add_invoice(self, draft: Invoice) -> None:
        """Save a new draft with its lines; not announced."""
        ...

    async def save_invoice(self, invoice: Invoice) -> None:
        """Save a new state of an invoice and announce it."""
        ...

    async def invoice(self, invoice_id: str, *, locked: bool = False) -> Invoice | None: ...

    async def invoice_at_rail(self, rail_invoice: str) -> Invoice | None: ...

    async def invoices_of(self, organization_id: str, *, limit: int) -> list[Invoice]:
        """Newest period first."""
        ...

    async def save_reconciliation(self, reconciliation: Reconciliation) -> None: ...

    async def reconciliation(self, reconciliation_id: str, *, locked: bool = False) -> Reconciliation | None: ...

    async def record_change(self, change: PersonsChange) -> None:
        """Append what a person changed (L20)."""
        ...

    async def reconciliations(self, *, is_equal: bool | None, limit: int) -> list[Reconciliation]:
        """Newest first."""
        ...


class CreditStore(Protocol):
    """What customers are owed; entries are only appended."""

    async def add_credit_entry(self, entry: CreditEntry) -> bool:
        """Append an entry; False when it is there already."""
        ...

    async def credit_balance(self, organization_id: str, currency: str) -> int:
        """The sum of a customer's entries in a currency; minor units."""
        ...

    async def credit_entries_of(self, organization_id: str, *, limit: int) -> list[CreditEntry]:
        """Newest first."""
        ...

    async def credit_balances(
        self, *, organization_id: str | None = None, after: tuple[str, str] = ("", ""), limit: int
    ) -> list[CreditBalance]:
        """One customer's balances; or everybody's that are not zero, by organization and currency, after one."""
        ...


class RailStore(Protocol):
    """What is known of the rail's objects, effects to come, webhooks received."""

    async def plan(self, effect: PlannedEffect, *, now: datetime) -> bool:
        """Write an effect down; False when it was already."""
        ...

    async def rail_account(self, organization_id: str) -> RailAccount | None: ...

    async def save_rail_account(self, account: RailAccount) -> None: ...

    async def sent_reports(self, organization_id: str, period_start: datetime) -> dict[str, SentReport]:
        """By product, those that were looked at."""
        ...

    async def save_sent_report(
        self, organization_id: str, product_key: str, period_start: datetime, report: SentReport
    ) -> None: ...

    async def take_webhook(self, webhook: Webhook, *, received_at: datetime) -> bool:
        """Keep a webhook; False when its event is known already."""
        ...

    async def due_webhooks(self, *, now: datetime, limit: int) -> list[Webhook]:
        """Those not acted upon yet, oldest first; locked, passing over those another worker has."""
        ...

    async def mark_webhook(self, event_id: str, *, outcome: str, processed_at: datetime) -> None: ...

    async def postpone_webhook(self, event_id: str, *, problem: str, due_at: datetime) -> None: ...


class SourceStore(Protocol):
    """Sources of usage, and the closings that wait for them."""

    async def save_standing(self, standing: SourceStanding) -> bool:
        """Keep it unless a newer revision is known; True when it is new."""
        ...

    async def standings(self, *, expected_only: bool = False) -> dict[str, SourceStanding]:
        """All sources, or those that anybody waits for."""
        ...

    async def know_sources(self, organization_id: str, names: Collection[str]) -> None:
        """Remember who reports for an organization; an older list changes nothing."""
        ...

    async def sources_of(self, organization_id: str) -> frozenset[str]: ...

    async def hold_closing(self, held: HeldClosing, *, look_again_at: datetime) -> bool:
        """Note that a closing waits; True unless it did already, for the same sources. The first instant stays."""
        ...

    async def release_closing(self, organization_id: str, period_start: datetime) -> bool:
        """It waits no longer; True if it did."""
        ...

    async def look_at_held_again(self, source: str, *, now: datetime) -> None:
        """Something changed about a source: closings that wait for it are due again."""
        ...

    async def held_closings(self, *, limit: int) -> list[HeldClosing]:
        """The longest waiting first."""
        ...

    async def count_held(self) -> int: ...


class AlertStore(Protocol):
    """What operators must know of the rail."""

    async def raise_alert(self, notice: RailNotice, *, now: datetime) -> bool:
        """Note it; equal notices are one alert, counted. True when it was not open before."""
        ...

    async def alerts(self, *, include_resolved: bool, limit: int) -> list[OperatorAlert]:
        """The newest seen first."""
        ...

    async def alert(self, alert_id: str, *, locked: bool = False) -> OperatorAlert | None: ...

    async def save_alert(self, alert: OperatorAlert) -> None:
        """Save a new state of an alert that is there."""
        ...

    async def count_open_alerts(self) -> dict[str, int]:
        """By kind."""
        ...


class InvoicingTransaction(
    CustomerStore, UsageStore, SourceStore, InvoiceStore, CreditStore, RailStore, AlertStore, Protocol
):
    """One open transaction over everything this service owns."""


class InvoicingStore(Protocol):
    """Opens transactions: all of one is saved, or nothing."""

    def begin(self) -> AbstractAsyncContextManager[InvoicingTransaction]: ...


class WebhookReader(Protocol):
    """Verifies and reads a webhook's raw bytes; raises ``ValueError`` with the reason when it is not genuine."""

    def __call__(self, raw: bytes, signature: str | None, *, secrets: Sequence[str], now: datetime) -> Webhook: ...


class RailRefused(Exception):
    """The rail has refused for good: repeating the call cannot help, a person must look."""


class PaymentRail(Protocol):
    """Collects money. Every method may be repeated with the same attempt key and then has one effect (L15).

    Raises, all of them: `RailRefused` when it can never succeed; anything else when the outcome is unknown.
    """

    async def ensure_customer(self, customer: RailCustomer, *, attempt: Attempt) -> MadeCustomer:
        """A customer, made if it was not there; what the rail refuses to keep of it is left out and named."""
        ...

    async def ensure_subscription(self, order: SubscriptionOrder, *, attempt: Attempt) -> RailSubscription:
        """A subscription with those of these items that the rail can rate, and periods equal to ours."""
        ...

    async def end_subscription(self, subscription: str, *, attempt: Attempt) -> None:
        """End it now, billing nothing more."""
        ...

    async def report_usage(self, report: MeterReport, *, attempt: Attempt) -> None: ...

    async def usage_seen(self, *, customer: str, product_key: str, period: BillingPeriod) -> int | None:
        """The quantity the rail would bill now: it counts reports some time after it took them. None: it cannot say."""
        ...

    async def find_period_invoice(
        self, *, customer: str, subscription: str, period: BillingPeriod
    ) -> RailInvoice | None:
        """The invoice that the rail made for a period of a subscription; None when it made none (yet)."""
        ...

    async def hold_draft(self, invoice: str, *, attempt: Attempt) -> RailInvoice:
        """Keep a draft from becoming final by itself; an invoice that is no draft any more is left as it is."""
        ...

    async def charge_lines(
        self, invoice: str, lines: Sequence[ChargedLine], *, quill_invoice_id: str, attempt: Attempt
    ) -> RailInvoice:
        """Put our own lines on a draft, each once, whatever their number."""
        ...

    async def create_invoice(
        self, *, customer: str, currency: str, quill_invoice_id: str, lines: Sequence[ChargedLine], attempt: Attempt
    ) -> RailInvoice:
        """A draft of our lines alone, that does not become final by itself."""
        ...

    async def finalize(self, invoice: str, *, attempt: Attempt) -> RailInvoice: ...

    async def pay(self, invoice: str, *, attempt: Attempt) -> RailInvoice:
        """Try to collect now; a refused payment is an answer (``problem``), not an exception."""
        ...

    async def invoice(self, reference: str) -> RailInvoice: ...

    async def lines(self, invoice: str) -> list[RailLine]:
        """Every line, all pages."""
        ...

    async def close(self) -> None:
        """Give up connections."""
        ...

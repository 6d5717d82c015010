"""A payment rail in memory, with state and idempotency; held to the same behaviour suite as Stripe."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from quill_pricing.period import BillingPeriod
from quill_pricing.price import price_from_document
from quill_pricing.rating import RatedLine, rate

from quill_invoicing.domain.collection import (
    METER_AGE_MAX,
    TRAVEL_TIME,
    Attempt,
    ChargedLine,
    MadeCustomer,
    MeterReport,
    RailCustomer,
    RailInvoice,
    RailItem,
    RailLine,
    RailStatus,
    RailSubscription,
    SubscriptionOrder,
    is_too_old,
)
from quill_invoicing.domain.operator_alert import RailNotice
from quill_invoicing.ports import RailRefused

CARD_DECLINED = "card_declined"
Answer = TypeVar("Answer")


class ConnectionLost(ConnectionError):
    """The answer did not arrive; whether the effect happened is unknown."""


@dataclass(slots=True)
class _Subscription:
    customer: str
    items: tuple[RailItem, ...]
    billed_from: datetime
    is_live: bool = True


@dataclass(slots=True)
class _Invoice:
    customer: str
    subscription: str | None
    period: BillingPeriod | None
    status: RailStatus = "draft"
    advances: bool = True
    quill_invoice_id: str | None = None
    charged: list[ChargedLine] = field(default_factory=list)
    frozen: list[RailLine] | None = None
    problem: str | None = None


class MemoryRail:
    """Keeps what it was told. Tests move its time with ``end_period`` and break it with ``lose_answers``."""

    def __init__(self) -> None:
        self.customers: dict[str, RailCustomer] = {}
        self.subscriptions: dict[str, _Subscription] = {}
        self.reports: list[MeterReport] = []
        self.invoices: dict[str, _Invoice] = {}
        self.calls: list[str] = []
        self.declines: set[str] = set()
        """Customers whose card is refused."""
        self.archived: set[str] = set()
        """Products that nobody may newly subscribe to."""
        self.refused_usage: set[str] = set()
        """Products whose meter takes no reports."""
        self.now: Callable[[], datetime] = lambda: datetime.min.replace(tzinfo=UTC) + METER_AGE_MAX + TRAVEL_TIME
        """Decides how old a report is; tests that move time set it."""
        self._answers: dict[str, object] = {}
        self._numbers = itertools.count(1)
        self._losing = 0

    def lose_answers(self, count: int) -> None:
        """Carry out the next ``count`` effects without saying so."""
        self._losing = count

    def end_period(self, subscription: str, period: BillingPeriod) -> str:
        """Make the draft that a subscription owes for a period; returns its id."""
        return self._add_invoice(_Invoice(self.subscriptions[subscription].customer, subscription, period))

    async def close(self) -> None:
        """There are no connections."""

    async def ensure_customer(self, customer: RailCustomer, *, attempt: Attempt) -> MadeCustomer:
        def make() -> str:
            identifier = f"cus_{next(self._numbers)}"
            self.customers[identifier] = customer
            return identifier

        known = next((key for key, each in self.customers.items() if each == customer), None)
        return MadeCustomer(known if attempt.is_repeat and known is not None else self._once(attempt, make))

    async def ensure_subscription(self, order: SubscriptionOrder, *, attempt: Attempt) -> RailSubscription:
        if order.existing is not None and self.subscriptions[order.existing].is_live:
            kept = self.subscriptions[order.existing]
            had = {item.product_key for item in kept.items}
            kept.items = tuple(
                item for item in order.items if item.product_key in had or item.product_key not in self.archived
            )
            return self._subscribed(order.existing, order)

        items = tuple(item for item in order.items if item.product_key not in self.archived)

        def make() -> str:
            identifier = f"sub_{next(self._numbers)}"
            self.subscriptions[identifier] = _Subscription(order.customer, items, order.period.start)
            return identifier

        return self._subscribed(self._once(attempt, make) if items else None, order)

    async def end_subscription(self, subscription: str, *, attempt: Attempt) -> None:
        def end() -> None:
            self.subscriptions[subscription].is_live = False

        self._once(attempt, end)

    async def report_usage(self, report: MeterReport, *, attempt: Attempt) -> None:
        if report.product_key in self.refused_usage or is_too_old(report.timestamp, now=self.now() - TRAVEL_TIME):
            raise RailRefused(f"400: the meter of {report.product_key} does not take this report")

        def take() -> None:
            if report.identifier not in {each.identifier for each in self.reports}:
                self.reports.append(report)

        self._once(attempt, take)

    async def usage_seen(self, *, customer: str, product_key: str, period: BillingPeriod) -> int | None:
        return self._last(customer, product_key, period)

    async def find_period_invoice(
        self, *, customer: str, subscription: str, period: BillingPeriod
    ) -> RailInvoice | None:
        for reference, each in self.invoices.items():
            if (each.customer, each.subscription, each.period) == (customer, subscription, period):
                return self._shown(reference)
        return None

    async def hold_draft(self, invoice: str, *, attempt: Attempt) -> RailInvoice:
        def hold() -> None:
            if self.invoices[invoice].status == "draft":
                self.invoices[invoice].advances = False

        self._once(attempt, hold)
        return self._shown(invoice)

    async def charge_lines(
        self, invoice: str, lines: Sequence[ChargedLine], *, quill_invoice_id: str, attempt: Attempt
    ) -> RailInvoice:
        def charge() -> None:
            found = self.invoices[invoice]
            if found.quill_invoice_id == quill_invoice_id:
                return
            if found.status != "draft":
                raise RailRefused(f"invoice {invoice} is no longer editable: it is {found.status}")
            found.charged.extend(lines)
            found.quill_invoice_id = quill_invoice_id

        self._once(attempt, charge)
        return self._shown(invoice)

    async def create_invoice(
        self, *, customer: str, currency: str, quill_invoice_id: str, lines: Sequence[ChargedLine], attempt: Attempt
    ) -> RailInvoice:
        def make() -> str:
            return self._add_invoice(_Invoice(customer, None, None, advances=False))

        known = next((key for key, each in self.invoices.items() if each.quill_invoice_id == quill_invoice_id), None)
        reference = known if known is not None else self._once(attempt, make)
        return await self.charge_lines(
            reference, lines, quill_invoice_id=quill_invoice_id, attempt=attempt.step(f"lines:{currency}")
        )

    async def finalize(self, invoice: str, *, attempt: Attempt) -> RailInvoice:
        def freeze() -> None:
            found = self.invoices[invoice]
            if found.status == "draft":
                found.frozen = self._lines(found)
                found.status = "open" if sum(line.amount_minor for line in found.frozen) > 0 else "paid"

        self._once(attempt, freeze)
        return self._shown(invoice)

    async def pay(self, invoice: str, *, attempt: Attempt) -> RailInvoice:
        def charge() -> None:
            found = self.invoices[invoice]
            if found.status == "open" and found.customer in self.declines:
                found.problem = CARD_DECLINED
            elif found.status == "open":
                found.status, found.problem = "paid", None

        self._once(attempt, charge)
        return self._shown(invoice)

    async def invoice(self, reference: str) -> RailInvoice:
        return self._shown(reference)

    async def lines(self, invoice: str) -> list[RailLine]:
        found = self.invoices[invoice]
        return found.frozen if found.frozen is not None else self._lines(found)

    def _subscribed(self, reference: str | None, order: SubscriptionOrder) -> RailSubscription:
        if reference is None:
            items: tuple[RailItem, ...] = ()
            billed_from = order.period.start
        else:
            items, billed_from = self.subscriptions[reference].items, self.subscriptions[reference].billed_from
        rated = frozenset(item.product_key for item in items)
        notices = tuple(
            RailNotice("price_archived", item.price_id, "archived")
            for item in order.items
            if item.product_key in self.archived
        )
        return RailSubscription(reference, billed_from, rated, notices)

    def _add_invoice(self, invoice: _Invoice) -> str:
        reference = f"in_{next(self._numbers)}"
        self.invoices[reference] = invoice
        return reference

    def _once(self, attempt: Attempt, effect: Callable[[], Answer]) -> Answer:
        """Do an effect unless its key has answered already; then say, or lose, the answer."""
        self.calls.append(attempt.key)
        if attempt.key not in self._answers:
            self._answers[attempt.key] = effect()
        if self._losing > 0:
            self._losing -= 1
            raise ConnectionLost(attempt.key)
        return self._answers[attempt.key]  # type: ignore[return-value]

    def _last(self, customer: str, product_key: str, period: BillingPeriod) -> int:
        inside = [
            each
            for each in self.reports
            if (each.customer, each.product_key) == (customer, product_key) and each.timestamp in period
        ]
        return max(inside, key=lambda each: each.timestamp).quantity if inside else 0

    def _lines(self, invoice: _Invoice) -> list[RailLine]:
        rated: list[RailLine] = []
        if invoice.subscription is not None and invoice.period is not None:
            for item in self.subscriptions[invoice.subscription].items:
                quantity = self._last(invoice.customer, item.product_key, invoice.period)
                rating = rate(price=price_from_document(item.price_document), quantity=quantity)
                rated += [
                    RailLine(item.product_key, line.kind, _units(line), line.amount.amount_minor)
                    for line in rating.lines
                ]
        own = [
            RailLine(line.product_key, line.description, line.quantity, line.amount_minor, line.label)
            for line in invoice.charged
        ]
        return rated + own

    def _shown(self, reference: str) -> RailInvoice:
        found = self.invoices[reference]
        lines = found.frozen if found.frozen is not None else self._lines(found)
        return RailInvoice(
            reference=reference,
            status=found.status,
            total_minor=sum(line.amount_minor for line in lines),
            quill_invoice_id=found.quill_invoice_id,
            problem=found.problem,
        )


def _units(line: RatedLine) -> int:
    """A line of packages shows the units in them, as Stripe's does."""
    return line.last_unit if line.kind == "package" and line.last_unit is not None else line.quantity

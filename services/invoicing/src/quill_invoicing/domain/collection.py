"""What a payment rail is told and what it answers, in Quill's words."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from quill_pricing.period import BillingPeriod

from quill_invoicing.domain.operator_alert import RailNotice

RailStatus = Literal["draft", "open", "paid", "void", "uncollectible"]

LAST_INSTANT_BEFORE_END = timedelta(seconds=1)
"""A final quantity is stamped one second before the period's end: on the end itself it would belong to the next."""
REPORT_STEP = timedelta(seconds=1)
METER_AGE_MAX = timedelta(days=35)
"""The rail's meter takes no older instants (inclusive); a report must arrive before that."""
TRAVEL_TIME = timedelta(minutes=10)
"""How much earlier we stop sending: the report must not become too old on its way."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at an effect outside.

    Attributes:
        key: Derived from the business operation; also its idempotency key (L15).
        number: 1 for the first try. A repeat looks first whether the effect is there already, because the rail forgets
            keys after a day.
    """

    key: str
    number: int

    @property
    def is_repeat(self) -> bool:
        return self.number > 1

    def of(self, key: str) -> "Attempt":
        """The same try at an effect that several operations share, under a key of its own."""
        return Attempt(key, self.number)

    def step(self, name: str) -> "Attempt":
        """The same try at one step of an operation that has several."""
        return Attempt(f"{self.key}:{name}", self.number)


@dataclass(frozen=True, slots=True)
class RailCustomer:
    """Who shall be billed."""

    organization_id: str
    name: str
    email: str | None


@dataclass(frozen=True, slots=True)
class RailItem:
    """A metered product for the rail's catalog."""

    product_key: str
    price_id: str
    price_document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SubscriptionOrder:
    """A subscription at the rail whose periods are ours.

    Attributes:
        existing: The subscription it changes; None for a new one.
        period: The billing period in which it starts, reckoned from its beginning.
    """

    organization_id: str
    customer: str
    existing: str | None
    anchor: datetime
    interval: str
    period: BillingPeriod
    items: tuple[RailItem, ...]


@dataclass(frozen=True, slots=True)
class RailSubscription:
    """A subscription at the rail.

    Attributes:
        reference: None when the rail can rate none of the products, so that there is nothing to subscribe to.
        billed_from: From when on it bills.
        rated: The products that it rates; we charge our own lines for the others.
        notices: What an operator must know of the others.
    """

    reference: str | None
    billed_from: datetime
    rated: frozenset[str] = frozenset()
    notices: tuple[RailNotice, ...] = ()


@dataclass(frozen=True, slots=True)
class MadeCustomer:
    """A customer at the rail, with what an operator must know of how it was made."""

    reference: str
    notices: tuple[RailNotice, ...] = ()


@dataclass(frozen=True, slots=True)
class MeterReport:
    """The billed quantity of one product so far (L12), at an instant inside its period.

    Each product has a meter of its own at the rail, even where one counter feeds two: their limits differ, so their
    billed quantities do.
    """

    customer: str
    product_key: str
    quantity: int
    timestamp: datetime

    @property
    def identifier(self) -> str:
        """The same for the same report, so that a repeat within a day is recognised."""
        content = f"{self.customer}|{self.product_key}|{self.quantity}|{int(self.timestamp.timestamp())}"
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class RailLine:
    """A line of the rail's invoice; minor units. ``label`` is that of the line which we charged; None for its own."""

    product_key: str | None
    description: str
    quantity: int
    amount_minor: int
    label: str | None = None


@dataclass(frozen=True, slots=True)
class ChargedLine:
    """A line that we put on the rail's invoice; ``quantity`` is what it explains, the amount is what is charged.

    ``label`` says which of our lines it stands for (see `charged_lines`).
    """

    product_key: str
    description: str
    quantity: int
    amount_minor: int
    service_period: BillingPeriod
    label: str


@dataclass(frozen=True, slots=True)
class RailInvoice:
    """An invoice at the rail, as it stands now."""

    reference: str
    status: RailStatus
    total_minor: int
    quill_invoice_id: str | None
    problem: str | None = None
    """Why the last payment failed, in the rail's code; None when nothing failed."""


def is_too_old(timestamp: datetime, *, now: datetime) -> bool:
    """Whether the rail's meter may refuse a report for its age by the time it arrives."""
    return timestamp <= now - METER_AGE_MAX + TRAVEL_TIME


def report_instant(*, now: datetime, last: datetime | None, period: BillingPeriod) -> datetime | None:
    """When to stamp a running report: strictly after the last one, whole seconds, inside the period.

    Returns None when no instant is left before the final report's: the final one will say it.
    """
    latest = period.end - LAST_INSTANT_BEFORE_END - REPORT_STEP
    at = max(min(now.replace(microsecond=0), latest), period.start)
    if last is not None and at <= last:
        at = last + REPORT_STEP
    return at if at <= latest else None


def final_report_instant(period: BillingPeriod) -> datetime:
    """The one instant of a period's final report."""
    return period.end.replace(microsecond=0) - LAST_INSTANT_BEFORE_END

"""What a customer agreed to, and when each agreement was in force."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from quill_pricing.period import BillingPeriod, BillingSchedule, Interval
from quill_pricing.price import Price, price_from_document
from quill_pricing.schedule_history import ScheduleChange, ScheduleHistory

CollectionMode = Literal["stripe-rates", "quill-rates"]


@dataclass(frozen=True, slots=True)
class ItemChange:
    """What held of an item from ``at`` on, until its next change.

    Attributes:
        paid: Subscribed, and no trial runs.
        quota: Units the limiter lets through, None for unlimited.
        quantity: Licensed quantity; None for a metered product, and for a flat price.
    """

    at: datetime
    paid: bool
    quota: int | None = None
    quantity: int | None = None


@dataclass(frozen=True, slots=True)
class TermsItem:
    """One product of a customer.

    Attributes:
        usage_key: The meter it is billed by; None for a licensed product (seats, a flat fee).
        price_document: The whole price as it travelled, so that an old invoice needs no catalog.
        subscribed: Whether it is billed; otherwise it is the free tier and ``quota`` is its allowance.
        quota: Units the limiter lets through, None for unlimited (L12).
        quantity: Licensed quantity; None for a metered product.
        changes: What held in the last billing periods, oldest first. The start of this list moves with the billing
            period, so it is no part of a comparison: every change also shows in the other attributes.
    """

    product_key: str
    usage_key: str | None
    price_id: str
    price_document: Mapping[str, Any]
    subscribed: bool
    quota: int | None
    quantity: int | None
    changes: tuple[ItemChange, ...] = field(default=(), compare=False)

    @property
    def price(self) -> Price:
        """How the quantity turns into money."""
        return price_from_document(self.price_document)

    @property
    def currency(self) -> str:
        return self.price.currency

    @property
    def is_metered(self) -> bool:
        """Whether usage decides what it costs; a flat price is the same for any usage."""
        return self.usage_key is not None and self.price_document["model"] != "flat"


@dataclass(frozen=True, slots=True)
class CustomerTerms:
    """A customer's terms at one revision, in force from ``effective_at`` until a higher revision takes over.

    Attributes:
        license_id: The license that may ask about this customer (L17, L18).
        anchor: Billing periods are anchor + n x ``interval`` (L21).
        period: The billing period the customer was in when this was written.
        free_trial_until: Until then nothing is paid; None without a trial.
    """

    organization_id: str
    organization_name: str
    email: str | None
    customer_id: str
    license_id: str
    revision: int
    effective_at: datetime
    has_active_subscription: bool
    subscription_id: str | None
    collection_mode: CollectionMode
    anchor: datetime
    interval: str
    period: BillingPeriod
    items: tuple[TermsItem, ...]
    free_trial_until: datetime | None = None

    @property
    def schedule_change(self) -> ScheduleChange:
        """What these terms say of the schedule."""
        schedule = BillingSchedule(anchor=self.anchor, interval=Interval.parse(self.interval))
        return ScheduleChange(schedule, begins=self.period.start, effective_at=self.effective_at)

    def bills_like(self, other: "CustomerTerms") -> bool:
        """Whether only facts without a bearing on money differ (a period rolled over, a name changed)."""
        return (
            self.has_active_subscription,
            self.subscription_id,
            self.collection_mode,
            self.anchor,
            self.interval,
            self.items,
            self.free_trial_until,
            self.is_in_trial(self.effective_at),
        ) == (
            other.has_active_subscription,
            other.subscription_id,
            other.collection_mode,
            other.anchor,
            other.interval,
            other.items,
            other.free_trial_until,
            other.is_in_trial(other.effective_at),
        )

    def is_in_trial(self, instant: datetime) -> bool:
        """Whether a free trial runs, so that nothing is paid."""
        return self.free_trial_until is not None and instant < self.free_trial_until

    def item(self, product_key: str) -> TermsItem | None:
        """The item of a product."""
        return next((item for item in self.items if item.product_key == product_key), None)

    def billed_items(self) -> tuple[TermsItem, ...]:
        """The items that cost something."""
        return tuple(item for item in self.items if item.subscribed) if self.has_active_subscription else ()

    def metered_items(self) -> tuple[TermsItem, ...]:
        """The billed items that are billed by usage."""
        return tuple(item for item in self.billed_items() if item.is_metered)


@dataclass(frozen=True, slots=True)
class TermsHistory:
    """Every version of a customer's terms that changed money, in any order."""

    versions: tuple[CustomerTerms, ...]

    @classmethod
    def of(cls, versions: Iterable[CustomerTerms]) -> "TermsHistory":
        return cls(tuple(sorted(versions, key=lambda terms: terms.revision)))

    @property
    def license_id(self) -> str | None:
        """The license that the customer belongs to; None while nothing is known of it."""
        return self.versions[-1].license_id if self.versions else None

    @property
    def schedules(self) -> ScheduleHistory:
        """What makes the customer's billing periods: usage-ingest follows the same changes in the same order (L21).

        Raises:
            IndexError: nothing is known of the customer.
        """
        history = ScheduleHistory(self.versions[0].schedule_change.schedule)
        for terms in self.versions[1:]:
            history = history.changed(terms.schedule_change)
        return history

    def at(self, instant: datetime) -> CustomerTerms | None:
        """The terms in force: the highest revision whose time had come. None before the first."""
        return max(
            (terms for terms in self.versions if terms.effective_at <= instant),
            key=lambda terms: terms.revision,
            default=None,
        )

    def within(self, period: BillingPeriod) -> tuple[tuple[datetime, CustomerTerms], ...]:
        """Each version with the instant it took over inside the period, oldest first.

        The first counts from the period's start even if it took force later: a subscription that starts in the middle
        of a period is billed for the whole period's usage, as the legacy metered prices do.
        """
        starts = sorted({t.effective_at for t in self.versions if period.start <= t.effective_at < period.end})
        instants = [period.start, *(start for start in starts if start > period.start)]
        found: list[tuple[datetime, CustomerTerms]] = []
        for instant in instants:
            terms = self.at(instant)
            if terms is not None and (not found or found[-1][1] is not terms):
                found.append((instant if found else period.start, terms))
        return tuple(found)

    def items_billed_in(self, period: BillingPeriod) -> tuple[tuple[CustomerTerms, TermsItem], ...]:
        """The newest billed version of each product in the period, by product key, with the terms it is from.

        A product that was unsubscribed half-way is still billed: by its last price, for what was used until then (its
        quota fell at that instant, and L12 does the rest).
        """
        newest: dict[str, tuple[CustomerTerms, TermsItem]] = {}
        for _, terms in self.within(period):
            for item in terms.billed_items():
                newest[item.product_key] = (terms, item)
        return tuple(newest[key] for key in sorted(newest))

"""What a customer agreed to, and when each agreement was in force."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any, Literal

from quill_pricing.billed_quantity import BillingTerms, cuts_between
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
        aggregation: How the meter's usage comes about; ``last`` bills its last value.
        carried: The last value goes on into a period without events.
    """

    product_key: str
    usage_key: str | None
    price_id: str
    price_document: Mapping[str, Any]
    subscribed: bool
    quota: int | None
    quantity: int | None
    aggregation: str = "sum"
    carried: bool = False
    changes: tuple[ItemChange, ...] = field(default=(), compare=False)

    @property
    def is_last_value(self) -> bool:
        """Whether the meter is a gauge that bills its last value."""
        return self.aggregation == "last"

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

    def billing_terms(self, product_key: str, at: datetime) -> BillingTerms:
        """Whether a metered product is paid at an instant of these terms, and its limit."""
        item = self.item(product_key)
        is_paid = item is not None and item in self.billed_items() and not self.is_in_trial(at)
        return BillingTerms(at, is_paid=is_paid, limit=None if item is None else item.quota)

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
        """Each version with the instant from which it held in the period, oldest first."""
        starts = sorted({t.effective_at for t in self.versions if period.start < t.effective_at < period.end})
        found: list[tuple[datetime, CustomerTerms]] = []
        for instant in (period.start, *starts):
            terms = self.at(instant)
            if terms is not None and (not found or found[-1][1] is not terms):
                found.append((instant, terms))
        return tuple(found)

    @property
    def own_instants(self) -> frozenset[datetime]:
        """The instants from which a version says by itself what holds: when it took force, and the end of its trial.

        The end of a trial counts in the newest version only. For an older one later versions tell what became of it,
        and one of them may never have arrived.
        """
        instants = {terms.effective_at for terms in self.versions}
        newest = self.versions[-1] if self.versions else None
        if newest is not None and newest.free_trial_until is not None and newest.is_in_trial(newest.effective_at):
            instants.add(newest.free_trial_until)
        return frozenset(instants)

    def billing_terms(self, product_key: str) -> tuple[BillingTerms, ...]:
        """When a metered product was paid, and its limits over time, oldest first (L12).

        Each version tells the item's changes of the last billing periods, so that one that never arrived (a compacted
        topic keeps the newest) is not missed.
        """
        held: dict[datetime, BillingTerms] = {}
        for terms in self.versions:
            item = terms.item(product_key)
            for change in () if item is None else item.changes:
                held[change.at] = BillingTerms(change.at, is_paid=change.paid, limit=change.quota)
        for instant in self.own_instants:
            in_force = self.at(instant)
            if in_force is not None:
                held[instant] = in_force.billing_terms(product_key, instant)
        return tuple(terms for _, terms in sorted(held.items()))

    def items_billed_in(self, period: BillingPeriod) -> tuple[tuple[CustomerTerms, TermsItem], ...]:
        """The newest billed version of each product in the period, by product key, with the terms it is from.

        A product that was unsubscribed half-way is still billed: by its last price, for what was used until then. One
        that was only subscribed in a trial is not.
        """
        newest: dict[str, tuple[CustomerTerms, TermsItem]] = {}
        within = self.within(period)
        for position, (_, terms) in enumerate(within):
            until = within[position + 1][0] if position + 1 < len(within) else period.end
            if terms.free_trial_until is None or terms.free_trial_until < until:
                for item in terms.billed_items():
                    newest[item.product_key] = (terms, item)
        return tuple(newest[key] for key in sorted(newest))

    def owner_of(self, period: BillingPeriod) -> CustomerTerms:
        """The terms that say how the period's invoice is collected: the newest it bills by.

        A cancelled customer's later terms bill nothing and name no collection mode of their own, so they never decide
        over an invoice that an earlier subscription owes. A period that bills nothing has its newest terms.
        """
        billed = [terms for terms, _ in self.items_billed_in(period)]
        if billed:
            return max(billed, key=lambda terms: terms.revision)
        within = self.within(period)
        return within[-1][1] if within else self.versions[-1]

    def cuts_in(self, period: BillingPeriod) -> frozenset[datetime]:
        """The instants inside the period that its bill depends on: usage must say what was used before each (D2)."""
        products = {item.product_key for _, terms in self.within(period) for item in terms.items if item.is_metered}
        return frozenset(cut for product in products for cut in cuts_between(self.billing_terms(product), period))

    def revision_before(self, instant: datetime) -> int:
        """The newest revision that took force before an instant; 0 before the first."""
        return max((terms.revision for terms in self.versions if terms.effective_at < instant), default=0)

    @property
    def schedule_revision(self) -> int:
        """The revision that last changed the schedule; 0 if none did."""
        changes = [
            later.revision
            for earlier, later in pairwise(self.versions)
            if earlier.schedule_change.schedule != later.schedule_change.schedule
        ]
        return changes[-1] if changes else 0

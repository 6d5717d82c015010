"""What a customer may use: the facts about one organization that limits follow from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from quill_pricing.billed_quantity import BillingTerms
from quill_pricing.period import BillingPeriod, BillingSchedule


@dataclass(frozen=True, slots=True)
class Entitlement:
    """One meter of one customer.

    Attributes:
        quota: units per billing period outside a trial, ``None`` for unlimited; always recomputed here from the price.
        allowance: units that cost nothing, for the evidence.
        billing_limit_usd: whole dollars per billing period, ``None`` for none; for the evidence.
        trust_score: 0, 3, 7, 10 or 15; ``None`` when nobody has scored the customer.
        product_key: the item it comes from.
        terms: when the item was paid and up to which quota, since the billing period of the snapshot began (L12).
        aggregation: ``last`` is a gauge, whose value is compared; everything else adds up.
        carried: a gauge's value goes on into a billing period in which no event came.
        in_trial: a free trial includes the product, and lifts ``quota`` while it runs, unless it is subscribed.
    """

    usage_key: str
    quota: int | None
    allowance: int = 0
    billing_limit_usd: int | None = None
    subscribed: bool = False
    trust_score: int | None = None
    never_drop_data: bool = False
    product_key: str = ""
    terms: tuple[BillingTerms, ...] = ()
    aggregation: str = "sum"
    carried: bool = False
    in_trial: bool = True

    def is_uncut_in(self, period: BillingPeriod, *, free_trial_until: datetime | None) -> bool:
        """Whether a limit is compared with everything used in the period.

        True of most customers, whom the whole calculation would cost five times the rest of their decision: the meter
        is not paid now, or it was paid all along.
        """
        if self.carried:
            return False
        if not self.subscribed:
            return True
        in_trial = free_trial_until is not None and period.start < free_trial_until
        return not in_trial and (not self.terms or self.terms[-1].effective_at <= period.start)

    def terms_in(self, period: BillingPeriod, *, free_trial_until: datetime | None) -> tuple[BillingTerms, ...]:
        """The terms for billing the period.

        The end of a trial counts from its instant, also before a snapshot tells it. A snapshot that tells no changes
        means that what holds now always held.
        """
        told = self.terms
        if not told:
            in_trial = free_trial_until is not None and period.start < free_trial_until
            told = (BillingTerms(period.start, is_paid=self.subscribed and not in_trial, limit=self.quota),)
        last = told[-1]
        if self.subscribed and not last.is_paid and free_trial_until and free_trial_until > last.effective_at:
            return (*told, BillingTerms(free_trial_until, is_paid=True, limit=self.quota))
        return told


@dataclass(frozen=True, slots=True)
class Customer:
    """One revision of a customer, reduced to what limits depend on."""

    organization_id: str
    revision: int
    license_id: str
    schedule: BillingSchedule
    entitlements: tuple[Entitlement, ...]
    tokens: frozenset[str] = frozenset()
    """API tokens of the organization's projects."""
    free_trial_until: datetime | None = None
    """Exclusive end of a free trial."""
    prices: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """The price document of each meter: what another billing limit, or a scope's money, would buy; what usage costs."""
    teams: Mapping[str, str] = field(default_factory=dict)
    """The team of each token."""

    def entitlement(self, usage_key: str) -> Entitlement:
        """The meter's entitlement; a meter that no item names any more is not limited."""
        for entitlement in self.entitlements:
            if entitlement.usage_key == usage_key:
                return entitlement
        return Entitlement(usage_key=usage_key, quota=None)


def tightest(entitlements: list[Entitlement]) -> tuple[Entitlement, ...]:
    """One entitlement per meter: where two items feed on the same meter, the smaller quota holds (L10)."""
    chosen: dict[str, Entitlement] = {}
    for entitlement in entitlements:
        known = chosen.get(entitlement.usage_key)
        if known is None or _is_tighter(entitlement.quota, known.quota):
            chosen[entitlement.usage_key] = entitlement
    return tuple(chosen[usage_key] for usage_key in sorted(chosen))


def _is_tighter(quota: int | None, other: int | None) -> bool:
    return quota is not None and (other is None or quota < other)

"""Everything that is known of one organization and that its limits follow from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from quill_pricing.billed_quantity import quantity_against_limit
from quill_pricing.period import BillingPeriod

from quill_quota_limiter.domain.credit_balance import CreditBalance
from quill_quota_limiter.domain.entitlement import Customer
from quill_quota_limiter.domain.limit_decision import Inputs
from quill_quota_limiter.domain.organization_scopes import ScopeFacts
from quill_quota_limiter.domain.period_usage import OrganizationUsage


@dataclass(frozen=True, slots=True)
class OrganizationFacts:
    """The newest revision of each fact; usage and credits are ``None`` until somebody publishes them.

    ``scopes`` is read only for an organization that has scopes; ``prices``, the price document of each meter, only for
    one that is told of its spend.
    """

    customer: Customer
    usage: OrganizationUsage | None = None
    credits: CreditBalance | None = None
    scopes: ScopeFacts | None = None
    prices: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    def inputs(self, usage_key: str, period: BillingPeriod, *, now: datetime) -> Inputs:
        """What one meter's decision looks at in ``period`` at ``now``.

        A limit is compared with chargeable usage while the meter is paid, with all usage otherwise (D1). An
        organization that reports has used nothing of a meter it does not mention; one that never reported is unknown,
        and so is a balance that nobody has published.
        """
        entitlement, trial_end = self.customer.entitlement(usage_key), self.customer.free_trial_until
        compared = used = greatest = None
        if self.usage is not None:
            if entitlement.is_uncut_in(period, free_trial_until=trial_end):
                known = self.usage.in_period(period.start)
                compared = used = known.quantities.get(usage_key, 0) if known else 0
            else:
                metered = self.usage.metered(entitlement, period.start)
                terms = entitlement.terms_in(period, free_trial_until=trial_end)
                compared, used = quantity_against_limit(metered, terms, period, now=now), metered.total
            if usage_key in self.prices:
                greatest = self.usage.metered(entitlement, period.start, billed=True)
        return Inputs(
            entitlement=entitlement,
            usage=compared,
            period=period,
            free_trial_until=trial_end,
            credit_balance_minor=self.credits.balance_minor if self.credits else None,
            used=used,
            greatest=greatest,
        )

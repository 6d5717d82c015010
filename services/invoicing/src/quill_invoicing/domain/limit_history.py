"""The limits of one product over a billing period: what L12 caps usage with."""

from datetime import datetime

from quill_pricing.period import BillingPeriod

from quill_invoicing.domain.terms import TermsHistory

NOTHING = 0
"""The quota of a product that the customer's terms do not name: none of its usage is billed."""


def limits_within(
    history: TermsHistory, product_key: str, period: BillingPeriod
) -> tuple[tuple[datetime, int | None], ...]:
    """(effective at, quota) of each change, oldest first, the first at the period's start; None is unlimited."""
    limits: list[tuple[datetime, int | None]] = []
    for instant, terms in history.within(period):
        item = next((item for item in terms.items if item.product_key == product_key), None)
        quota = NOTHING if item is None else item.quota
        if not limits or limits[-1][1] != quota:
            limits.append((instant, quota))
    return tuple(limits)

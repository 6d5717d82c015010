"""What cost of which meter an organization is told about."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from quill_pricing.money import Money
from quill_runtime.event_store import NewEvent

from quill_quota_limiter.domain.evaluation import OrganizationLimits
from quill_quota_limiter.domain.spend_threshold import ImpossibleSpend, check_amounts, documents_of
from quill_quota_limiter.ports import LimitsTransaction
from quill_quota_limiter.usecases.evaluate import CONFIRM_AFTER, evaluate_organizations
from quill_quota_limiter.usecases.set_thresholds import METERS_MAX, TooManyMeters, lock_known

SPEND_THRESHOLDS_SET: Final = "spend_thresholds_set"


async def set_spend_thresholds(
    organization_id: str,
    amounts: Sequence[int],
    *,
    meter: str,
    currency: str | None,
    actor: str,
    reason: str,
    tx: LimitsTransaction,
    now: datetime,
) -> OrganizationLimits:
    """Set the amounts to tell of one meter; those that are reached already are told at once (L9).

    Args:
        organization_id: whose.
        amounts: minor units of cost in one billing period, 1 or more each; none at all tells nothing.
        meter: of which.
        currency: what the amounts are in, if the person says; else that of the price.
        actor: who changes it (L20).
        reason: why.
        tx: the transaction.
        now: when.

    Raises:
        UnknownCustomer: nothing is known of the organization.
        ImpossibleSpend: the organization has no such meter, or its price is unknown, flat or in another currency.
        TooManyMeters: above 1,000 settings.
    """
    locked = await lock_known(organization_id, tx=tx)
    before = locked.spend_thresholds.get(meter, ())
    after: tuple[Money, ...] = ()
    if amounts:
        _check_meter(locked, meter)
        price = (await tx.prices(organization_id)).get(meter)
        after = check_amounts(amounts, meter, price=price, currency=currency)
    if before == after:
        return locked
    settings = {key: value for key, value in locked.spend_thresholds.items() if key != meter}
    if after:
        settings[meter] = after
    if len(settings) > METERS_MAX:
        raise TooManyMeters(f"an organization has at most {METERS_MAX:,} spend threshold settings")
    data = {"meter": meter, "reason": reason, "before": documents_of(before), "after": documents_of(after)}
    await tx.record(f"limit-thresholds/{organization_id}", NewEvent(SPEND_THRESHOLDS_SET, data, actor, now))
    changed = {organization_id: replace(locked, spend_thresholds=settings)}
    # Due again soon: this may have decided what time alone changed, and the job brings the answer to the board.
    (evaluated,) = await evaluate_organizations(
        changed, tokens_changed=frozenset(), tx=tx, now=now, confirm_at=now + CONFIRM_AFTER
    )
    return evaluated


def _check_meter(limits: OrganizationLimits, meter: str) -> None:
    if meter not in limits.meters:
        known = ", ".join(sorted(limits.meters)) or "none"
        why = f"this organization has no meter {meter!r}; known: {known}"
        raise ImpossibleSpend("unknown_usage_key", why, attr="meter")

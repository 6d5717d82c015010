"""What share of which quota an organization is told about."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from quill_runtime.event_store import NewEvent

from quill_quota_limiter.domain.evaluation import OrganizationLimits
from quill_quota_limiter.domain.threshold import ALL_METERS
from quill_quota_limiter.ports import LimitsStore, LimitsTransaction
from quill_quota_limiter.usecases.evaluate import CONFIRM_AFTER, evaluate_organizations

METERS_MAX: Final = 1_000
KEPT_FOR: Final = timedelta(days=60)
FORGET_PAGES_MAX: Final = 500


class UnknownCustomer(LookupError):
    """No customer with this organization is known."""


class TooManyMeters(ValueError):
    """The organization has as many settings as can be kept."""


async def set_thresholds(
    organization_id: str,
    percents: Sequence[int] | None,
    *,
    meter: str | None,
    actor: str,
    reason: str,
    tx: LimitsTransaction,
    now: datetime,
) -> OrganizationLimits:
    """Set the shares to tell of one meter, or of all without a setting of their own; they hold at once (L9).

    Args:
        organization_id: whose.
        percents: rising shares; none at all tells nothing, ``None`` goes back to the default.
        meter: one meter, or ``None`` for all.
        actor: who changes it (L20).
        reason: why.
        tx: the transaction.
        now: when.

    Raises:
        UnknownCustomer: nothing is known of the organization.
        TooManyMeters: above 1,000 settings.
    """
    locked = await lock_known(organization_id, tx=tx)
    name = meter or ALL_METERS
    settings = {key: value for key, value in locked.thresholds.items() if key != name}
    if percents is not None:
        settings[name] = tuple(sorted(set(percents)))
    if len(settings) > METERS_MAX:
        raise TooManyMeters(f"an organization has at most {METERS_MAX:,} threshold settings")
    if settings == dict(locked.thresholds):
        return locked
    data = {
        "meter": name,
        "reason": reason,
        "before": None if name not in locked.thresholds else list(locked.thresholds[name]),
        "after": None if name not in settings else list(settings[name]),
    }
    await tx.record(f"limit-thresholds/{organization_id}", NewEvent("thresholds_set", data, actor, now))
    changed = {organization_id: replace(locked, thresholds=settings)}
    # Due again soon: this may have decided what time alone changed, and the job brings the answer to the board.
    (after,) = await evaluate_organizations(
        changed, tokens_changed=frozenset(), tx=tx, now=now, confirm_at=now + CONFIRM_AFTER
    )
    return after


async def lock_known(organization_id: str, *, tx: LimitsTransaction) -> OrganizationLimits:
    """What is decided about an organization, held until the end of the transaction.

    Raises:
        UnknownCustomer: nothing is known of the organization.
    """
    found = (await tx.limits([organization_id])).get(organization_id)
    if found is None or not found.is_known:
        raise UnknownCustomer(organization_id)
    return (await tx.lock_organizations([organization_id]))[organization_id]


async def forget_old_thresholds(*, store: LimitsStore, now: datetime) -> int:
    """Forget what was told in billing periods that are long over and never decided again; returns how much."""
    total = 0
    for _ in range(FORGET_PAGES_MAX):
        async with store.begin() as tx:
            forgotten = await tx.forget_reached(now - KEPT_FOR)
        total += forgotten
        if not forgotten:
            break
    return total

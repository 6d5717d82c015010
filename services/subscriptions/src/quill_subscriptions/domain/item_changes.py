"""What held of each item over time: the changes that the other services need to bill usage when it happened (L12)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from quill_pricing.billed_quantity import BillingTerms, cuts_between, is_cut
from quill_pricing.period import BillingPeriod

CUTS_BY_PERSONS_MAX: Final = 64
"""Cuts per billing period that persons may cause; what time causes comes on top (the contract bounds 80)."""
CHANGES_OF_AN_ITEM_MAX: Final = 200
"""Changes of one item per billing period that persons may cause, after folding."""
FOLDED_FROM: Final = 100
"""An item with more changes than this loses those that no bill depends on."""


@dataclass(frozen=True, slots=True)
class ItemChange:
    """What held of an item from ``at`` on, until its next change.

    Attributes:
        paid: the product is subscribed, and no trial runs.
        quota: units per billing period; None is unlimited, or the product has no meter.
        quantity: licensed units of a subscribed product without a meter.
        product_revision: the revision it is subscribed at, whose price is billed; None without a subscription.
    """

    at: datetime
    paid: bool
    quota: int | None = None
    quantity: int | None = None
    product_revision: int | None = None

    @property
    def terms(self) -> BillingTerms:
        """The same for billing a meter."""
        return BillingTerms(self.at, is_paid=self.paid, limit=self.quota)


ItemChanges = Mapping[str, tuple[ItemChange, ...]]
"""By product key, each oldest first."""


class TooManyChanges(ValueError):
    """A person changed this customer too often in one billing period. ``code`` is stable, for machines."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def with_change(changes: Sequence[ItemChange], change: ItemChange) -> tuple[ItemChange, ...]:
    """The changes of an item after one more.

    A change that changes nothing is left out. Of two at one instant the later holds. A clock that went backwards
    cannot reorder them: such a change counts from the last one.
    """
    if not changes:
        return (change,)
    last = changes[-1]
    if replace(change, at=last.at) == last:
        return tuple(changes)
    if change.at > last.at:
        return (*changes, change)
    return with_change(changes[:-1], replace(change, at=last.at))


def kept_since(changes: Sequence[ItemChange], since: datetime) -> tuple[ItemChange, ...]:
    """The changes from ``since`` on; what held then is the first, at ``since``.

    Many changes are folded further: between two cuts a limit only rises, so only the last limit matters to a bill.
    """
    earlier = [change for change in changes if change.at <= since]
    kept = [replace(change, at=since) for change in earlier[-1:]] + [change for change in changes if change.at > since]
    return tuple(kept if len(kept) <= FOLDED_FROM else _folded(kept))


def _folded(changes: Sequence[ItemChange]) -> list[ItemChange]:
    kept = [changes[0]]
    for change in changes[1:]:
        if len(kept) > 1 and not _matters(kept[-2], kept[-1]) and not _matters(kept[-1], change):
            kept[-1] = change
        else:
            kept.append(change)
    return kept


def _matters(before: ItemChange, after: ItemChange) -> bool:
    """Whether a bill depends on the instant of this change."""
    is_other_item = (before.quantity, before.product_revision) != (after.quantity, after.product_revision)
    return is_other_item or is_cut(before.terms, after.terms)


def held_in(changes: Sequence[ItemChange], period: BillingPeriod) -> tuple[ItemChange, ...]:
    """The changes that held at any instant of a billing period, the one before its start included."""
    before = [change for change in changes if change.at <= period.start]
    return (*before[-1:], *(change for change in changes if period.start < change.at < period.end))


def cuts_of(metered: Iterable[Sequence[ItemChange]], periods: Iterable[BillingPeriod]) -> tuple[datetime, ...]:
    """Where a paid span of one of these items began or ended, or its limit fell, inside the periods; rising."""
    terms = [[change.terms for change in changes] for changes in metered]
    return tuple(sorted({cut for period in periods for each in terms for cut in cuts_between(each, period)}))


def check_number_of_changes(
    before: ItemChanges, after: ItemChanges, *, metered: frozenset[str], period: BillingPeriod
) -> None:
    """Refuse what a person may not add to the open billing period.

    Args:
        before: what the newest published snapshot told.
        after: the same with the change.
        metered: the keys of the products with a meter.
        period: the open billing period.

    Raises:
        TooManyChanges: ``too_many_limit_changes`` above 64 cuts, ``too_many_quantity_changes`` above 200 changes of
            one item.
    """
    known, cuts = (_number_of_cuts(changes, metered=metered, period=period) for changes in (before, after))
    next_period = f"the next billing period starts at {period.end.isoformat()}"
    if cuts > CUTS_BY_PERSONS_MAX and cuts > known:
        raise TooManyChanges(
            "too_many_limit_changes",
            f"subscriptions, trials and lowered limits changed {known} times in this billing period, "
            f"at most {CUTS_BY_PERSONS_MAX} are allowed; raising a limit is still possible, {next_period}",
        )
    for key, changes in sorted(after.items()):
        inside = sum(change.at in period for change in changes)
        if inside > CHANGES_OF_AN_ITEM_MAX and inside > sum(change.at in period for change in before.get(key, ())):
            raise TooManyChanges(
                "too_many_quantity_changes",
                f"{key} changed {CHANGES_OF_AN_ITEM_MAX} times in this billing period, the most allowed; {next_period}",
            )


def _number_of_cuts(changes: ItemChanges, *, metered: frozenset[str], period: BillingPeriod) -> int:
    return len(cuts_of((changes.get(key, ()) for key in metered), [period]))

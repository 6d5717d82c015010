"""What the teams and projects of an organization may use."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from quill_pricing.currency import UnknownCurrency
from quill_pricing.money import Money
from quill_pricing.price import price_from_document
from quill_runtime.event_store import NewEvent

from quill_quota_limiter.domain.evaluation import OrganizationLimits
from quill_quota_limiter.domain.scope import Cap, ScopeSettings
from quill_quota_limiter.domain.scope_evaluation import with_settings
from quill_quota_limiter.ports import LimitsTransaction
from quill_quota_limiter.usecases.evaluate import CONFIRM_AFTER, evaluate_organizations
from quill_quota_limiter.usecases.set_thresholds import lock_known

SCOPES_SET: Final = "scopes_set"
EACH_TEAM_TEAMS_MAX: Final = 5_000
"""Teams an organization may have when a limit on each of them is first set; a larger answer would be slow to carry."""


class SettingsConflict(RuntimeError):
    """Somebody else set the scopes meanwhile; read them again and decide what still holds."""


class ImpossibleCap(ValueError):
    """A cap that cannot hold for this organization; ``attr`` names the field."""

    def __init__(self, message: str, *, attr: str) -> None:
        super().__init__(message)
        self.attr = attr


async def set_scopes(
    organization_id: str,
    settings: ScopeSettings,
    *,
    actor: str,
    reason: str,
    tx: LimitsTransaction,
    now: datetime,
) -> OrganizationLimits:
    """Put the whole list in place of the one before; it holds at once, in both directions (L9).

    Args:
        organization_id: whose.
        settings: the new list, with the revision after the one that the person saw.
        actor: who changes it (L20).
        reason: why.
        tx: the transaction.
        now: when.

    Raises:
        UnknownCustomer: nothing is known of the organization.
        SettingsConflict: the settings are at another revision.
        ImpossibleCap: a meter that the organization does not have, money for what has no price in that currency, or a
            limit on each of too many teams.
    """
    locked = await lock_known(organization_id, tx=tx)
    before = locked.scopes.settings if locked.scopes is not None else ScopeSettings()
    if replace(settings, revision=before.revision) == before:
        return locked
    if settings.revision != before.revision + 1:
        raise SettingsConflict(
            f"the scopes are at revision {before.revision}, not {settings.revision - 1}; read them again"
        )
    prices = await tx.prices(organization_id) if settings.has_money else {}
    _check(settings, locked, prices)
    data = {"reason": reason, "before": before.document(), "after": settings.document()}
    await tx.record(f"limit-scopes/{organization_id}", NewEvent(SCOPES_SET, data, actor, now))
    changed = {organization_id: replace(locked, scopes=with_settings(locked.scopes, settings))}
    # Due again soon: if the answer does not reach the board now, by a crash say, the job brings it there.
    (after,) = await evaluate_organizations(
        changed, tokens_changed=frozenset(), tx=tx, now=now, confirm_at=now + CONFIRM_AFTER
    )
    assert after.scopes is not None, "they were just set"
    teams = len(after.scopes.teams)
    if settings.each_team and not before.each_team and teams > EACH_TEAM_TEAMS_MAX:
        raise ImpossibleCap(
            f"this organization has {teams:,} teams, and each of at most {EACH_TEAM_TEAMS_MAX:,} can be limited alike: "
            "name the teams, or pool them in projects",
            attr="each_team",
        )
    return after


def _check(settings: ScopeSettings, limits: OrganizationLimits, prices: Mapping[str, Mapping[str, Any]]) -> None:
    known = ", ".join(sorted(limits.meters)) or "none"
    for at, usage_key, cap in _caps(settings):
        if usage_key not in limits.meters:
            raise ImpossibleCap(f"this organization has no meter {usage_key!r}; known: {known}", attr=at)
        if cap.money_minor is None or cap.currency is None:
            continue
        try:
            Money(cap.money_minor, cap.currency)
        except UnknownCurrency as error:
            raise ImpossibleCap(str(error), attr=f"{at}__money__currency") from error
        if usage_key not in prices:
            raise ImpossibleCap(f"{usage_key} has no price here: give the limit in units", attr=at)
        currency = price_from_document(prices[usage_key]).currency
        if currency != cap.currency:
            raise ImpossibleCap(
                f"the price of {usage_key} is in {currency}, not {cap.currency}", attr=f"{at}__money__currency"
            )


def _caps(settings: ScopeSettings) -> list[tuple[str, str, Cap]]:
    """Every cap with the field it stands in and its meter."""
    found = [
        (f"scopes__{number}__limits__{usage_key}", usage_key, cap)
        for number, scope in enumerate(settings.scopes)
        for usage_key, cap in scope.caps.items()
    ]
    return found + [(f"each_team__{usage_key}", usage_key, cap) for usage_key, cap in settings.each_team.items()]

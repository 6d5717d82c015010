"""May this happen now? The answer to a quota check, from what was last decided."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from quill_quota_limiter.domain.evaluation import OrganizationLimits
from quill_quota_limiter.domain.limit_state import StateName
from quill_quota_limiter.domain.meter_limit import MeterLimit
from quill_quota_limiter.domain.organization_scopes import OrganizationScopes
from quill_quota_limiter.domain.scope import ORGANIZATION
from quill_quota_limiter.domain.scope_answer import MeterStanding, ScopesStanding, tightest

UnknownOrganizationPolicy = Literal["allow", "deny"]
"""What a check is told while nothing is known of an organization or its meter. ``allow`` loses a little money for a new
customer, ``deny`` loses the customer's data; both are said openly with ``known: false``."""


@dataclass(frozen=True, slots=True)
class OrganizationStanding:
    """What checks need to know of one organization: a pure projection of its decided limits (L8).

    ``scopes`` is none until somebody sets a limit on a team or project.
    """

    revision: int
    license_id: str
    meters: Mapping[str, MeterStanding]
    scopes: ScopesStanding | None = None


@dataclass(frozen=True, slots=True)
class QuotaAnswer:
    """The answer to one check. ``known`` false: the policy answered, no decision did.

    ``organization_id`` is none when a project token was asked about that no organization has.
    """

    organization_id: str | None
    usage_key: str
    allowed: bool
    state: StateName | None
    usage: int | None
    quota: int | None
    limited_until: datetime | None
    suspended_until: datetime | None
    revision: int | None
    known: bool


@dataclass(frozen=True, slots=True)
class ScopedQuotaAnswer(QuotaAnswer):
    """The answer for a part of an organization; ``scope`` says whose limit it is: its own, or the part's (L10)."""

    scope: str = ORGANIZATION


def standing_of(limits: OrganizationLimits) -> OrganizationStanding | None:
    """What checks are answered from; ``None`` while the customer is unknown."""
    if limits.license_id is None:
        return None
    return OrganizationStanding(
        revision=limits.revision,
        license_id=limits.license_id,
        meters=_standings(limits.meters),
        scopes=None if limits.scopes is None else scopes_standing_of(limits.scopes),
    )


def scopes_standing_of(scopes: OrganizationScopes) -> ScopesStanding:
    """What checks of teams and projects are answered from."""
    return ScopesStanding(
        meters={name: _standings(meters) for name, meters in scopes.in_force().items()},
        teams=scopes.teams,
        tokens=scopes.tokens,
    )


def _standings(meters: Mapping[str, MeterLimit]) -> dict[str, MeterStanding]:
    return {
        usage_key: MeterStanding(
            state=meter.state.name,
            usage=meter.usage,
            quota=meter.quota,
            limited_until=meter.state.limited_until,
            suspended_until=meter.state.suspended_until,
        )
        for usage_key, meter in meters.items()
    }


def answer_check(
    organization_id: str | None,
    usage_key: str,
    standing: OrganizationStanding | None,
    *,
    unknown: UnknownOrganizationPolicy,
    now: datetime,
) -> QuotaAnswer:
    """Answer one check.

    A limit whose end has passed allows at once, without waiting for the evaluation that will say so (L9).
    """
    meter = standing.meters.get(usage_key) if standing else None
    if standing is None or meter is None:
        revision = standing.revision if standing else None
        return QuotaAnswer(
            organization_id, usage_key, unknown == "allow", None, None, None, None, None, revision, known=False
        )
    return QuotaAnswer(organization_id, usage_key, **_said(meter, now), revision=standing.revision, known=True)


def answer_scoped_check(
    organization_id: str,
    usage_key: str,
    standing: OrganizationStanding,
    scopes: Sequence[str],
    *,
    unknown: UnknownOrganizationPolicy,
    now: datetime,
) -> QuotaAnswer:
    """Answer one check for who is bound by ``scopes`` beside the organization: limited if any of them is (L10).

    A meter that the organization does not have is unknown, whatever is set for it.
    """
    own = standing.meters.get(usage_key)
    if own is None or standing.scopes is None:
        return answer_check(organization_id, usage_key, standing, unknown=unknown, now=now)
    scope, meter = tightest(own, standing.scopes.standings(usage_key, scopes), now=now)
    return ScopedQuotaAnswer(
        organization_id, usage_key, **_said(meter, now), revision=standing.revision, known=True, scope=scope
    )


def _said(meter: MeterStanding, now: datetime) -> dict[str, Any]:
    """What an answer says of the limit that holds."""
    is_limited = meter.is_limited(now)
    return {
        "allowed": not is_limited,
        "state": meter.state if is_limited or meter.state != "limited" else "within",
        "usage": meter.usage,
        "quota": meter.quota,
        "limited_until": meter.limited_until if is_limited else None,
        "suspended_until": meter.suspended_until,
    }

"""May this happen now? The answer to a quota check, from what was last decided."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from quill_quota_limiter.domain.evaluation import OrganizationLimits
from quill_quota_limiter.domain.limit_state import StateName

UnknownOrganizationPolicy = Literal["allow", "deny"]
"""What a check is told while nothing is known of an organization or its meter. ``allow`` loses a little money for a new
customer, ``deny`` loses the customer's data; both are said openly with ``known: false``."""


@dataclass(frozen=True, slots=True)
class MeterStanding:
    """What a check needs to know of one meter."""

    state: StateName
    usage: int
    quota: int | None
    limited_until: datetime | None = None
    suspended_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class OrganizationStanding:
    """What checks need to know of one organization: a pure projection of its decided limits (L8)."""

    revision: int
    license_id: str
    meters: Mapping[str, MeterStanding]


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


def standing_of(limits: OrganizationLimits) -> OrganizationStanding | None:
    """What checks are answered from; ``None`` while the customer is unknown."""
    if limits.license_id is None:
        return None
    return OrganizationStanding(
        revision=limits.revision,
        license_id=limits.license_id,
        meters={
            usage_key: MeterStanding(
                state=meter.state.name,
                usage=meter.usage,
                quota=meter.quota,
                limited_until=meter.state.limited_until,
                suspended_until=meter.state.suspended_until,
            )
            for usage_key, meter in limits.meters.items()
        },
    )


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
    is_limited = meter.limited_until is not None and now < meter.limited_until
    return QuotaAnswer(
        organization_id=organization_id,
        usage_key=usage_key,
        allowed=not is_limited,
        state=meter.state if is_limited or meter.state != "limited" else "within",
        usage=meter.usage,
        quota=meter.quota,
        limited_until=meter.limited_until if is_limited else None,
        suspended_until=meter.suspended_until,
        revision=standing.revision,
        known=True,
    )

"""``/v1/limits/{organization}/thresholds``: at what share of a quota somebody is told."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header
from pydantic import BaseModel, ConfigDict, Field
from quill_contracts.identifiers import UsageKey
from quill_runtime.clock import Clock
from quill_runtime.problems import Problem

from quill_quota_limiter.api.authorization import Gate
from quill_quota_limiter.api.limits import known_limits, unknown_organization
from quill_quota_limiter.domain.evaluation import OrganizationLimits
from quill_quota_limiter.domain.spend_threshold import documents_of
from quill_quota_limiter.domain.threshold import ALL_METERS, DEFAULT_PERCENTS
from quill_quota_limiter.ports import LimitsStore
from quill_quota_limiter.usecases.set_thresholds import TooManyMeters, UnknownCustomer, set_thresholds
from quill_quota_limiter.wire.rules import Actor, Reason

PERCENTS_MAX: Final = 20

Authorization = Annotated[str | None, Header()]
Percent = Annotated[int, Field(ge=1, le=100, strict=True)]


class ThresholdsAsked(BaseModel):
    """Shares in percent of one meter's quota, or of all without their own; ``null`` goes back to the default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    meter: UsageKey | None = None
    percents: Annotated[list[Percent], Field(max_length=PERCENTS_MAX)] | None
    actor: Actor
    reason: Reason


def router(*, store: LimitsStore, gate: Gate, clock: Clock) -> APIRouter:
    """Reading is for whoever may see the limits, changing for operators."""
    routes = APIRouter(prefix="/v1/limits/{organization_id}/thresholds", tags=["limits"])

    @routes.get("")
    async def show(organization_id: str, authorization: Authorization = None) -> dict[str, Any]:
        """The settings in force, and what was told of each meter in this billing period."""
        caller = gate.admit(authorization)
        async with store.begin() as tx:
            return to_settings(await known_limits(tx, caller, organization_id))

    @routes.put("")
    async def change(
        organization_id: str, asked: ThresholdsAsked, authorization: Authorization = None
    ) -> dict[str, Any]:
        """Tell at other shares from now on; those reached already are told at once (L9)."""
        gate.admit_operator(authorization)
        try:
            async with store.begin() as tx:
                after = await set_thresholds(
                    organization_id,
                    asked.percents,
                    meter=asked.meter,
                    actor=asked.actor,
                    reason=asked.reason,
                    tx=tx,
                    now=clock.now(),
                )
        except UnknownCustomer as unknown:
            raise unknown_organization(400) from unknown
        except TooManyMeters as error:
            raise Problem(409, "too_many_meters", str(error), attr="meter") from error
        return to_settings(after)

    return routes


def to_settings(limits: OrganizationLimits) -> dict[str, Any]:
    """Shares and amounts in force, and what was told of each meter in this billing period."""
    return {
        "organization_id": limits.organization_id,
        "percents": list(limits.thresholds.get(ALL_METERS, DEFAULT_PERCENTS)),
        "meters": {meter: list(each) for meter, each in limits.thresholds.items() if meter != ALL_METERS},
        "told": {usage_key: list(meter.told) for usage_key, meter in limits.meters.items() if meter.told},
        "spend": {usage_key: documents_of(each) for usage_key, each in limits.spend_thresholds.items()},
        "spend_told": {
            usage_key: documents_of(meter.told_spend) for usage_key, meter in limits.meters.items() if meter.told_spend
        },
    }

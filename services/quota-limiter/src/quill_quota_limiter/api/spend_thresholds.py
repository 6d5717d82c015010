"""``PUT /v1/limits/{organization}/thresholds/spend``: at what cost of a meter somebody is told."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header
from pydantic import BaseModel, ConfigDict, Field
from quill_contracts.identifiers import Currency, UsageKey
from quill_runtime.clock import Clock
from quill_runtime.problems import Problem

from quill_quota_limiter.api.authorization import Gate
from quill_quota_limiter.api.limits import unknown_organization
from quill_quota_limiter.api.thresholds import to_settings
from quill_quota_limiter.domain.spend_threshold import ImpossibleSpend
from quill_quota_limiter.ports import LimitsStore
from quill_quota_limiter.usecases.set_spend_thresholds import set_spend_thresholds
from quill_quota_limiter.usecases.set_thresholds import TooManyMeters, UnknownCustomer
from quill_quota_limiter.wire.rules import Actor, Reason

AMOUNTS_MAX: Final = 20
AMOUNT_MINOR_MAX: Final = 10**15 - 1

AmountMinor = Annotated[int, Field(ge=1, le=AMOUNT_MINOR_MAX, strict=True)]


class SpendThresholdsAsked(BaseModel):
    """Amounts in minor units of the meter's cost in a billing period; none at all tells nothing.

    ``currency`` says what they are in and must be that of the price; left out it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    meter: UsageKey
    amounts_minor: Annotated[list[AmountMinor], Field(max_length=AMOUNTS_MAX)]
    currency: Currency | None = None
    actor: Actor
    reason: Reason


def router(*, store: LimitsStore, gate: Gate, clock: Clock) -> APIRouter:
    """Changing is for operators; ``GET …/thresholds`` shows both kinds."""
    routes = APIRouter(tags=["limits"])

    @routes.put("/v1/limits/{organization_id}/thresholds/spend")
    async def change_spend_thresholds(
        organization_id: str, asked: SpendThresholdsAsked, authorization: Annotated[str | None, Header()] = None
    ) -> dict[str, Any]:
        """Tell of other amounts from now on; those reached already are told at once (L9)."""
        gate.admit_operator(authorization)
        try:
            async with store.begin() as tx:
                after = await set_spend_thresholds(
                    organization_id,
                    asked.amounts_minor,
                    meter=asked.meter,
                    currency=asked.currency,
                    actor=asked.actor,
                    reason=asked.reason,
                    tx=tx,
                    now=clock.now(),
                )
        except UnknownCustomer as unknown:
            raise unknown_organization(400) from unknown
        except ImpossibleSpend as error:
            raise Problem(400, error.code, str(error), attr=error.attr) from error
        except TooManyMeters as error:
            raise Problem(409, "too_many_meters", str(error), attr="meter") from error
        return to_settings(after)

    return routes

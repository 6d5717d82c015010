"""``POST /v1/limits/dropped``: a capture service says what it let through and what it dropped."""

from typing import Annotated, Literal

from fastapi import APIRouter, Header
from pydantic import BaseModel, ConfigDict, Field, model_validator
from quill_contracts.identifiers import Instant, OrganizationId, Quantity, UsageKey
from quill_runtime.clock import Clock
from quill_runtime.problems import Problem

from quill_quota_limiter.api.authorization import Gate
from quill_quota_limiter.api.limits import known_limits
from quill_quota_limiter.domain.drop_report import DropReport
from quill_quota_limiter.ports import DropReportStore, LimitsStore

Text = Annotated[str, Field(min_length=1, max_length=200)]


class DroppedUsage(BaseModel):
    """What one source did with a meter of one organization in a half-open window; the same ``id`` counts once."""

    model_config = ConfigDict(extra="forbid")

    id: Text
    organization_id: OrganizationId
    usage_key: UsageKey
    source: Text
    window_start: Instant
    window_end: Instant
    allowed: Quantity
    dropped: Quantity

    @model_validator(mode="after")
    def _window_has_a_length(self) -> "DroppedUsage":
        if self.window_end <= self.window_start:
            raise ValueError("window_end must lie after window_start")
        return self


class Taken(BaseModel):
    """``repeat``: the same report was there already, and counts once."""

    id: str
    verdict: Literal["new", "repeat"]


def router(*, store: LimitsStore, drops: DropReportStore, gate: Gate, clock: Clock) -> APIRouter:
    """To be included before the routes that name an organization."""
    routes = APIRouter(tags=["limits"])

    @routes.post("/v1/limits/dropped")
    async def report_dropped(dropped: DroppedUsage, authorization: Annotated[str | None, Header()] = None) -> Taken:
        """Keep what was allowed and what was dropped; shown with the organization's limits, and billed nowhere."""
        caller = gate.admit(authorization)
        async with store.begin() as tx:
            await known_limits(tx, caller, dropped.organization_id)
        report = DropReport(report_id=dropped.id, **dropped.model_dump(exclude={"id"}))
        verdict = await drops.keep(report, now=clock.now())
        if verdict == "conflict":
            raise Problem(409, "id_reused", "this id was used for another report; choose a new one", attr="id")
        return Taken(id=dropped.id, verdict=verdict)

    return routes

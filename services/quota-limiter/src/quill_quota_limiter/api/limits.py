"""Limit states, their history and their reasons; and the rebuild of the board."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from quill_contracts.limits import LimitStates, LimitTransition
from quill_runtime.clock import Clock
from quill_runtime.problems import Problem

from quill_quota_limiter import wire
from quill_quota_limiter.api.authorization import Caller, Gate
from quill_quota_limiter.domain.evaluation import OrganizationLimits
from quill_quota_limiter.domain.limit_state import Transition, replay
from quill_quota_limiter.domain.quota_answer import standing_of
from quill_quota_limiter.ports import AnswerBoard, LimitsStore, LimitsTransaction
from quill_quota_limiter.usecases import rebuild_answers

HISTORY_MAX = 1_000

Authorization = Annotated[str | None, Header()]
Meter = Annotated[str, Query(min_length=1, max_length=200)]


def router(*, store: LimitsStore, board: AnswerBoard, gate: Gate, clock: Clock) -> APIRouter:
    """``/v1/limits/…``: states, reasons, history, rebuild."""
    routes = APIRouter(tags=["limits"])

    @routes.post("/v1/limits/rebuild")
    async def rebuild(authorization: Authorization = None) -> dict[str, Any]:
        """Put up every answer anew from the store (L8). Operators only."""
        gate.admit_operator(authorization)
        report = await rebuild_answers(store=store, board=board)
        return {
            "organizations": report.organizations,
            "removed_organizations": report.removed_organizations,
            "removed_tokens": report.removed_tokens,
            "is_complete": report.is_complete,
        }

    @routes.get("/v1/limits/{organization_id}")
    async def show_limits(organization_id: str, authorization: Authorization = None) -> LimitStates:
        """All limit states of an organization, as published on ``limits.states.v1``."""
        caller = gate.admit(authorization)
        async with store.begin() as tx:
            return wire.to_wire_states(await _known_limits(tx, caller, organization_id))

    @routes.get("/v1/limits/{organization_id}/explain")
    async def explain(
        organization_id: str, meter: Meter, at: datetime | None = None, authorization: Authorization = None
    ) -> dict[str, Any]:
        """Why a meter stands, or stood at an instant, as it does: the transition with its evidence (L7)."""
        caller = gate.admit(authorization)
        as_of = _utc(at) if at is not None else None
        async with store.begin() as tx:
            limits = await _known_limits(tx, caller, organization_id)
            log = await _log(tx, limits, meter, as_of=as_of)
        instant = as_of or clock.now()
        state = replay(log)
        if state is None:
            raise Problem(404, "no_decision", f"nothing had been decided by {instant.isoformat()}", attr="at")
        last = log[-1]
        return {
            "organization_id": organization_id,
            "usage_key": meter,
            "at": instant,
            "state": state.name,
            "since": state.since,
            "limited_until": state.limited_until,
            "suspended_until": state.suspended_until,
            "sentence": last.sentence,
            "transition": wire.to_wire_transition(last),
        }

    @routes.get("/v1/limits/{organization_id}/history")
    async def show_history(
        organization_id: str,
        meter: Meter,
        limit: Annotated[int, Query(ge=1, le=HISTORY_MAX)] = 100,
        authorization: Authorization = None,
    ) -> dict[str, list[LimitTransition]]:
        """The newest transitions of a meter, oldest first."""
        caller = gate.admit(authorization)
        async with store.begin() as tx:
            limits = await _known_limits(tx, caller, organization_id)
            log = await _log(tx, limits, meter, as_of=None)
        return {"transitions": [wire.to_wire_transition(transition) for transition in log[-limit:]]}

    return routes


async def _known_limits(tx: LimitsTransaction, caller: Caller, organization_id: str) -> OrganizationLimits:
    caller.check_names(organization_id, attr="organization_id")
    limits = (await tx.limits([organization_id])).get(organization_id)
    caller.check_owns(standing_of(limits) if limits else None, attr="organization_id")
    if limits is None or not limits.is_known:
        raise Problem(
            404, "unknown_organization", "no customer with this organization is known", attr="organization_id"
        )
    return limits


async def _log(
    tx: LimitsTransaction, limits: OrganizationLimits, meter: str, *, as_of: datetime | None
) -> list[Transition]:
    if meter not in limits.meters:
        known = ", ".join(sorted(limits.meters)) or "none"
        raise Problem(
            404, "unknown_usage_key", f"this organization has no meter {meter!r}; known: {known}", attr="meter"
        )
    return await tx.transitions(limits.organization_id, meter, as_of=as_of)


def _utc(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise Problem(
            400, "invalid_input", "at: give the instant with its offset, e.g. 2026-10-01T00:00:00Z", attr="at"
        )
    return at.astimezone(UTC)

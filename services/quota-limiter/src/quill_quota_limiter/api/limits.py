"""Limit states, their history and their reasons; and the rebuild of the board."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel
from quill_contracts.limits import LimitStates, LimitTransition
from quill_runtime.clock import Clock
from quill_runtime.problems import Problem

from quill_quota_limiter import wire
from quill_quota_limiter.api.authorization import Caller, Gate
from quill_quota_limiter.domain.drop_report import DropTotals
from quill_quota_limiter.domain.evaluation import OrganizationLimits
from quill_quota_limiter.domain.limit_state import Evidence, LimitState, LogEntry, ReasonChange, Transition, replay
from quill_quota_limiter.domain.meter_limit import MeterLimit
from quill_quota_limiter.domain.quota_answer import standing_of
from quill_quota_limiter.domain.scope import ORGANIZATION
from quill_quota_limiter.ports import AnswerBoard, DropReportStore, LimitsStore, LimitsTransaction
from quill_quota_limiter.usecases.answers import rebuild_answers
from quill_quota_limiter.usecases.drift import DriftReport, find_drift
from quill_quota_limiter.usecases.explain import PresentReason, present_reason
from quill_quota_limiter.wire.limit_log import LimitReasonChange, to_wire_reason

HISTORY_MAX = 1_000
SCOPES_LISTED_MAX = 20

Authorization = Annotated[str | None, Header()]
Meter = Annotated[str, Query(min_length=1, max_length=200)]
Scope = Annotated[
    str | None, Query(max_length=205, description="team:… or project:…; the organization's own limit if absent")
]


class History(BaseModel):
    """A page of a limit's log: transitions, and changes of reason that moved no state."""

    transitions: list[LimitTransition]
    reason_changes: list[LimitReasonChange]
    next_after: int | None


class ShownLimits(LimitStates):
    """Limit states, and by meter what capture services reported of the present billing period."""

    dropped: dict[str, DropTotals]


def router(*, store: LimitsStore, board: AnswerBoard, drops: DropReportStore, gate: Gate, clock: Clock) -> APIRouter:
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

    @routes.get("/v1/limits/drift")
    async def show_drift(authorization: Authorization = None) -> DriftReport:
        """Compare Redis with Postgres, page by page. Operators only."""
        gate.admit_operator(authorization)
        return await find_drift(store=store, board=board)

    @routes.post("/v1/limits/drift")
    async def repair_drift(authorization: Authorization = None) -> DriftReport:
        """Compare and put right what differs; the answer says what did. Operators only."""
        gate.admit_operator(authorization)
        return await find_drift(store=store, board=board, repair=True)

    @routes.get("/v1/limits/{organization_id}")
    async def show_limits(organization_id: str, authorization: Authorization = None) -> ShownLimits:
        """All limit states of an organization, as published on ``limits.states.v1``, and what was dropped."""
        caller = gate.admit(authorization)
        async with store.begin() as tx:
            limits = await known_limits(tx, caller, organization_id)
        states = wire.to_wire_states(limits)
        dropped = await drops.totals(organization_id, start=states.period_start, end=states.period_end)
        return ShownLimits(**states.model_dump(), dropped=dropped)

    @routes.get("/v1/limits/{organization_id}/explain")
    async def explain(
        organization_id: str,
        meter: Meter,
        at: datetime | None = None,
        scope: Scope = None,
        authorization: Authorization = None,
    ) -> dict[str, Any]:
        """Why a meter stands, or stood at an instant, as it does (L7).

        Without ``at`` by the facts and the rule of now, also if no state has changed since; with ``at`` by the newest
        entry of the log at that instant. ``transition`` is the change that led to the state.
        """
        caller = gate.admit(authorization)
        now = clock.now()
        instant = _utc(at, attr="at") or now
        if instant > now:
            raise Problem(400, "invalid_input", "at: lies ahead; ask /what-if what would happen", attr="at")
        async with store.begin() as tx:
            limits = await known_limits(tx, caller, organization_id)
            _check_meter(limits, meter, scope)
            log = await tx.log(organization_id, meter, scope=scope, as_of=None if at is None else instant)
            present = None if at is not None else await present_reason(limits, meter, scope=scope, tx=tx, now=now)
        state = replay(log)
        if state is None:
            raise Problem(404, "no_decision", f"nothing had been decided by {instant.isoformat()}", attr="at")
        reason = _reason(log, state, present)
        evidence = reason.evidence
        totals = await drops.totals(organization_id, start=evidence.period_start, end=evidence.period_end)
        last = [entry for entry in log if isinstance(entry, Transition)][-1]
        return {**_explanation(last, state, reason, instant=instant), "dropped": totals.get(meter)}

    @routes.get("/v1/limits/{organization_id}/history")
    async def show_history(
        *,
        organization_id: str,
        meter: Meter,
        start: Annotated[datetime | None, Query(alias="from")] = None,
        end: Annotated[datetime | None, Query(alias="to")] = None,
        scope: Scope = None,
        after: Annotated[int, Query(ge=0, le=2**63 - 1)] = 0,
        limit: Annotated[int, Query(ge=1, le=HISTORY_MAX)] = 100,
        authorization: Authorization = None,
    ) -> History:
        """What happened to a meter's limit in ``[from, to)``, oldest first, in pages."""
        caller = gate.admit(authorization)
        first, stop = _utc(start, attr="from"), _utc(end, attr="to")
        if first is not None and stop is not None and first >= stop:
            raise Problem(400, "invalid_input", "to: must be after from", attr="to")
        async with store.begin() as tx:
            limits = await known_limits(tx, caller, organization_id)
            _check_meter(limits, meter, scope)
            page = await tx.log_page(
                organization_id, meter, scope=scope, after=after, start=first, end=stop, at_most=limit
            )
        return History(
            transitions=[wire.to_wire_transition(entry) for _, entry in page if isinstance(entry, Transition)],
            reason_changes=[to_wire_reason(entry) for _, entry in page if isinstance(entry, ReasonChange)],
            next_after=page[-1][0] if len(page) == limit else None,
        )

    return routes


@dataclass(frozen=True, slots=True)
class _Reason:
    """The rule that decides, since when, and everything it looks at."""

    rule: str
    rule_version: int
    since: datetime
    sentence: str
    evidence: Evidence


def _reason(log: Sequence[LogEntry], state: LimitState, present: PresentReason | None) -> _Reason:
    """By the facts of now where there are some, else by the log.

    Where the facts of now say another state, which is about to be decided, the log says why the present one holds.
    """
    last = log[-1]
    if present is None or present.decision.differs_from(state):
        return _Reason(last.rule, last.rule_version, last.at, last.sentence, last.evidence)
    decision = present.decision
    is_new = decision.rule != last.rule and not decision.is_continuation
    return _Reason(
        rule=decision.rule if is_new else last.rule,
        rule_version=decision.rule_version if is_new else last.rule_version,
        since=present.evidence.evaluated_at if is_new else last.at,
        sentence=decision.sentence,
        evidence=present.evidence,
    )


def _explanation(last: Transition, state: LimitState, reason: _Reason, *, instant: datetime) -> dict[str, Any]:
    """The sentence for a person, the evidence for a machine, and where to read on."""
    organization, meter = quote(last.organization_id, safe=""), quote(last.usage_key, safe="")
    of_scope = "" if last.scope is None else f"&scope={quote(last.scope, safe='')}"
    decided_at = quote(reason.evidence.evaluated_at.isoformat(), safe="")
    return {
        "organization_id": last.organization_id,
        "usage_key": last.usage_key,
        "scope": last.scope or ORGANIZATION,
        "at": instant,
        "state": state.name,
        "since": state.since,
        "limited_until": state.limited_until,
        "suspended_until": state.suspended_until,
        "sentence": reason.sentence,
        "rule": reason.rule,
        "rule_version": reason.rule_version,
        "rule_since": reason.since,
        "evidence": wire.to_wire_evidence(reason.evidence),
        "transition": wire.to_wire_transition(last),
        "links": {
            "usage_as_of": f"/v1/usage/{organization}/as-of?meter={meter}&at={decided_at}",
            "usage_explain": f"/v1/usage/{organization}/explain?meter={meter}&at={decided_at}",
            "rules": f"/v1/limits/rules/{reason.rule_version}",
            "history": f"/v1/limits/{organization}/history?meter={meter}{of_scope}",
        },
    }


async def known_limits(tx: LimitsTransaction, caller: Caller, organization_id: str) -> OrganizationLimits:
    """What is decided about an organization that the caller may see.

    Raises:
        Forbidden: the caller may not see it.
        Problem: 404 when no such customer is known.
    """
    caller.check_names(organization_id, attr="organization_id")
    limits = (await tx.limits([organization_id])).get(organization_id)
    caller.check_owns(standing_of(limits) if limits else None, attr="organization_id")
    if limits is None or not limits.is_known:
        raise unknown_organization(404)
    return limits


def unknown_organization(status: int) -> Problem:
    """Nobody heard of the customer: 404 for who asks, 400 for who wants to set something."""
    return Problem(
        status, "unknown_organization", "no customer with this organization is known", attr="organization_id"
    )


def _check_meter(limits: OrganizationLimits, meter: str, scope: str | None) -> None:
    meters: Mapping[str, MeterLimit] = limits.meters
    if scope is not None:
        scopes = limits.scopes.limits if limits.scopes is not None else {}
        if scope not in scopes:
            known = ", ".join(sorted(scopes)[:SCOPES_LISTED_MAX]) or "none"
            raise Problem(
                404, "unknown_scope", f"this organization never had a scope {scope!r}; known: {known}", attr="scope"
            )
        meters = scopes[scope]
    if meter not in meters:
        known = ", ".join(sorted(meters)) or "none"
        whose = "this organization" if scope is None else scope
        raise Problem(404, "unknown_usage_key", f"{whose} has no meter {meter!r}; known: {known}", attr="meter")


def _utc(instant: datetime | None, *, attr: str) -> datetime | None:
    if instant is None:
        return None
    if instant.tzinfo is None:
        raise Problem(
            400, "invalid_input", f"{attr}: give the instant with its offset, e.g. 2026-10-01T00:00:00Z", attr=attr
        )
    return instant.astimezone(UTC)

"""``/v1/limits/rules/{version}``: run a version in the shadow, read what it would change, activate or discard it."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query
from quill_runtime.clock import Clock
from quill_runtime.problems import Problem

from quill_quota_limiter.api.authorization import Gate
from quill_quota_limiter.domain.rulebook import RulesConflict, RulesStanding
from quill_quota_limiter.ports import LimitsStore, ShadowPlace, ShadowRow, ShadowTally
from quill_quota_limiter.usecases.change_rules import activate, discard_shadow, start_shadow
from quill_quota_limiter.wire.rules import RuleCommand, to_wire_standing

DIFFERENCES_PAGE_MAX: Final = 500
_SEPARATOR: Final = "|"

Authorization = Annotated[str | None, Header()]
Change = Callable[..., Awaitable[RulesStanding]]
"""`start_shadow`, `discard_shadow` or `activate`."""


def router(*, store: LimitsStore, gate: Gate, clock: Clock) -> APIRouter:
    """What is done with a version; every call needs an operator's token, every change a person and a reason."""
    routes = APIRouter(prefix="/v1/limits/rules/{version}", tags=["limit rules"])

    async def do(change: Change, version: int, asked: RuleCommand) -> dict[str, Any]:
        try:
            async with store.begin() as tx:
                after = await change(version, actor=asked.actor, reason=asked.reason, tx=tx, now=clock.now())
        except RulesConflict as conflict:
            raise Problem(409, "rules_conflict", str(conflict), attr="version") from conflict
        return to_wire_standing(after)

    @routes.post("/shadow")
    async def shadow(version: int, asked: RuleCommand, authorization: Authorization = None) -> dict[str, Any]:
        """Run a version beside the one in force; it changes nobody's limits."""
        gate.admit_operator(authorization)
        return await do(start_shadow, version, asked)

    @routes.post("/discard")
    async def discard(version: int, asked: RuleCommand, authorization: Authorization = None) -> dict[str, Any]:
        """Stop a shadow run."""
        gate.admit_operator(authorization)
        return await do(discard_shadow, version, asked)

    @routes.post("/activate")
    async def put_in_force(version: int, asked: RuleCommand, authorization: Authorization = None) -> dict[str, Any]:
        """Let a version decide; everybody is decided anew, page by page, until ``is_settled``."""
        gate.admit_operator(authorization)
        return await do(activate, version, asked)

    @routes.get("/shadow")
    async def report(
        version: int,
        after: Annotated[str | None, Query(max_length=500)] = None,
        limit: Annotated[int, Query(ge=1, le=DIFFERENCES_PAGE_MAX)] = 100,
        authorization: Authorization = None,
    ) -> dict[str, Any]:
        """Where the newest shadow run decided otherwise: in numbers, and one by one with evidence."""
        gate.admit_operator(authorization)
        place = _place(after)
        async with store.begin() as tx:
            standing = await tx.rulebook.standing()
            page = await tx.rulebook.shadow_page(standing.shadow_run, after=place, at_most=limit)
            tally = await tx.rulebook.shadow_tally(standing.shadow_run)
        if version != standing.last_shadow:
            last = "none ever ran" if standing.last_shadow is None else f"version {standing.last_shadow} ran last"
            detail = f"rule version {version} is not the one that ran in the shadow last; {last}"
            raise Problem(404, "no_shadow_run", detail, attr="version")
        return {
            **to_wire_standing(standing),
            "version": version,
            "is_running": version == standing.shadow,
            **_tally(tally, standing),
            "results": [_difference(row) for row in page],
            "next_after": _SEPARATOR.join(map(str, page[-1].place)) if len(page) == limit else None,
        }

    return routes


def _tally(tally: ShadowTally, standing: RulesStanding) -> dict[str, Any]:
    differing = sum(now for *_, now, _ in tally.groups)
    settled = "" if standing.walked_to is None else "; not everybody has been decided yet"
    return {
        "organizations": tally.organizations,
        "differing_now": differing,
        "is_full": tally.is_full,
        "sentence": f"{differing:,} limits of {tally.organizations:,} organizations would stand otherwise{settled}",
        "groups": [
            {"usage_key": meter, "state": live, "shadow_state": shadow, "now": now, "ever": ever}
            for meter, live, shadow, now, ever in tally.groups
        ],
    }


def _difference(row: ShadowRow) -> dict[str, Any]:
    organization_id, usage_key, *_ = row.place
    return {
        "organization_id": organization_id,
        "usage_key": usage_key,
        "at": row.at,
        "ended_at": row.ended_at,
        "in_force": row.live,
        "shadow": row.shadow,
        "evidence": row.evidence,
    }


def _place(after: str | None) -> ShadowPlace | None:
    if after is None:
        return None
    try:
        organization_id, usage_key, live, shadow = after.split(_SEPARATOR)
        return organization_id, usage_key, int(live), int(shadow)
    except ValueError as error:
        detail = "after: give the next_after of an earlier answer"
        raise Problem(400, "invalid_input", detail, attr="after") from error

"""``/v1/limits/rules``: the numbers limits are decided with, version by version. Operators only."""

from typing import Annotated, Any

from fastapi import APIRouter, Header
from quill_runtime.clock import Clock
from quill_runtime.problems import Problem

from quill_quota_limiter.api.authorization import Gate
from quill_quota_limiter.domain.rulebook import RulesConflict
from quill_quota_limiter.ports import LimitsStore
from quill_quota_limiter.usecases.change_rules import add_rules
from quill_quota_limiter.wire.rules import RulesAsked, to_document, to_wire_standing, to_wire_version

Authorization = Annotated[str | None, Header()]


def router(*, store: LimitsStore, gate: Gate, clock: Clock) -> APIRouter:
    """Rule versions: list, show, add. To be mounted before ``/v1/limits/{organization_id}``."""
    routes = APIRouter(prefix="/v1/limits/rules", tags=["limit rules"])

    @routes.get("")
    async def list_versions(authorization: Authorization = None) -> dict[str, Any]:
        """Every version with what it does now, oldest first."""
        gate.admit_operator(authorization)
        async with store.begin() as tx:
            standing = await tx.rulebook.standing()
            versions = await tx.rulebook.versions()
        return {
            **to_wire_standing(standing),
            "results": [to_wire_version(version, standing) for version in versions],
        }

    @routes.post("", status_code=201)
    async def add(asked: RulesAsked, authorization: Authorization = None) -> dict[str, Any]:
        """Add a table as the next version. The same numbers again are a repeat, and answered with their version."""
        gate.admit_operator(authorization)
        document = to_document(asked.document)
        try:
            async with store.begin() as tx:
                added = await add_rules(document, actor=asked.actor, reason=asked.reason, tx=tx, now=clock.now())
                standing = await tx.rulebook.standing()
        except RulesConflict as conflict:
            raise Problem(409, "rules_conflict", str(conflict)) from conflict
        return {**to_wire_version(added.version, standing), "is_repeat": added.is_repeat}

    @routes.get("/events")
    async def list_events(authorization: Authorization = None) -> dict[str, Any]:
        """Who added, started, discarded and activated which version when, and why (L20)."""
        gate.admit_operator(authorization)
        async with store.begin() as tx:
            events = await tx.rulebook.events()
        return {
            "results": [
                {"sequence": e.version, "type": e.type, "actor": e.actor, "at": e.occurred_at, **e.data} for e in events
            ]
        }

    @routes.get("/{version}")
    async def show(version: int, authorization: Authorization = None) -> dict[str, Any]:
        """One version with its whole table."""
        gate.admit_operator(authorization)
        async with store.begin() as tx:
            standing = await tx.rulebook.standing()
            versions = await tx.rulebook.versions()
        for known in versions:
            if known.version == version:
                return to_wire_version(known, standing)
        numbers = ", ".join(str(known.version) for known in versions)
        raise Problem(404, "unknown_version", f"there is no rule version {version}; known: {numbers}", attr="version")

    return routes

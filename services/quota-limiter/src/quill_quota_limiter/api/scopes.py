"""``/v1/limits/{organization}/scopes``: what the teams and projects of an organization may use."""

from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Header
from quill_runtime.clock import Clock
from quill_runtime.problems import Problem

from quill_quota_limiter.api.authorization import Gate
from quill_quota_limiter.api.limits import known_limits, unknown_organization
from quill_quota_limiter.domain.evaluation import OrganizationLimits
from quill_quota_limiter.domain.organization_scopes import OrganizationScopes
from quill_quota_limiter.ports import AnswerBoard, BoardUnavailable, LimitsStore
from quill_quota_limiter.usecases.answers import publish_answers
from quill_quota_limiter.usecases.set_scopes import ImpossibleCap, SettingsConflict, set_scopes
from quill_quota_limiter.usecases.set_thresholds import UnknownCustomer
from quill_quota_limiter.wire.scope_settings import MeaninglessScope, ScopesAsked, to_settings
from quill_quota_limiter.wire.scope_states import to_wire_state

Authorization = Annotated[str | None, Header()]

log = structlog.get_logger(__name__)


def router(*, store: LimitsStore, board: AnswerBoard, gate: Gate, clock: Clock) -> APIRouter:
    """Reading is for whoever may see the limits, changing for operators."""
    routes = APIRouter(prefix="/v1/limits/{organization_id}/scopes", tags=["limits"])

    @routes.get("")
    async def show(organization_id: str, authorization: Authorization = None) -> dict[str, Any]:
        """The settings in force, and where each of their limits stands."""
        caller = gate.admit(authorization)
        async with store.begin() as tx:
            return _shown(await known_limits(tx, caller, organization_id))

    @routes.put("")
    async def change(organization_id: str, asked: ScopesAsked, authorization: Authorization = None) -> dict[str, Any]:
        """Put the whole list in place of the one that was read; it holds at once, in both directions (L9)."""
        gate.admit_operator(authorization)
        try:
            async with store.begin() as tx:
                after = await set_scopes(
                    organization_id,
                    to_settings(asked),
                    actor=asked.actor,
                    reason=asked.reason,
                    tx=tx,
                    now=clock.now(),
                )
        except UnknownCustomer as unknown:
            raise unknown_organization(400) from unknown
        except SettingsConflict as conflict:
            raise Problem(409, "revision_conflict", str(conflict), attr="revision") from conflict
        except (MeaninglessScope, ImpossibleCap) as error:
            raise Problem(400, "invalid_input", str(error), attr=error.attr) from error
        try:
            await publish_answers([organization_id], store=store, board=board)
        except BoardUnavailable as error:
            # Decided and kept, and due again in a moment: then the answer goes up (L8).
            log.warning("scopes.board_unavailable", organization_id=organization_id, error=repr(error))
        return _shown(after)

    return routes


def _shown(limits: OrganizationLimits) -> dict[str, Any]:
    scopes = limits.scopes or OrganizationScopes()
    return {
        "organization_id": limits.organization_id,
        **scopes.settings.document(),
        "states": {
            name: {usage_key: to_wire_state(meter).model_dump(mode="json") for usage_key, meter in meters.items()}
            for name, meters in scopes.in_force().items()
        },
    }

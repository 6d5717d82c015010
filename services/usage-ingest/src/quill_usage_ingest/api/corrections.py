"""``/v1/usage/{organization}/corrections``: void, replace, take back, each with a preview (L3, L20)."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi import APIRouter
from quill_runtime.auth import ApiTokens
from quill_runtime.clock import Clock
from quill_runtime.database import Database, Transaction
from quill_runtime.problems import Problem

from quill_usage_ingest.api.archived import refusing_archived
from quill_usage_ingest.api.callers import Authorization, not_known
from quill_usage_ingest.domain.correction import InvalidCorrection
from quill_usage_ingest.ports import TooManyCounters
from quill_usage_ingest.store.claims import TooManyClaims, UnreadableClaim
from quill_usage_ingest.store.corrections import PostgresCorrections
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.meter_events import PostgresEvents
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.team_marks import sweep_organizations
from quill_usage_ingest.usecases.correct_usage import (
    Corrected,
    CorrectionConflict,
    UnknownCorrection,
    UnknownOrganization,
    apply_correction,
    revert_correction,
)
from quill_usage_ingest.usecases.rebuild_windows import OverlappingWindows
from quill_usage_ingest.wire.corrections import (
    CorrectionAsked,
    ReversionAsked,
    from_wire_correction,
    to_wire_correction,
)

Work = Callable[[PostgresUsage, PostgresEvents, PostgresCorrections], Awaitable[Corrected]]


class _Previewed(Exception):
    """Carries the answer out of a transaction that is to be given up."""

    def __init__(self, corrected: Corrected) -> None:
        super().__init__("a preview changes nothing")
        self.corrected = corrected


def router(*, database: Database, tokens: ApiTokens, clock: Clock, slots: CounterSlots) -> APIRouter:
    """Corrections; every call needs a token with the scope ``operator``."""
    routes = APIRouter(prefix="/v1/usage/{organization_id}/corrections", tags=["corrections"])

    async def run(work: Work, *, is_preview: bool) -> dict[str, Any]:
        corrected = await _corrected(database, slots, work, is_preview=is_preview)
        return {
            **to_wire_correction(corrected.correction),
            "is_preview": is_preview,
            "is_repeat": corrected.is_repeat,
        }

    @routes.post("")
    async def correct(
        organization_id: str, asked: CorrectionAsked, authorization: Authorization = None
    ) -> dict[str, Any]:
        """Void reports or events or replace windows, all or none; with ``preview`` only say what that would change."""
        tokens.require(authorization, "operator")
        order = from_wire_correction(asked, organization_id)
        now = clock.now()
        return await run(
            lambda usage, events, corrections: apply_correction(
                order, tx=usage, events=events, corrections=corrections, now=now
            ),
            is_preview=asked.preview,
        )

    @routes.get("")
    async def list_corrections(organization_id: str, authorization: Authorization = None) -> dict[str, Any]:
        """All corrections of an organization, newest first, with those that were taken back."""
        tokens.require(authorization, "operator")
        async with database.begin() as transaction:
            if await PostgresUsage(transaction, slots).organization(organization_id) is None:
                raise not_known()
            found = await PostgresCorrections(transaction).of_organization(organization_id)
        return {"results": [to_wire_correction(each) for each in reversed(found)]}

    @routes.post("/{correction_id}/revert")
    async def revert(
        organization_id: str, correction_id: str, asked: ReversionAsked, authorization: Authorization = None
    ) -> dict[str, Any]:
        """Take a correction back; what the sources said counts again."""
        tokens.require(authorization, "operator")
        now = clock.now()
        return await run(
            lambda usage, events, corrections: revert_correction(
                organization_id,
                correction_id,
                actor=asked.actor,
                reason=asked.reason,
                tx=usage,
                events=events,
                corrections=corrections,
                now=now,
            ),
            is_preview=asked.preview,
        )

    return routes


async def _corrected(database: Database, slots: CounterSlots, work: Work, *, is_preview: bool) -> Corrected:
    """Do the work in one transaction, which is given up after a preview; what is refused names its field."""

    async def in_transaction(transaction: Transaction) -> Corrected:
        corrected = await work(
            PostgresUsage(transaction, slots), PostgresEvents(transaction), PostgresCorrections(transaction)
        )
        if is_preview:
            raise _Previewed(corrected)
        await sweep_organizations(transaction.connection, {corrected.correction.order.organization_id})
        return corrected

    try:
        async with refusing_archived():
            return await database.run(in_transaction)
    except _Previewed as previewed:
        return previewed.corrected
    except _REFUSED as error:
        raise _problem(error) from error


_REFUSED: Final = (
    UnknownOrganization,
    UnknownCorrection,
    CorrectionConflict,
    InvalidCorrection,
    OverlappingWindows,
    TooManyClaims,
    UnreadableClaim,
    TooManyCounters,
)


def _problem(error: Exception) -> Problem:
    """What was refused, with the field and the fix."""
    match error:
        case UnknownOrganization():
            return not_known()
        case UnknownCorrection():
            detail = "correction_id: this organization has no such correction"
            return Problem(400, "unknown_correction", detail, attr="correction_id")
        case CorrectionConflict():
            return Problem(409, "correction_conflict", f"{error}; choose another id", attr="correction_id")
        case InvalidCorrection():
            return Problem(400, error.code, str(error), attr=error.attribute)
        case OverlappingWindows():
            detail = f"correction_id: {error}; void the later reports first"
            return Problem(409, "overlapping_window", detail, attr="correction_id")
        case _:
            is_full = isinstance(error, TooManyCounters)
            return Problem(400 if is_full else 409, "too_many_counters" if is_full else "cannot_be_rebuilt", str(error))

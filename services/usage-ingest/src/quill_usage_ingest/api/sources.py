"""``/v1/sources``: who reports, how far each has told everything, who is silent, what need not be waited for (L20)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path
from quill_contracts.identifiers import SourceName
from quill_runtime.auth import ApiTokens, Forbidden, Keyring, bearer, looks_signed
from quill_runtime.clock import Clock
from quill_runtime.database import Database, Transaction
from quill_runtime.outbox import Outbox
from quill_runtime.problems import Problem

from quill_usage_ingest.api.callers import Authorization, license_caller
from quill_usage_ingest.domain.usage_book import CLOCK_TOLERANCE
from quill_usage_ingest.domain.usage_source import NotBack, UsageSource, Waiver, WaiverRefused
from quill_usage_ingest.domain.watermark import WatermarkClaim
from quill_usage_ingest.store.heard_sources import HeardSources
from quill_usage_ingest.store.source_views import PostgresSourceViews
from quill_usage_ingest.store.sources import PostgresSources
from quill_usage_ingest.usecases.change_source import Decide, change_source
from quill_usage_ingest.wire.sources import (
    DeclarationAsked,
    TakeBackAsked,
    WaiverAsked,
    WatermarkAsked,
    to_view_source,
)

Source = Annotated[SourceName, Path()]
WaiverId = Annotated[str, Path(min_length=1, max_length=200)]
_REFUSED_AS: Final[Mapping[str, int]] = {"unknown_waiver": 400, "too_many_waivers": 400}


def router(
    *, database: Database, outbox: Outbox, keyring: Keyring, tokens: ApiTokens, clock: Clock, heard: HeardSources
) -> APIRouter:
    """Sources; operators change them, services read them, a license reads and speaks for its own."""
    routes = APIRouter(prefix="/v1/sources", tags=["sources"])
    desk = _Desk(database, outbox, keyring, tokens)
    _add_reading(routes, desk=desk, clock=clock)
    _add_telling(routes, desk=desk, clock=clock, heard=heard)
    _add_waiving(routes, desk=desk, clock=clock)
    return routes


@dataclass(frozen=True, slots=True)
class _Desk:
    """What all routes need: who is asking, and how a source is changed."""

    database: Database
    outbox: Outbox
    keyring: Keyring
    tokens: ApiTokens

    async def change(self, source: str, decide: Decide) -> dict[str, Any]:
        async def work(transaction: Transaction) -> dict[str, Any]:
            tx = PostgresSources(transaction, self.outbox)
            return await _view(await change_source(source, decide, tx=tx), tx)

        try:
            return await self.database.run(work)
        except WaiverRefused as error:
            status = _REFUSED_AS.get(error.code, 409)
            raise Problem(status, error.code, str(error), attr="waiver_id") from error
        except NotBack as error:
            raise Problem(400, "invalid_input", str(error), attr="complete_through") from error

    def require_own(self, source: str, authorization: str | None, now: datetime) -> str:
        """The license that reports under this source (L18)."""
        caller = license_caller(authorization, self.keyring, now)
        if caller.attributes["source"] != source:
            detail = "source: this license does not report under this source"
            raise Forbidden("permission_denied", detail, attr="source")
        return caller.key_id


def _add_reading(routes: APIRouter, *, desk: _Desk, clock: Clock) -> None:
    @routes.get("")
    async def list_sources(authorization: Authorization = None) -> dict[str, Any]:
        """Every known source."""
        desk.tokens.require(authorization, "operator", "service")
        async with desk.database.begin() as transaction:
            tx = PostgresSourceViews(transaction)
            waiting: dict[str, list[WatermarkClaim]] = {}
            for claim in await tx.waiting_claims():
                waiting.setdefault(claim.source, []).append(claim)
            known = await tx.sources()
        return {"results": [to_view_source(held, waiting.get(name, ())) for name, held in known.items()]}

    @routes.get("/{source}")
    async def show_source(source: Source, authorization: Authorization = None) -> dict[str, Any]:
        """One source, for operators, services, and the license that reports under it."""
        if looks_signed(bearer(authorization)):
            desk.require_own(source, authorization, clock.now())
        else:
            desk.tokens.require(authorization, "operator", "service")
        async with desk.database.begin() as transaction:
            tx = PostgresSourceViews(transaction)
            held = (await tx.sources([source])).get(source)
            if held is None:
                raise Problem(404, "not_found", "source: nothing was heard of it and nobody declared it", attr="source")
            return await _view(held, tx)


def _add_telling(routes: APIRouter, *, desk: _Desk, clock: Clock, heard: HeardSources) -> None:
    @routes.put("/{source}")
    async def declare(source: Source, asked: DeclarationAsked, authorization: Authorization = None) -> dict[str, Any]:
        """Say whether a source is expected, how long it may be silent, and whether it has retired."""
        desk.tokens.require(authorization, "operator")
        now = clock.now()
        return await desk.change(source, lambda held: held.declare(**asked.model_dump(), now=now))

    @routes.post("/{source}/watermark")
    async def tell(source: Source, asked: WatermarkAsked, authorization: Authorization = None) -> dict[str, Any]:
        """Say that a source has sent everything up to an instant: it counts once all that was sent has been entered.

        With ``reset`` an operator takes the watermark back, at once.
        """
        now = clock.now()
        if looks_signed(bearer(authorization)):
            actor, reason = f"license:{desk.require_own(source, authorization, now)}", ""
            if asked.reset:
                raise Forbidden("permission_denied", "reset: only an operator takes a watermark back", attr="reset")
        else:
            desk.tokens.require(authorization, "operator")
            actor, reason = _person(asked)
        if asked.reset:
            through = asked.complete_through
            return await desk.change(source, lambda held: held.set_back(through, actor=actor, reason=reason, now=now))
        claim = WatermarkClaim(source, _told(asked, now), as_of=now, origin="api", actor=actor, reason=reason)

        async def work(transaction: Transaction) -> dict[str, Any]:
            tx = PostgresSources(transaction, desk.outbox)
            await tx.add_claims([claim], now=now)
            return await _view((await tx.lock_sources([source]))[source], tx)

        answer = await desk.database.run(work)
        heard.note(source, now)
        return answer


def _add_waiving(routes: APIRouter, *, desk: _Desk, clock: Clock) -> None:
    @routes.post("/{source}/waivers")
    async def waive(source: Source, asked: WaiverAsked, authorization: Authorization = None) -> dict[str, Any]:
        """A named person's word that periods may close without this source; the same id again changes nothing."""
        desk.tokens.require(authorization, "operator")
        waiver = Waiver(**asked.model_dump(), at=clock.now())
        return await desk.change(source, lambda held: held.waive(waiver))

    @routes.post("/{source}/waivers/{waiver_id}/take-back")
    async def take_back(
        source: Source, waiver_id: WaiverId, asked: TakeBackAsked, authorization: Authorization = None
    ) -> dict[str, Any]:
        """Take a waiver back; what was closed by it stays closed."""
        desk.tokens.require(authorization, "operator")
        now = clock.now()
        return await desk.change(
            source, lambda held: held.take_back(waiver_id, actor=asked.actor, reason=asked.reason, now=now)
        )


def _told(asked: WatermarkAsked, now: datetime) -> datetime:
    if asked.complete_through is None:
        raise Problem(400, "required", "complete_through: give an instant", attr="complete_through")
    if asked.complete_through > now + CLOCK_TOLERANCE:
        detail = f"complete_through: is more than {CLOCK_TOLERANCE.days} days ahead of {now.isoformat()}"
        raise Problem(400, "watermark_in_the_future", detail, attr="complete_through")
    return asked.complete_through


def _person(asked: WatermarkAsked) -> tuple[str, str]:
    if asked.actor is None:
        raise Problem(400, "required", "actor: say who says so (L20)", attr="actor")
    if asked.reason is None:
        raise Problem(400, "required", "reason: say why (L20)", attr="reason")
    return asked.actor, asked.reason


async def _view(source: UsageSource, tx: PostgresSourceViews) -> dict[str, Any]:
    return to_view_source(source, await tx.waiting_claims(source.source))

"""``/v1/meter-events``: events in, one or up to 1,000 at a time, and what was kept of them (L4, L5, L18)."""

import base64
import binascii
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from quill_contracts.identifiers import Instant
from quill_runtime.auth import ApiTokens, Keyring, bearer, looks_signed
from quill_runtime.clock import Clock
from quill_runtime.database import Database, Transaction
from quill_runtime.problems import Problem

from quill_usage_ingest.api.callers import Authorization, arriving_license, require_reader
from quill_usage_ingest.domain.event_book import EventOutcome
from quill_usage_ingest.domain.meter_event import Moment
from quill_usage_ingest.domain.usage_book import YEARS, Refusal
from quill_usage_ingest.ports import Arrival, ArrivedEvent
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.heard_sources import HeardSources
from quill_usage_ingest.store.meter_events import PostgresEvents
from quill_usage_ingest.store.parked_reports import UNKNOWN_ORGANIZATION
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.usecases.accounts import find_account
from quill_usage_ingest.usecases.record_events import record_events
from quill_usage_ingest.wire.meter_events import (
    InvalidEvent,
    from_wire_event,
    on_account,
    split_batch,
    to_wire_kept_events,
)

INTAKE: Final = "http"
SINGLE: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
PLAIN: Final = "application/json"
PAGE_MAX: Final = 500
TYPE_MAX: Final = 200
DAYS_SHOWN: Final = timedelta(days=31)
"""What is looked through when no span is asked for."""


@dataclass(frozen=True, slots=True)
class LicenseClaim:
    """Which license speaks, and the one organization its token names."""

    license_id: str
    organization_id: str


Answered = tuple[ArrivedEvent | None, EventOutcome | Refusal]


def router(
    *,
    database: Database,
    keyring: Keyring,
    tokens: ApiTokens,
    clock: Clock,
    slots: CounterSlots,
    heard: HeardSources,
) -> APIRouter:
    """Events in, and the kept ones page by page."""
    routes = APIRouter(prefix="/v1/meter-events", tags=["meter events"])

    @routes.post("")
    async def take(request: Request, authorization: Authorization = None) -> dict[str, Any]:
        """Keep and count events, durably before the answer: for each ``accepted``, ``duplicate`` or ``refused``.

        One event alone that is refused is answered 400; of a batch the others are kept, and the refused ones are
        named with their attribute.
        """
        now = clock.now()
        claim = None
        if looks_signed(bearer(authorization)):
            caller = await arriving_license(authorization, keyring, now)
            claim = LicenseClaim(caller.key_id, caller.claims["organization_id"])
        else:
            tokens.require(authorization, "operator", "service")
        try:
            is_batch, bodies = _bodies(await request.body(), request.headers.get("content-type", ""))
        except InvalidEvent as error:
            raise Problem(400, error.code, str(error), attr=error.attribute) from error
        answered = await database.run(lambda transaction: _take(transaction, bodies, claim=claim, slots=slots, now=now))
        if not is_batch and isinstance(refusal := answered[0][1], Refusal):
            status = 403 if refusal.code == _FOREIGN.code else 400
            raise Problem(status, refusal.code, refusal.detail, attr=refusal.attribute or None)
        for source in {item.event.source for item, outcome in answered if item and not isinstance(outcome, Refusal)}:
            heard.note(source, now)
        outcomes = Counter(_name(outcome) for _, outcome in answered)
        return {
            "outcomes": {name: outcomes[name] for name in ("accepted", "duplicate", "refused")},
            "results": [_result(index, *each) for index, each in enumerate(answered)],
        }

    @routes.get("")
    async def show(
        organization_id: str,
        *,
        event_type: Annotated[str | None, Query(alias="type", min_length=1, max_length=TYPE_MAX)] = None,
        start: Annotated[Instant | None, Query(alias="from", description="First instant of their times.")] = None,
        end: Annotated[Instant | None, Query(alias="to", description="First instant not included.")] = None,
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 100,
        authorization: Authorization = None,
    ) -> dict[str, Any]:
        """Kept events by their times, of the last 31 days if no span is given; ``next`` goes on where the page ends."""
        now = clock.now()
        end = end or now + timedelta(days=3)
        start = start or end - DAYS_SHOWN
        for name, instant in (("from", start), ("to", end)):
            if instant.year not in YEARS:
                raise Problem(400, "invalid_input", f"{name}: no event has such a time", attr=name)
        async with database.begin() as transaction:
            require_reader(
                await PostgresUsage(transaction, slots).organization(organization_id),
                organization_id,
                authorization=authorization,
                keyring=keyring,
                tokens=tokens,
                now=now,
            )
            kept = await PostgresEvents(transaction).kept_events(
                organization_id, start, end, event_type=event_type, after=_moment(after), limit=limit
            )
        return {
            "results": to_wire_kept_events(kept),
            "next": _cursor(kept[-1].event.moment) if len(kept) == limit else None,
        }

    return routes


_FOREIGN: Final = Refusal("permission_denied", "subject: this license may not act for this organization", "subject", "")
"""One answer for unknown and foreign organizations, so that nobody learns which exist (L18)."""


def _bodies(body: bytes, content_type: str) -> tuple[bool, Sequence[bytes]]:
    """Whether it is a batch, and the bytes of each event."""
    media = content_type.split(";", maxsplit=1)[0].strip().lower()
    if media not in (SINGLE, BATCH, PLAIN):
        detail = f"Content-Type: must be {SINGLE}, {BATCH} or {PLAIN}"
        raise Problem(415, "unsupported_media_type", detail)
    is_batch = media == BATCH or (media == PLAIN and body.lstrip()[:1] == b"[")
    return is_batch, split_batch(body) if is_batch else [body]


async def _take(
    transaction: Transaction,
    bodies: Sequence[bytes],
    *,
    claim: LicenseClaim | None,
    slots: CounterSlots,
    now: datetime,
) -> list[Answered]:
    usage = PostgresUsage(transaction, slots)
    account: str | None = None
    if claim is not None:
        found = await find_account(license_id=claim.license_id, organization_id=claim.organization_id, tx=usage)
        account = None if found is None else found.organization_id
    read = [_read(body, claim=claim, account=account) for body in bodies]
    entering = [item for item in read if isinstance(item, ArrivedEvent)]
    entered = await record_events(
        entering, tx=usage, events=PostgresEvents(transaction), now=now, is_publication_due=True
    )
    outcomes = iter(entered)
    return [(item, _not_parked(next(outcomes))) if isinstance(item, ArrivedEvent) else (None, item) for item in read]


def _not_parked(outcome: EventOutcome | Refusal) -> EventOutcome | Refusal:
    """Over HTTP nothing waits for a customer: the sender has the event and is told."""
    if isinstance(outcome, Refusal) and outcome.code == UNKNOWN_ORGANIZATION:
        detail = f"subject: no customer is known for organization {outcome.subject}; send it again when there is one"
        return replace(outcome, detail=detail)
    return outcome


def _read(body: bytes, *, claim: LicenseClaim | None, account: str | None) -> ArrivedEvent | Refusal:
    try:
        event = from_wire_event(body)
    except InvalidEvent as error:
        return Refusal(error.code, str(error), error.attribute or "", "")
    arrival = Arrival(INTAKE, body)
    if claim is None:
        return ArrivedEvent(event, arrival)
    if account is None or event.organization_id != claim.organization_id:
        return _FOREIGN
    return ArrivedEvent(event if event.organization_id == account else on_account(event, account), arrival)


def _name(outcome: EventOutcome | Refusal) -> str:
    return "refused" if isinstance(outcome, Refusal) else outcome.value


def _result(index: int, arrived: ArrivedEvent | None, outcome: EventOutcome | Refusal) -> dict[str, Any]:
    result: dict[str, Any] = {
        "index": index,
        "source": arrived.event.source if arrived else None,
        "id": arrived.event.event_id if arrived else None,
        "outcome": _name(outcome),
    }
    if isinstance(outcome, Refusal):
        result |= {"code": outcome.code, "attr": outcome.attribute or None, "detail": outcome.detail}
    return result


def _cursor(moment: Moment) -> str:
    text = f"{moment.at.isoformat()} {moment.name.hex()}"
    return base64.urlsafe_b64encode(text.encode()).decode()


def _moment(cursor: str | None) -> Moment | None:
    if cursor is None:
        return None
    try:
        at, name = base64.b64decode(cursor, altchars=b"-_", validate=True).decode().split(" ")
        return Moment(datetime.fromisoformat(at).astimezone(UTC), bytes.fromhex(name))
    except (ValueError, OverflowError, binascii.Error) as error:
        raise Problem(400, "invalid_input", "after: is no cursor; begin without one", attr="after") from error

"""Dead letters over HTTP, for operators: list, show, replay."""

import base64
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query

from quill_runtime import dead_letters
from quill_runtime.auth import ApiTokens
from quill_runtime.clock import Clock
from quill_runtime.database import Database
from quill_runtime.dead_letters import DeadLetter, NoSuchDeadLetter
from quill_runtime.outbox import Outbox
from quill_runtime.problems import Problem

OPERATOR_SCOPE = "operator"
LetterId = Annotated[int, Path(ge=1, le=dead_letters.ID_MAX)]


def router(*, database: Database, outbox: Outbox, tokens: ApiTokens, clock: Clock) -> APIRouter:
    """``/v1/dead-letters``; every call needs a token with the scope ``operator``."""
    routes = APIRouter(prefix="/v1/dead-letters", tags=["dead letters"])

    @routes.get("")
    async def list_waiting(  # noqa: PLR0917 - FastAPI reads query parameters by name
        authorization: Annotated[str | None, Header()] = None,
        reason_code: str | None = None,
        subject: str | None = None,
        include_replayed: bool = False,
        after_id: Annotated[int, Query(ge=0, le=dead_letters.ID_MAX)] = 0,
        limit: Annotated[int, Query(ge=1, le=dead_letters.PAGE_MAX)] = 100,
    ) -> dict[str, Any]:
        tokens.require(authorization, OPERATOR_SCOPE)
        async with database.begin() as transaction:
            letters = await dead_letters.waiting(
                transaction,
                reason_code=reason_code,
                subject=subject,
                include_replayed=include_replayed,
                after_id=after_id,
                limit=limit,
            )
        return {
            "results": [_summary(letter) for letter in letters],
            "next_after_id": letters[-1].id if letters else None,
        }

    @routes.get("/{letter_id}")
    async def show(letter_id: LetterId, authorization: Annotated[str | None, Header()] = None) -> dict[str, Any]:
        tokens.require(authorization, OPERATOR_SCOPE)
        async with database.begin() as transaction:
            letter = await _find(transaction, letter_id)
        return {
            **_summary(letter),
            "headers": letter.headers,
            "key_base64": base64.b64encode(letter.key).decode() if letter.key is not None else None,
            "value_base64": base64.b64encode(letter.value).decode() if letter.value is not None else None,
        }

    @routes.post("/{letter_id}/replay")
    async def replay(letter_id: LetterId, authorization: Annotated[str | None, Header()] = None) -> dict[str, Any]:
        tokens.require(authorization, OPERATOR_SCOPE)
        async with database.begin() as transaction:
            letter = await _find(transaction, letter_id)
            await dead_letters.replay(transaction, outbox=outbox, letters=[letter], now=clock.now())
            letter = await _find(transaction, letter_id)
        return _summary(letter)

    return routes


async def _find(transaction: Any, letter_id: int) -> DeadLetter:
    try:
        return await dead_letters.show(transaction, letter_id)
    except NoSuchDeadLetter as error:
        raise Problem(404, "not_found", str(error), attr="id") from error


def _summary(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "consumer_group": letter.consumer_group,
        "reason_code": letter.reason_code,
        "attribute": letter.attribute,
        "detail": letter.detail,
        "subject": letter.subject,
        "parked_at": letter.parked_at.isoformat(),
        "replayed_at": letter.replayed_at.isoformat() if letter.replayed_at else None,
        "replays": letter.replays,
    }

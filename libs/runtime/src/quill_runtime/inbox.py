"""What was already taken in: new, the same again, or the same id with other content."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from quill_runtime.database import Transaction
from quill_runtime.tables import inbox

Verdict = Literal["new", "repeat", "conflict"]


@dataclass(frozen=True, slots=True)
class Intake:
    """What the inbox says of a message; ``response`` is what was answered the first time, if it was kept."""

    verdict: Verdict
    response: Any = None


async def take_in(transaction: Transaction, *, scope: str, message_id: str, content: bytes, now: datetime) -> Intake:
    """Note a message with the transaction that applies it."""
    digest = hashlib.sha256(content).digest()
    statement = (
        insert(inbox)
        .values(scope=scope, message_id=message_id, content_hash=digest, received_at=now)
        .on_conflict_do_nothing()
        .returning(inbox.c.message_id)
    )
    if await transaction.connection.scalar(statement) is not None:
        return Intake("new")
    known = (
        await transaction.connection.execute(
            select(inbox.c.content_hash, inbox.c.response).where(
                inbox.c.scope == scope, inbox.c.message_id == message_id
            )
        )
    ).one()
    return Intake("repeat" if known.content_hash == digest else "conflict", known.response)


async def keep_response(transaction: Transaction, *, scope: str, message_id: str, response: Any) -> None:
    """Remember what was answered, for repeats."""
    await transaction.connection.execute(
        update(inbox).where(inbox.c.scope == scope, inbox.c.message_id == message_id).values(response=response)
    )


async def count(transaction: Transaction, *, scope: str) -> int:
    """How many messages of this scope are noted."""
    return await transaction.connection.scalar(select(func.count()).where(inbox.c.scope == scope)) or 0


async def forget(transaction: Transaction, *, scope: str) -> None:
    """Drop the notes of a scope; its messages are new again."""
    await transaction.connection.execute(delete(inbox).where(inbox.c.scope == scope))

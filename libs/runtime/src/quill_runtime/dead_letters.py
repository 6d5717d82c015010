"""Records that could not be applied: parked with bytes and reason, listed, shown, replayed (L4)."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import orjson
from sqlalchemy import ColumnElement, Row, select, update
from sqlalchemy.dialects.postgresql import insert

from quill_runtime.consumption import Record, Rejected
from quill_runtime.database import Transaction
from quill_runtime.outbox import VALUE_BYTES_MAX, Outbox
from quill_runtime.publisher import MESSAGE_BYTES_MAX, Outgoing
from quill_runtime.tables import dead_letters

PAGE_MAX = 500
ID_MAX = 2**63 - 1
"""What a bigint column can hold; asking beyond it is a wrong question, not a failure."""
DETAIL_CHARACTERS_MAX = 2_000
_BASE64_GROWTH = 4 / 3


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A parked record."""

    id: int
    consumer_group: str
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, str]
    reason_code: str
    attribute: str | None
    detail: str
    subject: str | None
    parked_at: datetime
    replayed_at: datetime | None
    replays: int


class NoSuchDeadLetter(LookupError):
    """No parked record has this id."""


async def park(
    transaction: Transaction, *, outbox: Outbox, group: str, record: Record, rejected: Rejected, now: datetime
) -> None:
    """Keep a record aside, once per (group, topic, partition, offset), and announce it on ``<topic>.dead``."""
    detail = rejected.detail[:DETAIL_CHARACTERS_MAX].replace("\x00", "\\0")
    statement = (
        insert(dead_letters)
        .values(
            consumer_group=group,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            key=record.key,
            value=record.value,
            headers={name: value.replace("\x00", "\\0") for name, value in record.headers.items()},
            reason_code=rejected.code,
            attribute=rejected.attribute,
            detail=detail,
            subject=rejected.subject,
            parked_at=now,
        )
        .on_conflict_do_nothing(constraint="dead_letters_record_key")
        .returning(dead_letters.c.id)
    )
    if await transaction.connection.scalar(statement) is None:
        return
    announcement = orjson.dumps(
        {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "consumer_group": group,
            "key_base64": _base64(record.key),
            "value_base64": _base64(record.value),
            "reason_code": rejected.code,
            "attribute": rejected.attribute,
            "detail": detail,
            "parked_at": now,
        }
    )
    key = (record.key or b"").decode("utf-8", "replace")
    await outbox.add(transaction, [Outgoing(f"{record.topic}.dead", key, announcement)])


async def waiting(
    transaction: Transaction,
    *,
    reason_code: str | None = None,
    subject: str | None = None,
    include_replayed: bool = False,
    after_id: int = 0,
    limit: int = 100,
) -> list[DeadLetter]:
    """Parked records in the order they were parked, at most 500 at a time."""
    conditions: list[ColumnElement[bool]] = [dead_letters.c.id > after_id]
    if reason_code is not None:
        conditions.append(dead_letters.c.reason_code == reason_code)
    if subject is not None:
        conditions.append(dead_letters.c.subject == subject)
    if not include_replayed:
        conditions.append(dead_letters.c.replayed_at.is_(None))
    rows = await transaction.connection.execute(
        select(dead_letters).where(*conditions).order_by(dead_letters.c.id).limit(min(limit, PAGE_MAX))
    )
    return [_from_row(row) for row in rows]


async def show(transaction: Transaction, letter_id: int) -> DeadLetter:
    """One parked record.

    Raises:
        NoSuchDeadLetter: with the id.
    """
    row = (
        await transaction.connection.execute(select(dead_letters).where(dead_letters.c.id == letter_id))
    ).one_or_none()
    if row is None:
        raise NoSuchDeadLetter(f"no dead letter has the id {letter_id}")
    return _from_row(row)


async def replay(transaction: Transaction, *, outbox: Outbox, letters: Sequence[DeadLetter], now: datetime) -> None:
    """Send the exact bytes to their topic again; what was wrong may be right by now. Safe to repeat."""
    await outbox.add(
        transaction,
        [
            Outgoing(
                letter.topic,
                (letter.key or b"").decode("utf-8", "replace"),
                letter.value,
                {**letter.headers, "quill-replay-of": str(letter.id)},
            )
            for letter in letters
        ],
        bytes_max=MESSAGE_BYTES_MAX,
    )
    await transaction.connection.execute(
        update(dead_letters)
        .where(dead_letters.c.id.in_([letter.id for letter in letters]))
        .values(replayed_at=now, replays=dead_letters.c.replays + 1)
    )


def _base64(value: bytes | None) -> str | None:
    """Base64 for the announcement; a value too large for it stays in the table alone."""
    if value is None or len(value) * _BASE64_GROWTH > VALUE_BYTES_MAX - 10_000:
        return None
    return base64.b64encode(value).decode()


def _from_row(row: Row[tuple[object, ...]]) -> DeadLetter:
    fields = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's documented accessor
    return DeadLetter(**fields)

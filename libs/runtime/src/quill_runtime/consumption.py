"""How a service takes records from Kafka without losing, doubling or blocking any.

One batch is one transaction: effects, parked records and the position advance together or not at all. The position
in Postgres is the truth; the offset committed to Kafka is a hint for people and tools (reliability 1.2). A record that
cannot be decoded or applied is isolated by halving the batch, parked with its bytes and its reason (L4), and the rest
goes on. A database that is away pauses the consumer and parks nothing.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from pydantic import ValidationError

from quill_runtime.database import Transaction

M = TypeVar("M")

FollowUp = Callable[[], Awaitable[None]]
"""Work due after the commit and before the position counts as settled: publishing current state, writing a cache.
Must be safe to repeat; it is repeated after a crash."""


class Rejected(Exception):
    """This record can never be applied as it is: park it and go on.

    Args:
        code: stable, for machines, e.g. ``unknown_organization``.
        detail: for people, naming what to do.
        attribute: the field that is wrong, nested names joined with two underscores.
        subject: what the record is about, to find it again.
    """

    def __init__(self, code: str, detail: str, *, attribute: str | None = None, subject: str | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.attribute = attribute
        self.subject = subject


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it came from Kafka; header values that are not UTF-8 are kept with replacement characters."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Received(Generic[M]):
    """A decoded message with the record it came in."""

    message: M
    record: Record


@dataclass(frozen=True, slots=True)
class Consumption(Generic[M]):
    """What a service does with one topic.

    ``decode`` turns a value into a message and raises `Rejected`, ``ValueError`` or pydantic's ``ValidationError`` when
    it cannot. ``apply`` works inside the transaction it is given and may return a `FollowUp`; it may see a record again
    after a crash and must then have the same effect. ``apply`` raises `Rejected` for a record at fault.

    ``lanes`` part a batch by partition; each lane is a transaction of its own, and while one waits for the database
    another computes. Only for topics whose key orders all that ``apply`` locks, else lanes wait for each other. A batch
    of fewer than ``split_at`` records stays in one: a transaction has its price, however little it does.
    """

    topic: str
    group: str
    decode: Callable[[Record], M]
    apply: Callable[[Transaction, Sequence[Received[M]], datetime], Awaitable[FollowUp | None]]
    max_records: int = 500
    lanes: int = 1
    split_at: int = 1


def rejection_of(error: Exception) -> Rejected:
    """Say in one code, one attribute and one sentence why a record was refused."""
    if isinstance(error, Rejected):
        return error
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        attribute = "__".join(str(part) for part in first["loc"]) or None
        code = "not_json" if first["type"] == "json_invalid" else "invalid_message"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        return Rejected(code, f"{attribute or 'value'}: {first['msg']}{more}", attribute=attribute)
    return Rejected("cannot_apply", f"{type(error).__name__}: {error}")

"""Append-only streams of facts, one per aggregate, with optimistic versions and "as of" reading (architecture 6)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import ColumnElement, insert, select
from sqlalchemy.exc import IntegrityError

from quill_runtime.database import Conflict, Transaction, sqlstate
from quill_runtime.tables import events as events_table

UNIQUE_VIOLATION = "23505"
STREAM_READ_MAX = 100_000


class ConcurrentChange(Conflict):
    """Somebody else appended to the stream since it was read."""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """A fact about to be appended: its type, its JSON content, who caused it, when it happened."""

    type: str
    data: Mapping[str, Any]
    actor: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """A fact with its place in its stream (from 1, no gaps)."""

    stream: str
    version: int
    type: str
    data: Mapping[str, Any]
    actor: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class Append:
    """Events to add to one stream after its version ``expected_version``."""

    stream: str
    expected_version: int
    events: Sequence[NewEvent]


class EventStream(Protocol):
    """Reading and appending, on Postgres or in memory."""

    async def read(self, stream: str, *, as_of: datetime | None = None) -> list[StoredEvent]: ...

    async def page(
        self, stream: str, *, after: int, start: datetime | None, end: datetime | None, at_most: int
    ) -> list[StoredEvent]: ...

    async def append(self, stream: str, *, expected_version: int, events: Sequence[NewEvent]) -> int: ...

    async def append_all(self, appends: Sequence[Append]) -> None: ...


class PostgresEventStream:
    """Events inside a transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def read(self, stream: str, *, as_of: datetime | None = None) -> list[StoredEvent]:
        """A stream from its beginning; with ``as_of``, only what had happened by that instant, inclusive."""
        conditions: list[ColumnElement[bool]] = [events_table.c.stream == stream]
        if as_of is not None:
            conditions.append(events_table.c.occurred_at <= as_of)
        rows = await self._transaction.connection.execute(
            select(events_table).where(*conditions).order_by(events_table.c.version).limit(STREAM_READ_MAX)
        )
        return [StoredEvent(row.stream, row.version, row.type, row.data, row.actor, row.occurred_at) for row in rows]

    async def page(
        self, stream: str, *, after: int, start: datetime | None, end: datetime | None, at_most: int
    ) -> list[StoredEvent]:
        """At most ``at_most`` events behind version ``after``, oldest first, that happened in ``[start, end)``."""
        conditions: list[ColumnElement[bool]] = [events_table.c.stream == stream, events_table.c.version > after]
        if start is not None:
            conditions.append(events_table.c.occurred_at >= start)
        if end is not None:
            conditions.append(events_table.c.occurred_at < end)
        rows = await self._transaction.connection.execute(
            select(events_table).where(*conditions).order_by(events_table.c.version).limit(at_most)
        )
        return [StoredEvent(row.stream, row.version, row.type, row.data, row.actor, row.occurred_at) for row in rows]

    async def append(self, stream: str, *, expected_version: int, events: Sequence[NewEvent]) -> int:
        """Add events after ``expected_version``; returns the new version.

        Raises:
            ConcurrentChange: the stream has moved on; the transaction must be given up.
        """
        await self.append_all([Append(stream, expected_version, events)])
        return expected_version + len(events)

    async def append_all(self, appends: Sequence[Append]) -> None:
        """Add to many streams in one statement.

        Raises:
            ConcurrentChange: one of the streams has moved on; the transaction must be given up.
        """
        rows = [
            {
                "stream": append.stream,
                "version": append.expected_version + number,
                "type": event.type,
                "data": dict(event.data),
                "actor": event.actor,
                "occurred_at": event.occurred_at,
            }
            for append in appends
            for number, event in enumerate(append.events, start=1)
        ]
        if not rows:
            return
        try:
            await self._transaction.connection.execute(insert(events_table), rows)
        except IntegrityError as error:
            if sqlstate(error) == UNIQUE_VIOLATION:
                named = ", ".join(f"{append.stream} past {append.expected_version}" for append in appends[:3])
                raise ConcurrentChange(f"a stream has moved on: {named}") from error
            raise


class MemoryEventStream:
    """The same behaviour without a database; appended events are there at once."""

    def __init__(self, streams: dict[str, list[StoredEvent]] | None = None) -> None:
        self.streams = {} if streams is None else streams

    async def read(self, stream: str, *, as_of: datetime | None = None) -> list[StoredEvent]:
        return [e for e in self.streams.get(stream, []) if as_of is None or e.occurred_at <= as_of]

    async def page(
        self, stream: str, *, after: int, start: datetime | None, end: datetime | None, at_most: int
    ) -> list[StoredEvent]:
        found = [
            event
            for event in self.streams.get(stream, [])
            if event.version > after
            and (start is None or event.occurred_at >= start)
            and (end is None or event.occurred_at < end)
        ]
        return found[:at_most]

    async def append(self, stream: str, *, expected_version: int, events: Sequence[NewEvent]) -> int:
        stored = self.streams.setdefault(stream, [])
        if events and len(stored) != expected_version:
            raise ConcurrentChange(f"{stream} is past version {expected_version}")
        for event in events:
            stored.append(
                StoredEvent(stream, len(stored) + 1, event.type, dict(event.data), event.actor, event.occurred_at)
            )
        return expected_version + len(events)

    async def append_all(self, appends: Sequence[Append]) -> None:
        for append in appends:
            await self.append(append.stream, expected_version=append.expected_version, events=append.events)

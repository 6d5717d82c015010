"""What readers of the stream are sent: each change of the mirror encoded once, however many read it.

An event's id is ``<epoch>-<sequence>`` of the board, so it means the same on every replica and after every restart. The
board remembers for each organization the sequence of its newest change; a reader who names an id is sent the present
limits of those that changed since, and everything when the epoch is another (then the board had been emptied).
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec
import structlog
from prometheus_client import Counter, Gauge

from quill_quota_limiter.domain.quota_answer import OrganizationStanding
from quill_quota_limiter.domain.scope_answer import MeterStanding, ScopesStanding
from quill_quota_limiter.ports import BoardUnavailable
from quill_quota_limiter.store.board_keys import CHANGED, EPOCH
from quill_quota_limiter.store.mirror import Mirror, MirrorChange
from quill_quota_limiter.store.multiplexed_redis import MultiplexedRedis

WAITING_BYTES_MAX: Final = 4 * 1024 * 1024
"""What may wait for one slow reader; beyond it he is let go, and resumes with the id he has."""
SNAPSHOT_PAGE: Final = 200
TOKENS_PER_EVENT: Final = 1_000
HEARTBEAT_SECONDS: Final = 5.0
AGE_SECONDS_MAX: Final = 10**9
"""What a mirror that was never loaded says."""
READERS_MAX: Final = 5_000
RESUMED_MAX: Final = 50_000
"""Who missed more than this is sent everything."""

READERS = Gauge("quill_limit_stream_readers", "Readers of the limit stream")
DROPPED_READERS = Counter("quill_limit_stream_dropped_readers", "Readers that were let go because they read too slowly")

_encode = msgspec.json.Encoder().encode
log = structlog.get_logger(__name__)


class LimitsEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """``event: limits``: the present limits of one organization. Usage is as of this change.

    ``scopes``, absent when nobody set any: the limits of its teams and projects, and whom they bind.
    """

    organization_id: str
    revision: int
    meters: dict[str, MeterStanding]
    scopes: ScopesStanding | None = None


class TokensEvent(msgspec.Struct, frozen=True):
    """``event: tokens``: project tokens that are the organization's now, and some that are not any more.

    ``replaces``: it has no others, but for those of the events that follow at once.
    """

    organization_id: str
    active: list[str]
    retired: list[str]
    replaces: bool = False


class GoneEvent(msgspec.Struct, frozen=True):
    """``event: gone``: this organization is no longer known."""

    organization_id: str


class SnapshotEvent(msgspec.Struct, frozen=True):
    """``event: snapshot``: what follows is everything (``whole``) or what changed since the id that was named.

    ``unknown`` is what the service answers about who is not in it.
    """

    kind: Literal["whole", "changes"]
    unknown: Literal["allow", "deny"]


@dataclass(eq=False, slots=True)
class LimitsReader:
    """One reader: what waits for it, and which organization of which license it may hear of; none for all."""

    organization_id: str | None = None
    license_id: str | None = None
    waiting: deque[bytes] = field(default_factory=deque)
    waiting_bytes: int = 0
    is_over: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def give(self, event: bytes) -> None:
        """Put an event in line, or end the reader if it does not keep up."""
        if self.is_over:
            return
        self.waiting.append(event)
        self.waiting_bytes += len(event)
        if self.waiting_bytes > WAITING_BYTES_MAX:
            DROPPED_READERS.inc()
            self.end()
        else:
            self.wake.set()

    def end(self) -> None:
        """Nothing more comes."""
        self.is_over = True
        self.waiting.clear()
        self.waiting_bytes = 0
        self.wake.set()

    def take(self) -> bytes:
        """Everything that waits, as one piece."""
        self.wake.clear()
        piece = b"".join(self.waiting)
        self.waiting.clear()
        self.waiting_bytes = 0
        return piece


class TooManyReaders(ConnectionError):
    """`READERS_MAX` streams are open in this process; ask another replica, or later."""


class LimitsFeed:
    """Turns changes of the mirror into events and hands them to readers.

    ``place`` is where in the board's changes the mirror stands; ``unknown`` what is answered about the unknown.
    """

    def __init__(
        self,
        mirror: Mirror,
        redis: MultiplexedRedis,
        *,
        place: Callable[[], str | None],
        unknown: Literal["allow", "deny"],
    ) -> None:
        self._mirror = mirror
        self._redis = redis
        self._place = place
        self._unknown = unknown
        self._readers: set[LimitsReader] = set()
        self.name = "limits-feed"
        mirror.listeners.append(self._tell)

    async def start(self) -> None:
        """Nothing to do before somebody reads."""

    async def stop(self) -> None:
        """End every stream, so that the server can drain; readers come back with the id they have."""
        for reader in list(self._readers):
            reader.end()

    def check_room(self) -> None:
        """Refuse one reader too many before anything was sent to him.

        Raises:
            TooManyReaders: see there.
        """
        if len(self._readers) >= READERS_MAX:
            raise TooManyReaders(f"{READERS_MAX:,} streams are open")

    async def follow(self, reader: LimitsReader, *, last_event_id: str | None) -> AsyncIterator[bytes]:
        """The stream in pieces: a snapshot, or what changed since ``last_event_id``, then every change.

        Heard first and read after, so that nothing falls between; a change may come twice, readers go by revision.
        """
        self._readers.add(reader)
        READERS.set(len(self._readers))
        try:
            place = self._place()
            changed = await self._changed_since(last_event_id)
            snapshot = SnapshotEvent("whole" if changed is None else "changes", self._unknown)
            yield _event("snapshot", snapshot)
            names = self._names(reader, changed)
            for first in range(0, len(names), SNAPSHOT_PAGE):
                piece = b"".join(self._present(name) for name in names[first : first + SNAPSHOT_PAGE])
                yield piece
                await asyncio.sleep(0)
            # The id of a snapshot comes at its end: who was cut off inside begins anew.
            yield _event("complete", {"age_ms": self._age_ms()}, place)
            while not reader.is_over:
                try:
                    async with asyncio.timeout(HEARTBEAT_SECONDS):
                        await reader.wake.wait()
                except TimeoutError:
                    yield _event("heartbeat", {"age_ms": self._age_ms()})
                    continue
                if piece := reader.take():
                    yield piece
        finally:
            self._readers.discard(reader)
            READERS.set(len(self._readers))

    def _age_ms(self) -> int:
        age = asyncio.get_running_loop().time() - self._mirror.synced_at
        return max(0, int(min(age, AGE_SECONDS_MAX) * 1e3))

    async def _changed_since(self, last_event_id: str | None) -> set[str] | None:
        """Organizations that changed since; ``None`` when that cannot be told, and everything must be sent."""
        epoch, _, number = (last_event_id or "").partition("-")
        if not number.isdigit():
            return None
        try:
            known = self._redis.ask("GET", EPOCH)
            changed = self._redis.ask("ZRANGE", CHANGED, f"({number}", "+inf", "BYSCORE", "LIMIT", 0, RESUMED_MAX + 1)
            if await known != epoch.encode():
                return None
            names = {name.decode() for name in await changed}
        except (BoardUnavailable, TimeoutError):
            return None
        return names if len(names) <= RESUMED_MAX else None

    def _names(self, reader: LimitsReader, changed: set[str] | None) -> list[str]:
        names: Iterable[str] = self._mirror.standings if changed is None else changed
        if reader.organization_id is not None:
            names = [name for name in names if name == reader.organization_id]
        return list(names)

    def _present(self, organization_id: str) -> bytes:
        standing = self._mirror.standings.get(organization_id)
        if standing is None:
            return _event("gone", GoneEvent(organization_id))
        tokens = sorted(self._mirror.tokens.get(organization_id, ()))
        pieces = [_event("limits", _limits_event(organization_id, standing))]
        for first in range(0, len(tokens) or 1, TOKENS_PER_EVENT):
            chunk = tokens[first : first + TOKENS_PER_EVENT]
            named = TokensEvent(organization_id, chunk, [], replaces=first == 0)
            pieces.append(_event("tokens", named))
        return b"".join(pieces)

    def _tell(self, change: MirrorChange) -> None:
        if not self._readers:
            return
        name, standing = change.organization_id, change.standing
        if standing is not None:
            event = _event("limits", _limits_event(name, standing), change.place)
        elif change.active or change.retired:
            event = _event("tokens", TokensEvent(name, list(change.active), list(change.retired)), change.place)
        else:
            event = _event("gone", GoneEvent(name), change.place)
        for reader in list(self._readers):
            if reader.organization_id is None:
                reader.give(event)
            elif reader.organization_id == name:
                if standing is not None and standing.license_id != reader.license_id:
                    reader.end()  # it is another license's now (L18)
                else:
                    reader.give(event)


def _limits_event(organization_id: str, standing: OrganizationStanding) -> LimitsEvent:
    return LimitsEvent(organization_id, standing.revision, dict(standing.meters), standing.scopes)


def _event(kind: str, content: object, place: str | None = None) -> bytes:
    id_line = b"" if place is None else b"id: " + place.encode() + b"\n"
    return b"event: " + kind.encode() + b"\n" + id_line + b"data: " + _encode(content) + b"\n\n"

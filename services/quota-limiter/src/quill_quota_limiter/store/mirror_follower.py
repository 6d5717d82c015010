"""Keeps the mirror equal to the board: subscribe first, then load, then follow; load again when anything was missed.

Every change carries a sequence. Four times a second the follower reads the newest sequence and then lets a PING run
behind it through the subscription: when it comes back, everything published before has come too, and the mirror was
whole at that instant. A gap, another epoch, another generation or a lost connection mean a new load, and a full
comparison of revisions runs each minute whatever the sequence says (performance.md, 2d).
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import msgspec
import structlog
from prometheus_client import Counter, Gauge
from quill_runtime.background import BackgroundTask
from quill_runtime.database import is_unavailable

from quill_quota_limiter.domain.quota_answer import OrganizationStanding, standing_of
from quill_quota_limiter.ports import LimitsStore
from quill_quota_limiter.store.board_keys import (
    CHANNEL,
    EPOCH,
    POINTER,
    SEQUENCE,
    answer_key,
    revisions_key,
    tokens_key,
)
from quill_quota_limiter.store.mirror import Mirror
from quill_quota_limiter.store.multiplexed_redis import BACK_OFF_SECONDS, MultiplexedRedis, RedisAddress, RedisWire

CONFIRM_EVERY_SECONDS: Final = 0.25
CONFIRM_SECONDS: Final = 2.0
RELOAD_EVERY_SECONDS: Final = 60.0
STORE_EVERY_SECONDS: Final = 15.0
"""How often the store is read while the board is away."""
PAGE: Final = 500
SCAN_PAGE: Final = 2_000
REPLIES_SECONDS: Final = 5.0
FIRST_LOAD_SECONDS: Final = 20.0

MIRROR_ORGANIZATIONS = Gauge("quill_quota_mirror_organizations", "Organizations held in this process")
MIRROR_LOADS = Counter(
    "quill_quota_mirror_loads", "Times the mirror was read anew, by what it was read from", ["source"]
)
MIRROR_GAPS = Counter("quill_quota_mirror_gaps", "Changes of the board that did not reach this process in order")

log = structlog.get_logger(__name__)


class _Change(msgspec.Struct, frozen=True):
    """A message of ``put_up.lua``."""

    epoch: str
    sequence: int
    organization_id: str
    answer: OrganizationStanding | None = None
    active: tuple[str, ...] = ()
    retired: tuple[str, ...] = ()


_decode_change = msgspec.json.Decoder(_Change).decode
_decode_answer = msgspec.json.Decoder(OrganizationStanding).decode


class MirrorFollower(BackgroundTask):
    """Loads and follows; ``redis`` reads, a connection of its own listens, ``store`` is for when both are away."""

    def __init__(self, mirror: Mirror, *, url: str, redis: MultiplexedRedis, store: LimitsStore) -> None:
        super().__init__("mirror")
        self._mirror = mirror
        self._address = RedisAddress.of(url)
        self._redis = redis
        self._store = store
        self._generation: bytes | None = None
        self._epoch: str | None = None
        self._sequence = 0
        self._has_gap = False
        self._loaded = asyncio.Event()

    async def start(self) -> None:
        """Wait for the first load, so that the collector is calmed behind it; without it checks ask Redis."""
        await super().start()
        try:
            async with asyncio.timeout(FIRST_LOAD_SECONDS):
                await self._loaded.wait()
        except TimeoutError:
            log.warning("mirror.not_loaded_yet")

    @property
    def place(self) -> str | None:
        """Where in the board's changes the mirror stands; ``None`` while it follows no board."""
        return None if self._epoch is None else f"{self._epoch}-{self._sequence}"

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                await self._follow()
            except (OSError, TimeoutError) as error:
                log.warning("mirror.not_following", error=repr(error))
                await self._load_from_store_if_old()
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("mirror.failed")  # it grows old and says so
            await asyncio.sleep(BACK_OFF_SECONDS[min(failures, len(BACK_OFF_SECONDS) - 1)])
            failures += 1

    async def _follow(self) -> None:
        wire = await self._address.connect(partial(RedisWire, on_push=self._take))
        try:
            async with asyncio.timeout(CONFIRM_SECONDS):
                await wire.ask("SUBSCRIBE", CHANNEL)
            loop, loaded_at = asyncio.get_running_loop(), -RELOAD_EVERY_SECONDS
            while True:
                began = loop.time()
                generation, epoch, sequence = await self._ask("MGET", POINTER, EPOCH, SEQUENCE)
                async with asyncio.timeout(CONFIRM_SECONDS):
                    await wire.ask("PING")
                newest = int(sequence or 0)
                self._has_gap |= self._sequence < newest or (epoch or b"").decode() != (self._epoch or "")
                is_due = began - loaded_at >= RELOAD_EVERY_SECONDS
                if generation is None:
                    # The board was emptied and is being filled; what is decided meanwhile is published all the same.
                    await self._load_from_store_if_old()
                    self._join(epoch, newest)
                elif self._has_gap or is_due or generation != self._generation:
                    is_first = generation != self._generation
                    self._has_gap = False
                    # Between this number and the load only more can have happened; what was missed before is loaded.
                    self._join(epoch, newest)
                    await self._load(generation.decode(), began=began, or_equal=is_first)
                    self._generation, loaded_at = generation, began
                else:
                    self._mirror.synced_at = max(self._mirror.synced_at, began)
                await asyncio.sleep(CONFIRM_EVERY_SECONDS)
        finally:
            wire.close("not following")

    def _join(self, epoch: bytes | None, sequence: int) -> None:
        named = epoch.decode() if epoch else None
        self._sequence = max(sequence, self._sequence) if named == self._epoch else sequence
        self._epoch = named

    def _take(self, message: Sequence[Any]) -> None:
        change = _decode_change(message[2])
        if change.epoch != self._epoch or change.sequence != self._sequence + 1:
            MIRROR_GAPS.inc()
            self._has_gap = True
        self._epoch, self._sequence = change.epoch, change.sequence
        mirror, name, place = self._mirror, change.organization_id, f"{change.epoch}-{change.sequence}"
        if change.answer is not None:
            mirror.put(name, change.answer, or_equal=True, place=place)
        if change.retired:
            mirror.retire(name, change.retired, place=place)
        if change.active:
            mirror.claim(name, change.active, place=place)
        MIRROR_ORGANIZATIONS.set(len(mirror.standings))

    async def _load(self, generation: str, *, began: float, or_equal: bool) -> None:
        """Compare every revision and read what is newer; a pointer that moved meanwhile means another load.

        Raises:
            BoardUnavailable: Redis did not answer.
        """
        mirror = self._mirror
        mirror.begin_load()
        seen: set[str] = set()
        async for page in self._hash_pages(revisions_key(generation)):
            seen.update(page)
            wanted = [
                name
                for name, revision in page.items()
                if or_equal or (known := mirror.standings.get(name)) is None or known.revision < int(revision)
            ]
            for first in range(0, len(wanted), PAGE):
                names = wanted[first : first + PAGE]
                values = await self._ask("MGET", *(answer_key(generation, name) for name in names))
                for name, value in zip(names, values, strict=True):
                    if value is not None:
                        mirror.put(name, _decode_answer(value), or_equal=or_equal, place=self.place)
        owned: set[str] = set()
        async for page in self._hash_pages(tokens_key(generation)):
            owned.update(page)
            by_owner: dict[str, list[str]] = {}
            for token, owner in page.items():
                by_owner.setdefault(owner.decode(), []).append(token)
            for owner, tokens in by_owner.items():
                mirror.claim(owner, tokens, is_loading=True, place=self.place)
        if await self._ask("GET", POINTER) != generation.encode():
            self._has_gap = True
            return
        mirror.end_load(seen, tokens=owned, synced_at=began)
        self._finish_load("redis")

    async def _hash_pages(self, key: str) -> Any:
        cursor = b"0"
        while True:
            cursor, flat = await self._ask("HSCAN", key, cursor, "COUNT", SCAN_PAGE)
            yield {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
            if cursor == b"0":
                return

    async def _load_from_store_if_old(self) -> None:
        """Fail-static, but not for ever: while the board is away, what is decided is read where it was decided."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        if began - self._mirror.synced_at < STORE_EVERY_SECONDS:
            return
        try:
            await self._load_from_store(began)
        except Exception as error:
            if not is_unavailable(error):
                raise
            log.warning("mirror.store_unavailable", error=repr(error))

    async def _load_from_store(self, began: float) -> None:
        mirror = self._mirror
        mirror.begin_load()
        seen: set[str] = set()
        owned: set[str] = set()
        last = ""
        while True:
            async with self._store.begin() as tx:
                page = await tx.known_limits_after(last, at_most=PAGE)
                tokens = await tx.tokens([found.organization_id for found in page]) if page else {}
            for found in page:
                standing = standing_of(found)
                if standing is not None:
                    seen.add(found.organization_id)
                    mirror.put(found.organization_id, standing)
            for name, named in tokens.items():
                owned.update(named.active)
                mirror.claim(name, named.active, is_loading=True)
            if len(page) < PAGE:
                break
            last = page[-1].organization_id
        mirror.end_load(seen, tokens=owned, synced_at=began)
        self._finish_load("store")

    def _finish_load(self, source: str) -> None:
        MIRROR_LOADS.labels(source).inc()
        MIRROR_ORGANIZATIONS.set(len(self._mirror.standings))
        self._loaded.set()

    async def _ask(self, *command: str | bytes | int) -> Any:
        async with asyncio.timeout(REPLIES_SECONDS):
            return await self._redis.ask(*command)

"""Where an answer comes from: the mirror while it is fresh, else Redis, else Postgres, else the last known state.

The last known state is given with its age and never invented: a process that knows nothing refuses (fail-static).
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog
from prometheus_client import Counter
from quill_runtime.database import is_unavailable

from quill_quota_limiter.domain.quota_answer import OrganizationStanding, standing_of
from quill_quota_limiter.ports import AnswersUnavailable, BoardReader, BoardUnavailable, LimitsStore, Reading
from quill_quota_limiter.store.mirror import Mirror

STORE_READS_AT_ONCE: Final = 4
"""More would only queue for connections that deciding needs; beyond it the last known state answers."""
STORE_SECONDS: Final = 1.0

BOARD_FAILURES = Counter("quill_quota_board_failures", "Reads for quota checks that Redis did not answer")
STALE_ANSWERS = Counter("quill_quota_stale_answers", "Reads answered from a stale mirror since all else was away")

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class StandingLookup:
    """Finds standings and token owners; one per process.

    ``stale_seconds``: a mirror that was not confirmed for so long is asked only when nothing else answers.
    """

    mirror: Mirror
    board: BoardReader
    store: LimitsStore
    stale_seconds: float
    _store_turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(STORE_READS_AT_ONCE))
    _time: Callable[[], float] | None = None
    """The running loop's clock; asked for at every check, looked up once."""

    def fresh_age_ms(self) -> int | None:
        """Milliseconds since the mirror was certainly whole, or ``None`` when it cannot answer by itself."""
        if self._time is None:
            self._time = asyncio.get_running_loop().time
        age = self._time() - self.mirror.synced_at
        return int(age * 1e3) if age <= self.stale_seconds else None

    def age_at_hand(self, organization_id: str, standing: OrganizationStanding) -> int | None:
        """Its age in milliseconds, if a fresh mirror has this very standing."""
        return self.fresh_age_ms() if self.mirror.standings.get(organization_id) is standing else None

    async def read(self, organization_ids: Collection[str], tokens: Collection[str] = ()) -> Reading:
        """Standings of organizations and of the owners of tokens, all from one source.

        Raises:
            AnswersUnavailable: nothing is known, and there is nobody to ask.
        """
        mirror = self.mirror
        age = self.fresh_age_ms()
        if age is not None and (mirror.is_whole or self._holds(organization_ids, tokens)):
            return self._from_mirror(age)
        return await self._read_elsewhere(organization_ids, tokens)

    def _from_mirror(self, age_ms: int) -> Reading:
        mirror = self.mirror
        return Reading(mirror.standings, mirror.owners, "mirror", age_ms, mirror.index)

    def _holds(self, organization_ids: Collection[str], tokens: Collection[str]) -> bool:
        owners, standings = self.mirror.owners, self.mirror.standings
        return all(name in standings for name in organization_ids) and all(
            owners.get(token) in standings for token in tokens
        )

    async def _read_elsewhere(self, organization_ids: Collection[str], tokens: Collection[str]) -> Reading:
        try:
            owners = await self.board.token_owners(tokens) if tokens else {}
            reading = await self.board.read({*organization_ids, *owners.values()} if owners else organization_ids)
            if reading.is_complete and owners is not None:
                return Reading(reading.standings, owners, "redis", 0)
        except BoardUnavailable as error:
            BOARD_FAILURES.inc()
            log.debug("answers.board_unavailable", error=repr(error))
        if not self._store_turns.locked():
            try:
                async with self._store_turns, asyncio.timeout(STORE_SECONDS):
                    return await self._read_store(organization_ids, tokens)
            except Exception as error:
                if not is_unavailable(error):
                    raise
                log.debug("answers.store_unavailable", error=repr(error))
        if not self.mirror.is_loaded:
            raise AnswersUnavailable("neither Redis nor Postgres answers, and nothing has been loaded yet")
        if not self.mirror.is_whole and not self._holds(organization_ids, tokens):
            raise AnswersUnavailable("neither Redis nor Postgres answers, and not all of this is held in memory")
        STALE_ANSWERS.inc()
        age = asyncio.get_running_loop().time() - self.mirror.synced_at
        return self._from_mirror(int(age * 1e3))

    async def _read_store(self, organization_ids: Collection[str], tokens: Collection[str]) -> Reading:
        async with self.store.begin() as tx:
            owners: Mapping[str, str] = await tx.active_token_owners(tokens) if tokens else {}
            limits = await tx.limits({*organization_ids, *owners.values()})
        standings: dict[str, OrganizationStanding] = {}
        for name, found in limits.items():
            standing = standing_of(found)
            if standing is not None:
                standings[name] = standing
                self.mirror.put(name, standing)
        return Reading(standings, owners, "store", 0)

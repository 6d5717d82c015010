"""Standings read from Redis for checks: questions of one tick are one command, and what is known is not sent again.

Redis answers with revisions. Only the standing whose revision the mirror does not have is fetched, and the mirror keeps
it, so a stale mirror is brought up to date by what is asked of it.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import Final

import msgspec

from quill_quota_limiter.domain.quota_answer import OrganizationStanding
from quill_quota_limiter.ports import BoardReading, BoardUnavailable
from quill_quota_limiter.store.board_keys import POINTER, answer_key, revisions_key, tokens_key
from quill_quota_limiter.store.mirror import Mirror
from quill_quota_limiter.store.multiplexed_redis import MultiplexedRedis

POINTER_READS_MAX: Final = 5

_decode = msgspec.json.Decoder(OrganizationStanding).decode
_Question = tuple[Collection[str], "asyncio.Future[BoardReading]"]


class MultiplexedBoardReader:
    """Implements `quill_quota_limiter.ports.BoardReader`."""

    def __init__(self, redis: MultiplexedRedis, mirror: Mirror) -> None:
        self._redis = redis
        self._mirror = mirror
        self._generation: str | None = None
        self._questions: list[_Question] = []
        self._rounds: set[asyncio.Task[None]] = set()

    async def read(self, organization_ids: Collection[str]) -> BoardReading:
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[BoardReading] = loop.create_future()
        if not self._questions:
            loop.call_soon(self._ask_together)
        self._questions.append((organization_ids, answered))
        return await answered

    async def token_owners(self, tokens: Collection[str]) -> Mapping[str, str] | None:
        names = list(tokens)
        for _ in range(POINTER_READS_MAX):
            generation = await self._current()
            if generation is None:
                return None
            asked = self._redis.ask("HMGET", tokens_key(generation), *names)
            pointer = self._redis.ask("GET", POINTER)
            owners = await asked
            if self._is_still(generation, await pointer):
                return {token: owner.decode() for token, owner in zip(names, owners, strict=True) if owner is not None}
        raise BoardUnavailable("the answers were rebuilt faster than they could be read")

    def _ask_together(self) -> None:
        questions, self._questions = self._questions, []
        task = asyncio.get_running_loop().create_task(self._answer(questions))
        self._rounds.add(task)
        task.add_done_callback(self._rounds.discard)

    async def _answer(self, questions: list[_Question]) -> None:
        try:
            wanted = [names for names, _ in questions]
            reading = await self._read(wanted[0] if len(wanted) == 1 else set().union(*wanted))
        except Exception as error:  # noqa: BLE001 - each of them is told
            for _, answered in questions:
                if not answered.done():
                    answered.set_exception(error)
            return
        for _, answered in questions:
            if not answered.done():
                answered.set_result(reading)

    async def _read(self, wanted: Iterable[str]) -> BoardReading:
        names = list(wanted)
        for _ in range(POINTER_READS_MAX):
            generation = await self._current()
            if generation is None:
                return BoardReading(is_complete=False, standings={})
            if not names:
                return BoardReading(is_complete=True, standings={})
            asked = self._redis.ask("HMGET", revisions_key(generation), *names)
            # Asked behind it: if the generation is still the one, nobody removed it before the revisions were read.
            pointer = self._redis.ask("GET", POINTER)
            revisions = await asked
            if not self._is_still(generation, await pointer):
                continue
            if self._holds_all(names, revisions):
                return BoardReading(is_complete=True, standings=self._mirror.standings)
            standings, unknown = self._from_mirror(names, revisions)
            if not unknown or await self._fetch(generation, unknown, standings):
                return BoardReading(is_complete=True, standings=standings)
        raise BoardUnavailable("the answers were rebuilt faster than they could be read")

    def _holds_all(self, names: list[str], revisions: list[bytes | None]) -> bool:
        """Whether all of them are known and the mirror has each as new as Redis does: then it is the answer."""
        held = self._mirror.standings.get
        for name, revision in zip(names, revisions, strict=True):
            known = held(name)
            if revision is None or known is None or known.revision < int(revision):
                return False
        return True

    def _from_mirror(
        self, names: list[str], revisions: list[bytes | None]
    ) -> tuple[dict[str, OrganizationStanding], list[str]]:
        standings, unknown = {}, []
        held = self._mirror.standings
        for name, revision in zip(names, revisions, strict=True):
            if revision is None:
                continue
            known = held.get(name)
            if known is not None and known.revision >= int(revision):
                standings[name] = known
            else:
                unknown.append(name)
        return standings, unknown

    async def _fetch(self, generation: str, names: list[str], standings: dict[str, OrganizationStanding]) -> bool:
        """Add the standings of ``names``; false when the generation was replaced meanwhile."""
        pointer, *values = await self._redis.ask("MGET", POINTER, *(answer_key(generation, name) for name in names))
        if not self._is_still(generation, pointer):
            return False
        for name, value in zip(names, values, strict=True):
            if value is not None:
                standings[name] = standing = _decode(value)
                self._mirror.put(name, standing)
        return True

    async def _current(self) -> str | None:
        if self._generation is None:
            pointer = await self._redis.ask("GET", POINTER)
            self._generation = pointer.decode() if pointer is not None else None
        return self._generation

    def _is_still(self, generation: str, pointer: bytes | None) -> bool:
        self._generation = pointer.decode() if pointer is not None else None
        return self._generation == generation

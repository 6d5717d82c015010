"""The answers in Redis: one value per organization, and PostHog's two sorted sets per meter (wire contract 4).

Nothing here expires by itself: a key changes only under the revision check of ``put_up.lua``, so a stale evaluation
cannot overwrite a newer one (L9), and everything can be given again (L8). A rebuild fills a new generation of answers
and moves the pointer in the end. PostHog's sets have one fixed name each, so they are repaired in place.
"""

import secrets
from collections.abc import AsyncIterator, Awaitable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from itertools import chain
from typing import Any, cast

import msgspec
from redis.asyncio import BlockingConnectionPool, Connection, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.connection import HiredisRespSerializer
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from quill_quota_limiter.domain.evaluation import OrganizationLimits
from quill_quota_limiter.domain.project_marks import ProjectTokens, marks_of
from quill_quota_limiter.domain.quota_answer import OrganizationStanding, standing_of
from quill_quota_limiter.ports import BoardReading, BoardUnavailable, TokensOf
from quill_quota_limiter.store.board_keys import (
    ANSWER_PREFIX,
    BUILDING,
    CHANGED,
    CHANNEL,
    EPOCH,
    GUARD_PREFIX,
    LIMITED_PREFIX,
    METERS,
    POINTER,
    REVISIONS_PREFIX,
    SEQUENCE,
    SUSPENDED_PREFIX,
    TOKENS_PREFIX,
    answer_key,
    revisions_key,
    tokens_key,
)

TIMEOUT_SECONDS = 2.0
CONNECTIONS_MAX = 32
RETRIES = 1
SCAN_PAGE = 1_000
POINTER_READS_MAX = 5
TOKENS_PER_REMOVAL = 1_000
ORGANIZATIONS_PER_CALL = 20
TOKENS_PER_CALL = 1_000
"""How much one run of the script is given; an organization with more tokens than that has a run to itself."""

_BEGIN_REBUILD = """
local abandoned = redis.call('GET', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1])
return abandoned or ''
"""
_FINISH_REBUILD = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return false end
local old = redis.call('GET', KEYS[2])
redis.call('SET', KEYS[2], ARGV[1])
redis.call('DEL', KEYS[1])
return old or ''
"""


_NO_TOKENS = ProjectTokens()
_packer = HiredisRespSerializer()
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(OrganizationStanding).decode


class _Connection(Connection):
    """Packs commands in C, as redis-py's other half does; its asynchronous one spends more on that than on sending.

    A URL that asks for TLS or a socket file brings its own class and packs in Python.
    """

    def pack_command(self, *args: Any) -> list[bytes]:
        return cast("list[bytes]", _packer.pack(*args))


class RedisBoard:
    """Implements `quill_quota_limiter.ports.AnswerBoard`."""

    name = "redis"

    def __init__(self, url: str) -> None:
        # Callers beyond the last connection wait for one; a pool that refuses them would send a busy hour to Postgres.
        pool = BlockingConnectionPool.from_url(
            url,
            connection_class=_Connection,
            max_connections=CONNECTIONS_MAX,
            timeout=TIMEOUT_SECONDS,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(ExponentialBackoff(cap=0.2, base=0.02), RETRIES),
            health_check_interval=30,
        )
        self._redis = Redis.from_pool(pool)
        self._put_up = self._redis.register_script(_put_up_script())
        self._begin = self._redis.register_script(_BEGIN_REBUILD)
        self._finish = self._redis.register_script(_FINISH_REBUILD)

    async def start(self) -> None:
        """Nothing to do: while Redis is away, answers come from Postgres, so its absence must not stop the start."""

    async def stop(self) -> None:
        await self._redis.aclose()

    async def read(self, organization_ids: Collection[str]) -> BoardReading:
        names = list(organization_ids)
        async with _reachable():
            generation = await _awaited(self._redis.get(POINTER))
            for _ in range(POINTER_READS_MAX):
                if generation is None:
                    return BoardReading(is_complete=False, standings={})
                keys = [answer_key(generation.decode(), name) for name in names]
                newest, *values = await _awaited(self._redis.mget([POINTER, *keys]))
                if newest == generation:
                    found = zip(names, values, strict=True)
                    standings = {name: _decode(value) for name, value in found if value is not None}
                    return BoardReading(is_complete=True, standings=standings)
                generation = newest
        raise BoardUnavailable("the answers were rebuilt faster than they could be read")

    async def publish(
        self, limits: Sequence[OrganizationLimits], *, tokens_of: TokensOf, rewrite: bool = False
    ) -> None:
        async with _reachable():
            if rewrite:
                waiting = list(limits)
            else:
                outcomes = await self._run(limits, {}, rewrite=False)
                waiting = [found for found, outcome in zip(limits, outcomes, strict=True) if outcome == b"marks_needed"]
        if waiting:
            tokens = await tokens_of([found.organization_id for found in waiting])
            async with _reachable():
                await self._run(waiting, tokens, rewrite=rewrite)

    async def is_complete(self) -> bool:
        async with _reachable():
            return bool(await _awaited(self._redis.exists(POINTER)))

    async def begin_rebuild(self) -> str:
        mark = secrets.token_hex(8)
        await self._register_meters()
        async with _reachable():
            abandoned = (await _awaited(self._begin(keys=[BUILDING], args=[mark]))).decode()
        if abandoned:
            await self._remove_generation(abandoned)
        return mark

    async def finish_rebuild(self, mark: str) -> bool:
        async with _reachable():
            old = await _awaited(self._finish(keys=[BUILDING, POINTER], args=[mark]))
        if old is None:
            return False
        if old:
            await self._remove_generation(old.decode())
        return True

    async def organization_pages(self) -> AsyncIterator[list[str]]:
        async for page in self._scan(GUARD_PREFIX + "*"):
            yield [key.removeprefix(GUARD_PREFIX) for key in page]

    async def token_pages(self) -> AsyncIterator[list[str]]:
        for prefix in (LIMITED_PREFIX, SUSPENDED_PREFIX):
            async for keys in self._scan(prefix + "*"):
                for key in keys:
                    async for page in self._scan_members(key):
                        yield page

    async def marks(self, tokens: Collection[str]) -> Mapping[tuple[str, str], Mapping[str, int]]:
        wanted = list(tokens)
        found: dict[tuple[str, str], dict[str, int]] = {}
        for kind, prefix in (("limited", LIMITED_PREFIX), ("suspended", SUSPENDED_PREFIX)):
            async for keys in self._scan(prefix + "*"):
                for key in keys:
                    scores = found.setdefault((kind, key.removeprefix(prefix)), {})
                    for first in range(0, len(wanted), SCAN_PAGE):
                        page = wanted[first : first + SCAN_PAGE]
                        async with _reachable():
                            values = await _awaited(self._redis.zmscore(key, page))
                        pairs = zip(page, values, strict=True)
                        scores.update((token, int(score)) for token, score in pairs if score is not None)
        return found

    async def remove_organizations(self, organization_ids: Collection[str]) -> None:
        names = list(organization_ids)
        async with _reachable():
            generations = await _awaited(self._redis.mget([POINTER, BUILDING]))
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.unlink(*(GUARD_PREFIX + name for name in names))
            for generation in (found.decode() for found in generations if found is not None):
                pipeline.unlink(*(answer_key(generation, name) for name in names))
                pipeline.hdel(revisions_key(generation), *names)
            await pipeline.execute()

    async def remove_tokens(self, tokens: Collection[str]) -> None:
        wanted = list(tokens)
        for prefix in (LIMITED_PREFIX, SUSPENDED_PREFIX):
            async for keys in self._scan(prefix + "*"):
                async with _reachable():
                    pipeline = self._redis.pipeline(transaction=False)
                    for key in keys:
                        for first in range(0, len(wanted), TOKENS_PER_REMOVAL):
                            pipeline.zrem(key, *wanted[first : first + TOKENS_PER_REMOVAL])
                    await pipeline.execute()

    async def _remove_generation(self, generation: str) -> None:
        """Nobody reads it any more: who had its name finds the pointer moved, in the same command."""
        async for keys in self._scan(answer_key(generation, "*")):
            async with _reachable():
                await _awaited(self._redis.unlink(*keys))
        async with _reachable():
            await _awaited(self._redis.unlink(revisions_key(generation), tokens_key(generation)))

    async def _register_meters(self) -> None:
        """Learn every meter that carries a mark from the sets themselves, in case the registry was lost."""
        for prefix in (LIMITED_PREFIX, SUSPENDED_PREFIX):
            async for keys in self._scan(prefix + "*"):
                async with _reachable():
                    await _awaited(self._redis.sadd(METERS, *(key.removeprefix(prefix) for key in keys)))

    async def _run(
        self, limits: Sequence[OrganizationLimits], tokens: Mapping[str, ProjectTokens], *, rewrite: bool
    ) -> list[bytes]:
        """Run the script over all organizations in one round trip; ``tokens`` without an organization asks only."""
        if not limits:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        epoch = secrets.token_hex(8)
        for part in _calls(limits, tokens):
            keys = [GUARD_PREFIX + found.organization_id for found in part]
            args: list[Any] = ["rewrite" if rewrite else "newer", epoch]
            for found in part:
                args += _arguments(found, tokens.get(found.organization_id))
            await _awaited(self._put_up(keys=keys, args=args, client=pipeline))
        return list(chain.from_iterable(await pipeline.execute()))

    async def _scan(self, pattern: str) -> AsyncIterator[list[str]]:
        cursor = 0
        while True:
            async with _reachable():
                cursor, keys = await _awaited(self._redis.scan(cursor, match=pattern, count=SCAN_PAGE))
            if keys:
                yield [key.decode() for key in keys]
            if cursor == 0:
                return

    async def _scan_members(self, key: str) -> AsyncIterator[list[str]]:
        cursor = 0
        while True:
            async with _reachable():
                cursor, members = await _awaited(self._redis.zscan(key, cursor, count=SCAN_PAGE))
            if members:
                yield [member.decode() for member, _score in members]
            if cursor == 0:
                return


def _put_up_script() -> str:
    names = {
        "METERS": METERS,
        "POINTER": POINTER,
        "BUILDING": BUILDING,
        "SEQUENCE": SEQUENCE,
        "EPOCH": EPOCH,
        "CHANGED": CHANGED,
        "CHANNEL": CHANNEL,
        "LIMITED_PREFIX": LIMITED_PREFIX,
        "SUSPENDED_PREFIX": SUSPENDED_PREFIX,
        "ANSWER_PREFIX": ANSWER_PREFIX,
        "REVISIONS_PREFIX": REVISIONS_PREFIX,
        "TOKENS_PREFIX": TOKENS_PREFIX,
    }
    script = (files("quill_quota_limiter.store") / "put_up.lua").read_text("utf-8")
    return "\n".join([*(f"local {name} = '{value}'" for name, value in names.items()), script])


def _calls(
    limits: Sequence[OrganizationLimits], tokens: Mapping[str, ProjectTokens]
) -> Iterator[list[OrganizationLimits]]:
    """Organizations in parts that Redis is done with in a few milliseconds, for nobody is served meanwhile."""
    part: list[OrganizationLimits] = []
    held = 0
    for found in limits:
        named = tokens.get(found.organization_id, _NO_TOKENS)
        weight = len(named.active) + len(named.retired)
        if part and (len(part) == ORGANIZATIONS_PER_CALL or held + weight > TOKENS_PER_CALL):
            yield part
            part, held = [], 0
        part.append(found)
        held += weight
    if part:
        yield part


def _arguments(limits: OrganizationLimits, tokens: ProjectTokens | None) -> list[str | bytes | int]:
    """What the script is told of one organization."""
    standing = standing_of(limits)
    assert standing is not None, "only known organizations are put up"
    marks = marks_of(limits)
    document = b""
    if tokens is not None:
        # Scores travel as text, so that Lua's numbers cannot round them.
        document = _encode(
            {
                "limited": {usage_key: str(until) for usage_key, until in marks.limited.items()},
                "suspended": {usage_key: str(until) for usage_key, until in marks.suspended.items()},
                "token_limited": {usage_key: _by_end(ends) for usage_key, ends in marks.limited_tokens(tokens).items()},
                "active": tokens.active,
                "retired": tokens.retired,
            }
        )
    return [
        limits.organization_id,
        _encode(standing),
        standing.revision,
        marks.digest(),
        limits.tokens_revision,
        document,
    ]


def _by_end(ends: Mapping[str, int]) -> dict[str, list[str]]:
    """Tokens by the score they get: nearly all have the same one."""
    found: dict[str, list[str]] = {}
    for token, end in ends.items():
        found.setdefault(str(end), []).append(token)
    return found


@asynccontextmanager
async def _reachable() -> AsyncIterator[None]:
    """Turn Redis being away into `BoardUnavailable`; any other error of Redis is a bug and stays what it is."""
    try:
        yield
    except (RedisConnectionError, RedisTimeoutError) as error:
        raise BoardUnavailable(repr(error)) from error


async def _awaited(result: Any) -> Any:
    """redis-py types each command as possibly synchronous; this client is not."""
    return await cast("Awaitable[Any]", result)

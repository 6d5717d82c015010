"""The answers in Redis: one value per organization, and PostHog's two sorted sets per meter (wire contract 4).

Nothing here expires by itself and nothing is rewritten wholesale: a key changes only under the revision check of
``put_up.lua``, so a stale evaluation cannot overwrite a newer one (L9), and everything can be given again (L8).
"""

import secrets
from collections.abc import AsyncIterator, Awaitable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any, Final, cast

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from quill_quota_limiter.domain.evaluation import OrganizationLimits
from quill_quota_limiter.domain.project_marks import ProjectTokens, marks_of
from quill_quota_limiter.domain.quota_answer import MeterStanding, OrganizationStanding, standing_of
from quill_quota_limiter.ports import BoardReading, BoardUnavailable, TokensOf

ANSWER_PREFIX: Final = "quill:limits:"
METERS_KEY: Final = "quill:limits-board:meters"
GENERATION_KEY: Final = "quill:limits-board:generation"
REBUILDING_KEY: Final = "quill:limits-board:rebuilding"
LIMITED_PREFIX: Final = "@posthog/quota-limits/"
SUSPENDED_PREFIX: Final = "@posthog/quota-limiting-suspended/"

TIMEOUT_SECONDS = 2.0
CONNECTIONS_MAX = 32
RETRIES = 1
SCAN_PAGE = 1_000
TOKENS_PER_REMOVAL = 1_000

_FINISH_REBUILD = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[1])
redis.call('DEL', KEYS[1])
return 1
"""


class _Value(msgspec.Struct, frozen=True):
    """The stored answer. ``put_up.lua`` reads the first two fields by their place in the text: keep them first."""

    revision: int
    marks: str
    license_id: str
    meters: dict[str, MeterStanding]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Value).decode


class RedisBoard:
    """Implements `quill_quota_limiter.ports.AnswerBoard`."""

    name = "redis"

    def __init__(self, url: str) -> None:
        # Callers beyond the last connection wait for one; a pool that refuses them would send a busy hour to Postgres.
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS_MAX,
            timeout=TIMEOUT_SECONDS,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(ExponentialBackoff(cap=0.2, base=0.02), RETRIES),
            health_check_interval=30,
        )
        self._redis = Redis.from_pool(pool)
        script = (files("quill_quota_limiter.store") / "put_up.lua").read_text("utf-8")
        self._put_up = self._redis.register_script(script)
        self._finish = self._redis.register_script(_FINISH_REBUILD)

    async def start(self) -> None:
        """Nothing to do: while Redis is away, answers come from Postgres, so its absence must not stop the start."""

    async def stop(self) -> None:
        await self._redis.aclose()

    async def read(self, organization_ids: Collection[str]) -> BoardReading:
        names = list(organization_ids)
        async with _reachable():
            generation, *values = await _awaited(
                self._redis.mget([GENERATION_KEY, *(ANSWER_PREFIX + name for name in names)])
            )
        standings = {}
        for name, value in zip(names, values, strict=True):
            if value is not None:
                stored = _decode(value)
                standings[name] = OrganizationStanding(stored.revision, stored.license_id, stored.meters)
        return BoardReading(is_complete=generation is not None, standings=standings)

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
            return bool(await _awaited(self._redis.exists(GENERATION_KEY)))

    async def begin_rebuild(self) -> str:
        mark = secrets.token_hex(8)
        await self._register_meters()
        async with _reachable():
            await _awaited(self._redis.set(REBUILDING_KEY, mark))
        return mark

    async def finish_rebuild(self, mark: str) -> bool:
        async with _reachable():
            return bool(await _awaited(self._finish(keys=[REBUILDING_KEY, GENERATION_KEY], args=[mark])))

    async def organization_pages(self) -> AsyncIterator[list[str]]:
        async for page in self._scan(ANSWER_PREFIX + "*"):
            yield [key.removeprefix(ANSWER_PREFIX) for key in page]

    async def token_pages(self) -> AsyncIterator[list[str]]:
        for prefix in (LIMITED_PREFIX, SUSPENDED_PREFIX):
            async for keys in self._scan(prefix + "*"):
                for key in keys:
                    async for page in self._scan_members(key):
                        yield page

    async def remove_organizations(self, organization_ids: Collection[str]) -> None:
        async with _reachable():
            await _awaited(self._redis.unlink(*(ANSWER_PREFIX + name for name in organization_ids)))

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

    async def _register_meters(self) -> None:
        """Learn every meter that carries a mark from the sets themselves, in case the registry was lost."""
        for prefix in (LIMITED_PREFIX, SUSPENDED_PREFIX):
            async for keys in self._scan(prefix + "*"):
                async with _reachable():
                    await _awaited(self._redis.sadd(METERS_KEY, *(key.removeprefix(prefix) for key in keys)))

    async def _run(
        self, limits: Sequence[OrganizationLimits], tokens: Mapping[str, ProjectTokens], *, rewrite: bool
    ) -> list[bytes]:
        """Run the script once per organization in one round trip; ``tokens`` without an organization asks only."""
        if not limits:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        for found in limits:
            await _awaited(self._put_up(**_call(found, tokens.get(found.organization_id), rewrite), client=pipeline))
        outcomes: list[bytes] = await pipeline.execute()
        return outcomes

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


def _call(limits: OrganizationLimits, tokens: ProjectTokens | None, rewrite: bool) -> dict[str, Any]:
    standing = standing_of(limits)
    assert standing is not None, "only known organizations are put up"
    marks = marks_of(limits)
    digest = marks.digest()
    value = _encode(_Value(standing.revision, digest, standing.license_id, dict(standing.meters)))
    document = b""
    if tokens is not None:
        # Scores travel as text, so that Lua's numbers cannot round them.
        document = _encode(
            {
                "limited": {usage_key: str(until) for usage_key, until in marks.limited.items()},
                "suspended": {usage_key: str(until) for usage_key, until in marks.suspended.items()},
                "active": tokens.active,
                "retired": tokens.retired,
            }
        )
    return {
        "keys": [ANSWER_PREFIX + limits.organization_id, METERS_KEY],
        "args": [
            value,
            standing.revision,
            digest,
            "rewrite" if rewrite else "newer",
            document,
            LIMITED_PREFIX,
            SUSPENDED_PREFIX,
        ],
    }


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

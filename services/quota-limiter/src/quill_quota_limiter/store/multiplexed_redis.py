"""One connection to Redis that everybody shares: commands of one tick leave together, replies come back in order.

A pooled client pays a check-out, a write and a wake-up per command, 70 to 140 us; this pays 6 to 20 (performance 2a).
It reads and never blocks a caller for long: a bounded number of commands is under way, the oldest of them has a time
limit, and when the connection breaks every one of them fails at once and the next ones fail until it is there again.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, cast
from urllib.parse import unquote, urlsplit

import hiredis
import structlog
from quill_runtime.background import BackgroundTask

from quill_quota_limiter.ports import BoardUnavailable

CONNECT_SECONDS: Final = 1.0
UNDER_WAY_MAX: Final = 10_000
BACK_OFF_SECONDS: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
CHECKS_PER_TIMEOUT: Final = 4
"""How often within a command's time the oldest one is looked at; one may take this much longer than it should."""

log = structlog.get_logger(__name__)

Argument = str | bytes | int


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A Redis URL in parts: ``redis://``, ``rediss://`` or ``unix://``."""

    host: str
    port: int
    path: str | None
    is_encrypted: bool
    username: str | None
    password: str | None
    database: int

    @classmethod
    def of(cls, url: str) -> Self:
        """Read a URL as redis-py does.

        Raises:
            ValueError: the database is not a number.
        """
        parts = urlsplit(url)
        is_socket = parts.scheme == "unix"
        query = dict(pair.partition("=")[::2] for pair in parts.query.split("&"))
        database = query.get("db") or ("" if is_socket else parts.path.strip("/"))
        return cls(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or 6379,
            path=unquote(parts.path) if is_socket else None,
            is_encrypted=parts.scheme == "rediss",
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            database=int(database or 0),
        )

    @property
    def greeting(self) -> list[tuple[Argument, ...]]:
        """What a connection says first."""
        commands: list[tuple[Argument, ...]] = []
        if self.password is not None:
            commands.append(("AUTH", *filter(None, [self.username]), self.password))
        if self.database:
            commands.append(("SELECT", self.database))
        return commands

    async def connect(self, protocol: "Callable[[], RedisWire]") -> "RedisWire":
        """An open connection that has been greeted.

        Raises:
            OSError | TimeoutError | BoardUnavailable: nobody there, or not letting us in.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_SECONDS):
            if self.path is not None:
                _, wire = await loop.create_unix_connection(protocol, self.path)
            else:
                context = ssl.create_default_context() if self.is_encrypted else None
                _, wire = await loop.create_connection(protocol, self.host, self.port, ssl=context)
            try:
                for command in self.greeting:
                    await wire.ask(*command)
            except BaseException:
                wire.close()
                raise
        return wire


class RedisWire(asyncio.Protocol):
    """One open connection. Replies belong to commands in order; what is pushed goes to ``on_push``."""

    def __init__(self, *, on_push: Callable[[Sequence[Any]], None] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader()
        self._outgoing: list[bytes] = []
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._on_push = on_push
        self.is_open = False
        self.closed: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport has the methods but not the ancestor.
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True

    def ask(self, *command: Argument) -> "asyncio.Future[Any]":
        """Send a command with all others of this tick; the future has its reply.

        Raises:
            BoardUnavailable: the connection is closed, or too many commands are under way.
        """
        if not self.is_open:
            raise BoardUnavailable("the connection to Redis is closed")
        if len(self._waiting) >= UNDER_WAY_MAX:
            raise BoardUnavailable(f"{UNDER_WAY_MAX:,} commands to Redis are under way")
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub knows one argument
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append((self._loop.time(), future))
        return future

    def oldest_age(self) -> float:
        """Seconds that the oldest command under way has been waiting."""
        return self._loop.time() - self._waiting[0][0] if self._waiting else 0.0

    def close(self, reason: str = "closed") -> None:
        """Hang up at once; every command under way fails."""
        if self._transport is not None and self.is_open:
            self._transport.abort()
        self._fail(BoardUnavailable(f"the connection to Redis was given up: {reason}"))

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                self._take(reply)
        except hiredis.ProtocolError as error:
            self.close(repr(error))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(BoardUnavailable(f"Redis hung up: {exc!r}"))
        if not self.closed.done():
            self.closed.set_result(None)

    def _take(self, reply: Any) -> None:
        if self._on_push is not None and isinstance(reply, list) and reply[0] == b"message":
            self._on_push(reply)
            return
        _, future = self._waiting.popleft()
        if future.done():
            return
        if isinstance(reply, hiredis.ReplyError):
            # LOADING, READONLY, wrong password: whatever it is, the board does not answer.
            future.set_exception(BoardUnavailable(str(reply)))
        else:
            future.set_result(reply)

    def _flush(self) -> None:
        if self.is_open and self._transport is not None:
            self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()

    def _fail(self, error: BoardUnavailable) -> None:
        self.is_open = False
        waiting, self._waiting = self._waiting, deque()
        for _, future in waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()  # retrieved: whoever asked may have gone


class MultiplexedRedis(BackgroundTask):
    """Keeps one `RedisWire` open and gives it up when it does not answer in time.

    ``timeout_seconds`` holds for each command. A Redis that hangs costs its callers that long once; after that they
    fail at once until it answers a greeting again.
    """

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        super().__init__("redis-reader")
        self._address = RedisAddress.of(url)
        self._timeout_seconds = timeout_seconds
        self._wire: RedisWire | None = None
        self._looked = asyncio.Event()

    async def start(self) -> None:
        await super().start()
        # Not there is an answer too: checks come from Postgres then, and the start goes on.
        async with asyncio.timeout(CONNECT_SECONDS + self._timeout_seconds):
            await self._looked.wait()

    async def stop(self) -> None:
        await super().stop()
        if self._wire is not None:
            self._wire.close("stopping")

    @property
    def is_open(self) -> bool:
        """Whether a command asked now would be sent."""
        return self._wire is not None and self._wire.is_open

    def ask(self, *command: Argument) -> "asyncio.Future[Any]":
        """Send a command; the future has its reply.

        Raises:
            BoardUnavailable: there is no connection, or too much is under way; also as the future's outcome.
        """
        if self._wire is None:
            raise BoardUnavailable("there is no connection to Redis")
        return self._wire.ask(*command)

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                wire = await self._greeted()
            except (OSError, TimeoutError) as error:
                log.warning("redis.unreachable", error=repr(error))
                self._looked.set()
                await asyncio.sleep(BACK_OFF_SECONDS[min(failures, len(BACK_OFF_SECONDS) - 1)])
                failures += 1
                continue
            failures = 0
            self._wire = wire
            self._looked.set()
            await self._watch(wire)

    async def _greeted(self) -> RedisWire:
        wire = await self._address.connect(RedisWire)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await wire.ask("PING")
        except BaseException:
            wire.close("no answer to the greeting")
            raise
        return wire

    async def _watch(self, wire: RedisWire) -> None:
        while not wire.closed.done():
            await asyncio.wait([wire.closed], timeout=self._timeout_seconds / CHECKS_PER_TIMEOUT)
            if wire.oldest_age() > self._timeout_seconds:
                log.warning("redis.frozen", seconds=wire.oldest_age())
                wire.close("no answer in time")

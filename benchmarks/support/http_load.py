"""A load generator: keep-alive connections that each ask again as soon as they are answered.

A process of its own, ``python -m benchmarks.support.http_load``, that reads its order from standard input and prints
what it saw. Requests are encoded beforehand and answers are only searched for their end and status, so that it stays
well ahead of any server in Python.
"""

import asyncio
import base64
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final, cast

import uvloop

from benchmarks.support.cpu import cpu_seconds

HEAD_END: Final = b"\r\n\r\n"
LENGTH: Final = b"content-length: "
STATUS: Final = slice(9, 12)
"""Behind ``HTTP/1.1 ``."""
GRACE_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class LoadFigures:
    """What a load generator saw; latencies in milliseconds."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    refused: int
    """Answers other than 200."""
    server_cpu_seconds: float
    """What the server used from the first connection to the last answer, and not while we started."""

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


class _Asker(asyncio.Protocol):
    """One connection."""

    def __init__(self, requests: Sequence[bytes], place: int, deadline: float) -> None:
        self._requests = requests
        self._next = place % len(requests)
        self._deadline = deadline
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._missing = 0
        self._asked_at = 0.0
        self.latencies: list[float] = []
        self.refused = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport has the methods but not the ancestor.
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._missing -= len(data)
        else:
            self._received += data
            head, found, body = self._received.partition(HEAD_END)
            if not found:
                return
            self._received = b""
            self._missing = _length(head) - len(body)
            self.refused += head[STATUS] != b"200"
        if not self._missing:
            self._answered()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed the connection"))

    def _answered(self) -> None:
        now = time.perf_counter()
        self.latencies.append(now - self._asked_at)
        if now < self._deadline:
            self._ask()
        else:
            self.done.set_result(None)
            assert self._transport is not None
            self._transport.close()

    def _ask(self) -> None:
        assert self._transport is not None
        self._asked_at = time.perf_counter()
        self._transport.write(self._requests[self._next])
        self._next = (self._next + 1) % len(self._requests)


async def run_load(
    *, host: str, port: int, pid: int, connections: int, seconds: float, requests: Sequence[bytes]
) -> LoadFigures:
    """Keep ``connections`` busy for ``seconds``; each begins elsewhere in ``requests`` and goes round.

    ``pid`` is the server's process.

    Raises:
        OSError: the server cannot be reached or hung up.
    """
    began, cpu_began = time.perf_counter(), cpu_seconds(pid)
    loop = asyncio.get_running_loop()
    stride = max(1, len(requests) // connections)
    askers = [_Asker(requests, number * stride, began + seconds) for number in range(connections)]
    async with asyncio.timeout(seconds + GRACE_SECONDS):
        for asker in askers:
            await loop.create_connection(partial(_itself, asker), host, port)
        await asyncio.gather(*(asker.done for asker in askers))
    ended, cpu_ended = time.perf_counter(), cpu_seconds(pid)
    latencies = sorted(latency for asker in askers for latency in asker.latencies)
    return LoadFigures(
        requests=len(latencies),
        seconds=ended - began,
        p50_ms=latencies[len(latencies) // 2] * 1e3,
        p99_ms=latencies[len(latencies) * 99 // 100] * 1e3,
        refused=sum(asker.refused for asker in askers),
        server_cpu_seconds=cpu_ended - cpu_began,
    )


def _itself(asker: _Asker) -> _Asker:
    return asker


def _length(head: bytes) -> int:
    lowered = head.lower()
    start = lowered.index(LENGTH) + len(LENGTH)
    end = lowered.find(b"\r\n", start)
    return int(lowered[start:] if end < 0 else lowered[start:end])


def main() -> None:
    """Read the order, work, print the figures."""
    order: dict[str, Any] = json.load(sys.stdin)
    order["requests"] = [base64.b64decode(request) for request in order["requests"]]
    print(json.dumps(asdict(uvloop.run(run_load(**order)))))


if __name__ == "__main__":
    main()

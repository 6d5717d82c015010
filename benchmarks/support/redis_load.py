"""What a Python client gets out of Redis: connections that each ask again when answered.

redis-benchmark is not there; it is written in C and a higher ceiling. This is raw sockets, encoded commands and
hiredis to find the end of a reply.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import hiredis
import uvloop

GRACE_SECONDS: Final = 10.0


async def _ask(host: str, port: int, database: str, commands: Sequence[bytes], deadline: float) -> int:
    reader, writer = await asyncio.open_connection(host, port, limit=2**24)
    parser, count, place = hiredis.Reader(), 0, 0
    writer.write(f"SELECT {database}\r\n".encode())
    await reader.readline()
    while time.perf_counter() < deadline:
        writer.write(commands[place])
        place = (place + 1) % len(commands)
        while True:
            parser.feed(await reader.read(2**20))
            if parser.gets() is not False:
                break
        count += 1
    writer.close()
    return count


async def _run(url: str, commands: Sequence[Sequence[str]], connections: int, seconds: float) -> float:
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 6379
    encoded = [" ".join(command).encode() + b"\r\n" for command in commands]
    began = time.perf_counter()
    asked = (
        _ask(host, port, parts.path.strip("/") or "0", encoded[number:] + encoded[:number], began + seconds)
        for number in range(connections)
    )
    async with asyncio.timeout(seconds + GRACE_SECONDS):
        counts = await asyncio.gather(*asked)
    return sum(counts) / (time.perf_counter() - began)


def commands_per_second(url: str, commands: Sequence[Sequence[str]], *, connections: int, seconds: float) -> float:
    """Commands that ``connections`` get answered per second, each without pipelining."""
    return uvloop.run(_run(url, commands, connections, seconds))

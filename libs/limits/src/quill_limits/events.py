"""Server-sent events out of a stream of bytes."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

EVENT_BYTES_MAX = 16 * 1024 * 1024
"""An event that is longer is not one of ours."""


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event; ``event_id`` is none when it carries no id."""

    kind: str
    text: str
    event_id: str | None


class NotAnEventStream(ValueError):
    """The bytes are no event stream: an event without end."""


async def events_in(pieces: AsyncIterator[bytes]) -> AsyncIterator[ServerSentEvent]:
    """The whole events of a stream; an unfinished one at its end is none.

    Raises:
        NotAnEventStream: see there.
    """
    rest = b""
    async for piece in pieces:
        *blocks, rest = (rest + piece).split(b"\n\n")
        for block in blocks:
            for event in _parse(block):
                yield event
        if len(rest) > EVENT_BYTES_MAX:
            raise NotAnEventStream(f"an event is longer than {EVENT_BYTES_MAX:,} bytes")


def _parse(block: bytes) -> Iterator[ServerSentEvent]:
    kind, event_id, lines = "message", None, []
    for line in block.decode().split("\n"):
        name, _, text = line.partition(":")
        text = text.removeprefix(" ")
        if name == "event":
            kind = text
        elif name == "id":
            event_id = text
        elif name == "data":
            lines.append(text)
    if lines:
        yield ServerSentEvent(kind, "\n".join(lines), event_id)

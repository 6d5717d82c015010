"""Change sources: each change is events, a new state and one snapshot for readers, together (L20)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from quill_usage_ingest.domain.usage_source import SourceEvent, UsageSource
from quill_usage_ingest.ports import SourceTransaction

SOURCES_MAX: Final = 10_000
"""Known sources; who invents more names is not listened to."""

Decide = Callable[[UsageSource], Sequence[SourceEvent]]


async def change_source(name: str, decide: Decide, *, tx: SourceTransaction) -> UsageSource:
    """Lock a source, known or not, and do to it what ``decide`` says; nothing decided, nothing published."""
    before = (await tx.lock_sources([name]))[name]
    return await save_changed(before, decide(before), tx=tx)


async def save_changed(before: UsageSource, events: Sequence[SourceEvent], *, tx: SourceTransaction) -> UsageSource:
    """Save what events make of a locked source, under a new revision."""
    if not events:
        return before
    after = before
    for event in events:
        after = after.evolved(event)
    after = replace(after, revision=before.revision + 1)
    await tx.save_source(before, after, events, is_announced=True)
    return after


async def hear_sources(heard: Mapping[str, datetime], *, tx: SourceTransaction) -> tuple[list[UsageSource], list[str]]:
    """Note when each source was last heard of; one that was silent is no longer.

    Returns:
        Sources whose state changed with it, and names that found no room among the known ones.
    """
    known = await tx.sources(heard.keys())
    room = SOURCES_MAX - await tx.known_sources()
    strangers = sorted(heard.keys() - known.keys())
    turned_away = strangers[max(0, room) :]
    locked = await tx.lock_sources(heard.keys() - set(turned_away))
    changed = []
    for name, before in locked.items():
        events = before.hear(heard[name])
        after = before
        for event in events:
            after = after.evolved(event)
        after = after.heard(heard[name])
        if events:
            after = replace(after, revision=before.revision + 1)
            changed.append(after)
        if after != before:
            await tx.save_source(before, after, events, is_announced=bool(events))
    return changed, turned_away


@dataclass(frozen=True, slots=True)
class Watched:
    """All expected sources as they are now, and those among them that have just fallen silent."""

    expected: tuple[UsageSource, ...]
    fallen: tuple[UsageSource, ...]


async def watch_sources(now: datetime, *, tx: SourceTransaction) -> Watched:
    """Find expected sources that have been silent for too long."""
    expected = await tx.expected_sources()
    overdue = [name for name, held in expected.items() if held.watch(now)]
    fallen = []
    for name, before in (await tx.lock_sources(overdue)).items():
        after = await save_changed(before, before.watch(now), tx=tx)
        expected[name] = after
        if after is not before:
            fallen.append(after)
    return Watched(tuple(expected.values()), tuple(fallen))

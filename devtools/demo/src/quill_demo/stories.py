"""Customers who change in the middle of the month: limits, cancellations, trials, seats, corrections.

Each plays a plan with known instants and counts. What must come out is worked out here, by adding up what was used
while it was paid.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from quill_regions.organizations import REGIONS, Organization

from quill_demo.story_steps import (
    DAY,
    Do,
    Scene,
    Story,
    cancels,
    corrects,
    holds_seats,
    limits,
    nothing_yet,
    so_far,
    subscribes,
    takes_back,
    tries,
    used,
)

M = 1_000_000
NOON = timedelta(hours=12)
REGION = REGIONS[0]
PLAYED_DAYS = 5
"""Stories end here, so that they fit into the shortest month that is played."""

_PLANS: Sequence[tuple[str, list[tuple[timedelta, Do]], dict[str, Any]]] = (
    (
        "limit change",  # 3 M were used when the limit fell to $60, and stay billed; nothing more is
        [subscribes(), used(0, 2 * M), so_far(1, M), limits(DAY + NOON, 60), used(1, 3 * M), used(3, 2 * M)],
        {"billed": {"events": 3 * M}, "compared": (7 * M, True)},
    ),
    (
        "limit change",  # down to nothing after 2.5 M, and lifted: all that stands above it is billed
        [
            subscribes(),
            used(0, 2 * M),
            so_far(1, M // 2),
            limits(DAY + NOON, 0),
            used(1, M),
            limits(3 * DAY + NOON, None),
            used(3, 2 * M),
        ],
        {"billed": {"events": 5 * M}, "compared": (5 * M, False)},
    ),
    (
        "cancellation",  # the day's report comes when the customer has left
        [subscribes(), used(0, 2 * M), so_far(1, M), cancels(DAY + NOON), used(1, 3 * M)],
        {"billed": {"events": 3 * M}, "compared": (5 * M, True)},
    ),
    (
        "cancellation",  # left on the second day with 2.5 M, back on the fourth: what lay between is free
        [
            subscribes(),
            used(0, 2 * M),
            so_far(1, M // 2),
            cancels(DAY + NOON),
            used(1, M),
            used(2, M),
            so_far(3, M // 2),
            subscribes(3 * DAY + NOON),
            used(3, 2 * M),
        ],
        {"billed": {"events": 4 * M}, "compared": (4 * M, False)},
    ),
    (
        "trial",  # subscribed in a trial that ends at noon of the third day, when 1 M of it is counted
        [
            tries(timedelta(), 2 * DAY + NOON),
            subscribes(DAY),
            used(0, 2 * M),
            used(1, 2 * M),
            so_far(2, M),
            used(2, 3 * M // 2),
            used(3, 2 * M),
        ],
        {"billed": {"events": 5 * M // 2}, "compared": (5 * M // 2, False)},
    ),
    (
        "trial",  # a trial of a month that is moved, and then removed at noon of the second day
        [
            tries(timedelta(), 30 * DAY),
            tries(timedelta(hours=1), 20 * DAY),
            subscribes(timedelta(hours=2)),
            used(0, 4 * M),
            so_far(1, M),
            tries(DAY + NOON, None),
            used(1, 4 * M),
        ],
        {"billed": {"events": 3 * M}, "compared": (3 * M, False)},
    ),
    (
        "seats",
        [subscribes(timedelta(), "seats", seats=3), holds_seats(DAY + NOON, 30), holds_seats(3 * DAY, 10)],
        {"seats": (3, 30, 10)},
    ),
    (
        "seats",
        [subscribes(timedelta(), "seats", seats=8), holds_seats(2 * DAY, 1), cancels(4 * DAY)],
        {"seats": (8, 1, 0)},
    ),
    (
        "correction inside the month",  # of recordings, after the limit of events has fallen to nothing (K1)
        [
            subscribes(),
            used(0, 12 * M),
            used(0, 9_000, "recordings"),
            limits(DAY + NOON, 0),
            corrects(2 * DAY, "recordings", 0, 6_000),
        ],
        {"billed": {"events": 12 * M, "recordings": 6_000}, "compared": (12 * M, True)},
    ),
    (
        "correction inside the month",  # of events, taken back two days later
        [
            subscribes(),
            used(0, 12 * M),
            used(0, 9_000, "recordings"),
            limits(DAY + NOON, 0),
            corrects(2 * DAY, "events", 0, 2 * M),
            takes_back(4 * DAY, "events", 0),
        ],
        {"billed": {"events": 12 * M, "recordings": 9_000}, "compared": (12 * M, True)},
    ),
)
SUBJECTS = tuple(dict.fromkeys(subject for subject, _, _ in _PLANS))


def stories(*, seed: int) -> list[Story]:
    """Every plan in both ways of collecting."""
    found = []
    for number, (subject, steps, outcome) in enumerate(_PLANS):
        for mode in ("stripe-rates", "quill-rates"):
            name = f"Story {number + 1:02d} ({subject}, {mode})"
            organization = Organization(
                organization_id=str(uuid.uuid5(uuid.NAMESPACE_URL, f"quill-story:{seed}:{number}:{mode}")),
                name=name,
                email=f"story-{number + 1:02d}-{mode}@example.test",
                source=REGION,
                self_hosted=False,
                plan="free",
                billing_limits_usd={},
                appetite={},
                teams=("1",),
            )
            first = [] if outcome.get("seats") else nothing_yet("events", "recordings")
            ordered = sorted([*first, *steps], key=lambda step: step[0])
            found.append(Story(subject, organization, mode, ordered, **outcome))
    return found


@dataclass(slots=True)
class Stage:
    """Plays the stories while the month goes by."""

    scene: Scene
    played: Sequence[Story]
    _until: timedelta = timedelta(microseconds=-1)

    def next_after(self, until: datetime) -> list[datetime]:
        """The instants up to ``until`` at which something happens, in order."""
        offsets = {at for story in self.played for at, _ in story.steps if at > self._until}
        return sorted(self.scene.start + at for at in offsets if self.scene.start + at <= until)

    async def play(self, until: datetime) -> None:
        """Everything that is due by then and has not happened yet, at its instant."""
        for instant in self.next_after(until):
            self.scene.time.reach(instant)
            for story in self.played:
                for at, do in story.steps:
                    if self.scene.start + at == instant:
                        await do(self.scene, story)
            self._until = instant - self.scene.start

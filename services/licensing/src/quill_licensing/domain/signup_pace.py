"""How often strangers may sign up: a token bucket kept as one instant, with no fractions of tokens.

A bucket of ``burst`` signups that refills one every ``interval`` is full again at some instant; each signup moves that
instant one interval on. A signup fits while the instant stays within ``burst`` intervals of now.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta


class TooManySignups(Exception):
    """The bucket is empty; ``retry_after`` says for how long."""

    def __init__(self, retry_after: timedelta) -> None:
        super().__init__(f"too many signups; try again in {retry_after}")
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Pace:
    """At most ``burst`` signups at once and one more every ``interval``."""

    burst: int
    interval: timedelta

    def __post_init__(self) -> None:
        if self.burst < 1 or self.interval <= timedelta():
            raise ValueError("a pace needs a burst of at least 1 and a positive interval")

    def admit(self, *, full_at: datetime, now: datetime) -> datetime:
        """When the bucket will be full again after one more signup.

        Args:
            full_at: The same instant as it was stored; any instant up to now for a bucket never used.
            now: The instant of the signup (L21).

        Raises:
            TooManySignups: no token is left.
        """
        moved = max(full_at, now) + self.interval
        excess = moved - (now + self.burst * self.interval)
        if excess > timedelta():
            raise TooManySignups(excess)
        return moved

"""A message from the payment rail that something changed there (L19)."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Webhook:
    """A verified event, kept as it came. What it says is the past: the object is fetched again before acting.

    Attributes:
        object_id: The rail's object that changed; None when the event names none.
    """

    event_id: str
    type: str
    api_version: str | None
    object_id: str | None
    created: datetime
    raw: bytes
    attempts: int = 0

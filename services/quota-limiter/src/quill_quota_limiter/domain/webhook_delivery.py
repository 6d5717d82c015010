"""One event on its way to one endpoint: its id, its tries, and when it is given up (L15)."""

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal

from quill_quota_limiter.domain.webhook_endpoint import WebhookEvent

DeliveryStatus = Literal["pending", "delivered", "failed"]

WAITS_SECONDS: Final = (5, 30, 120, 600, 1_800, 3_600, 10_800, 21_600)
"""Before each further try; the last one repeats."""
JITTER_PERCENT: Final = 20
GIVE_UP_AFTER: Final = timedelta(days=3)
_JITTER_STEPS: Final = 2**32


@dataclass(frozen=True, slots=True)
class WebhookDelivery:
    """A row that is there before anything is sent; ``delivery_id`` is the ``webhook-id`` of every try.

    Attributes:
        due_at: when it is tried next; while somebody tries it, when that lease ends.
        give_up_at: no try begins later.
        attempts: tries that were begun since it was planned or replayed.
    """

    delivery_id: str
    endpoint_id: str
    event: WebhookEvent
    organization_id: str
    body: bytes
    planned_at: datetime
    due_at: datetime
    give_up_at: datetime
    status: DeliveryStatus = "pending"
    attempts: int = 0
    finished_at: datetime | None = None
    last_status: int | None = None
    last_error: str | None = None
    last_response: str | None = None

    def leased(self, until: datetime) -> "WebhookDelivery":
        """In somebody's hands until then; if they vanish it is due again, under the same id."""
        return replace(self, attempts=self.attempts + 1, due_at=until)

    def after(self, outcome: "DeliveryOutcome", now: datetime) -> "WebhookDelivery":
        """Done, due again, or given up."""
        told = replace(
            self,
            last_status=outcome.status,
            last_error=outcome.error,
            last_response=outcome.response,
        )
        if outcome.is_taken:
            return replace(told, status="delivered", finished_at=now)
        again = now + wait_before(self.delivery_id, after_attempts=self.attempts)
        if outcome.is_gone or again > self.give_up_at:
            return replace(told, status="failed", finished_at=now)
        return replace(told, due_at=again)

    def replayed(self, now: datetime) -> "WebhookDelivery":
        """On its way once more, with the same id and body."""
        return replace(self, status="pending", attempts=0, due_at=now, give_up_at=now + GIVE_UP_AFTER, finished_at=None)


@dataclass(frozen=True, slots=True)
class DeliveryOutcome:
    """What a try came to: the HTTP status, or the error that prevented one; and the beginning of the answer."""

    status: int | None = None
    error: str | None = None
    response: str | None = None

    @property
    def is_taken(self) -> bool:
        """2xx and nothing else; a redirect is not followed and so is not taken."""
        return self.status is not None and 200 <= self.status < 300  # noqa: PLR2004 - HTTP's classes

    @property
    def is_gone(self) -> bool:
        return self.status == 410  # noqa: PLR2004 - HTTP's "gone"


def plan(
    *,
    endpoint_id: str,
    event: WebhookEvent,
    fact_id: str,
    organization_id: str,
    body: bytes,
    now: datetime,
) -> WebhookDelivery:
    """The delivery of a fact to an endpoint. Planning it again makes the same id (L15)."""
    return WebhookDelivery(
        delivery_id=delivery_id_of(endpoint_id, event, fact_id),
        endpoint_id=endpoint_id,
        event=event,
        organization_id=organization_id,
        body=body,
        planned_at=now,
        due_at=now,
        give_up_at=now + GIVE_UP_AFTER,
    )


def delivery_id_of(endpoint_id: str, event: WebhookEvent, fact_id: str) -> str:
    """Equal for the same fact and endpoint, different otherwise; without dots, which the signature separates by."""
    return "msg_" + hashlib.sha256(f"{endpoint_id}\n{event}\n{fact_id}".encode()).hexdigest()[:40]


def wait_before(delivery_id: str, *, after_attempts: int) -> timedelta:
    """How long to wait after so many tries, at least one: rising, and up to a fifth longer or shorter by id.

    The same for the same id and try, so that tests and people can say when the next one comes; different between
    ids, so that a receiver that comes back is not met by everything at once.
    """
    seconds = WAITS_SECONDS[min(after_attempts, len(WAITS_SECONDS)) - 1]
    dice = int.from_bytes(hashlib.sha256(f"{delivery_id}/{after_attempts}".encode()).digest()[:4], "big")
    spread = 2 * JITTER_PERCENT * dice // _JITTER_STEPS - JITTER_PERCENT
    return timedelta(milliseconds=seconds * 10 * (100 + spread))

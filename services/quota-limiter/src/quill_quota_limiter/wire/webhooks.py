"""Webhooks as documents: what is delivered, what operators send, what they are shown."""

import base64
import json
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, field_validator
from quill_contracts.identifiers import OrganizationId
from quill_contracts.message import Message

from quill_quota_limiter.domain.webhook_delivery import WebhookDelivery
from quill_quota_limiter.domain.webhook_endpoint import WebhookEndpoint, WebhookEvent
from quill_quota_limiter.wire.rules import Actor, Reason

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the scheme's prefix, no secret
SECRET_BYTES: Final = 32
EVENTS: Final[tuple[WebhookEvent, ...]] = ("limits.transition", "limits.threshold")
OVERLAP_HOURS: Final = 24
OVERLAP_HOURS_MAX: Final = 168

Description = Annotated[str, Field(max_length=500)]
Url = Annotated[str, Field(min_length=1, max_length=2_000)]
Events = Annotated[list[WebhookEvent], Field(min_length=1, max_length=len(EVENTS))]


class _Command(BaseModel):
    """Who does it, and why (L20)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    actor: Actor
    reason: Reason


class NewWebhook(_Command):
    """An endpoint to add; without an organization it hears of everybody."""

    url: Url
    description: Description = ""
    events: Events = Field(default_factory=lambda: list(EVENTS))
    organization_id: OrganizationId | None = None


class WebhookChange(_Command):
    """What is to be otherwise; what is left out stays. ``enabled`` also forgives failures."""

    url: Url | None = None
    description: Description | None = None
    events: Events | None = None
    enabled: bool | None = None

    @field_validator("url", "description", "events", "enabled")
    @classmethod
    def _is_given(cls, value: object) -> object:
        if value is None:
            raise ValueError("leave it out to keep it; null is no value")
        return value


class SecretRotation(_Command):
    """Make another secret; the present one signs beside it for so many hours."""

    overlap_hours: Annotated[int, Field(ge=0, le=OVERLAP_HOURS_MAX, strict=True)] = OVERLAP_HOURS


class WebhookCommand(_Command):
    """Do it, by whom, and why."""


def to_body(event: WebhookEvent, message: Message, *, at: datetime, revision: int) -> bytes:
    """The JSON that is signed and sent: the Kafka message as ``data``, and the organization's revision.

    Deliveries may overtake each other; a reader keeps the highest ``revision`` per organization.
    """
    data = json.loads(message.to_bytes())
    document = {"type": event, "timestamp": at.isoformat(), "revision": revision, "data": data}
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def to_wire_secret(secret: bytes) -> str:
    """The secret as a person copies it."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def to_wire_endpoint(endpoint: WebhookEndpoint) -> dict[str, Any]:
    """An endpoint without its secrets."""
    return {
        "endpoint_id": endpoint.endpoint_id,
        "url": endpoint.url,
        "description": endpoint.description,
        "events": list(endpoint.events),
        "organization_id": endpoint.organization_id,
        "enabled": endpoint.is_enabled,
        "disabled_because": endpoint.disabled_because,
        "failing_since": endpoint.failing_since,
        "previous_secret_until": endpoint.previous_until,
        "created_at": endpoint.created_at,
    }


def to_wire_delivery(delivery: WebhookDelivery) -> dict[str, Any]:
    """A delivery and how far it got."""
    return {
        "delivery_id": delivery.delivery_id,
        "endpoint_id": delivery.endpoint_id,
        "event": delivery.event,
        "organization_id": delivery.organization_id,
        "status": delivery.status,
        "attempts": delivery.attempts,
        "planned_at": delivery.planned_at,
        "due_at": delivery.due_at if delivery.status == "pending" else None,
        "give_up_at": delivery.give_up_at,
        "finished_at": delivery.finished_at,
        "last_status": delivery.last_status,
        "last_error": delivery.last_error,
        "last_response": delivery.last_response,
        "body": json.loads(delivery.body),
    }

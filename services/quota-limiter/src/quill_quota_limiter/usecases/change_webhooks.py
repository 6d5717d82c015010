"""Endpoints are added, changed, given another secret, removed; failed deliveries are sent again. All events (L20)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from quill_runtime.event_store import NewEvent

from quill_quota_limiter.domain.webhook_delivery import WebhookDelivery
from quill_quota_limiter.domain.webhook_endpoint import WebhookEndpoint, WebhookEvent
from quill_quota_limiter.ports import WEBHOOK_ENDPOINTS_MAX, LimitsTransaction

REPLAYED_MAX: Final = 1_000
GIVE_UP_PAGES_MAX: Final = 1_000


class UnknownEndpoint(LookupError):
    """No endpoint has this id."""


class UnknownDelivery(LookupError):
    """No delivery has this id, or it was forgotten."""


class WebhooksConflict(Exception):
    """It cannot be done as things stand; the text says what to do first."""


async def add_endpoint(endpoint: WebhookEndpoint, *, actor: str, reason: str, tx: LimitsTransaction) -> WebhookEndpoint:
    """Tell at another address from now on.

    Raises:
        WebhooksConflict: there are as many as there can be.
    """
    if len(await tx.webhooks.endpoints()) >= WEBHOOK_ENDPOINTS_MAX:
        raise WebhooksConflict(f"there are {WEBHOOK_ENDPOINTS_MAX} endpoints already; remove one first")
    await tx.webhooks.save_endpoint(endpoint)
    await _record(tx, "webhook_added", endpoint, by=(actor, reason), now=endpoint.created_at, after=_shown(endpoint))
    return endpoint


async def change_endpoint(
    endpoint_id: str,
    *,
    url: str | None,
    description: str | None,
    events: Sequence[WebhookEvent] | None,
    enabled: bool | None,
    actor: str,
    reason: str,
    tx: LimitsTransaction,
    now: datetime,
) -> WebhookEndpoint:
    """Change what is given; what is ``None`` stays. What waits for an endpoint that is enabled again is sent.

    Raises:
        UnknownEndpoint: with the id.
    """
    before = await _locked(tx, endpoint_id)
    after = replace(
        before,
        url=before.url if url is None else url,
        description=before.description if description is None else description,
        events=before.events if events is None else tuple(dict.fromkeys(events)),
    )
    if enabled is True:
        after = after.enabled()
    elif enabled is False:
        after = replace(after, disabled_because=before.disabled_because or "person")
    if after != before:
        await tx.webhooks.save_endpoint(after)
        await _record(
            tx, "webhook_changed", after, by=(actor, reason), now=now, before=_shown(before), after=_shown(after)
        )
    return after


async def rotate_secret(
    endpoint_id: str,
    sealed_secret: str,
    *,
    overlap: timedelta,
    actor: str,
    reason: str,
    tx: LimitsTransaction,
    now: datetime,
) -> WebhookEndpoint:
    """Sign with another secret, and with the one before it too for a while.

    Raises:
        UnknownEndpoint: with the id.
    """
    after = (await _locked(tx, endpoint_id)).rotated(sealed_secret, previous_until=now + overlap)
    await tx.webhooks.save_endpoint(after)
    data = {"previous_until": (now + overlap).isoformat()}
    await _record(tx, "webhook_secret_rotated", after, by=(actor, reason), now=now, after=data)
    return after


async def remove_endpoint(endpoint_id: str, *, actor: str, reason: str, tx: LimitsTransaction, now: datetime) -> None:
    """Tell there no more; what was on its way has failed, and is shown as that.

    Raises:
        UnknownEndpoint: with the id.
    """
    before = await _locked(tx, endpoint_id)
    for _ in range(GIVE_UP_PAGES_MAX):
        if not await tx.webhooks.give_up(now, endpoint_id=endpoint_id, error="the endpoint was removed"):
            break
    await tx.webhooks.remove_endpoint(endpoint_id)
    await _record(tx, "webhook_removed", before, by=(actor, reason), now=now, before=_shown(before))


async def replay_delivery(
    delivery_id: str, *, actor: str, reason: str, tx: LimitsTransaction, now: datetime
) -> WebhookDelivery:
    """Send a failed delivery again, with the same id and body.

    Raises:
        UnknownDelivery: with the id.
        UnknownEndpoint: it was removed.
        WebhooksConflict: it has not failed.
    """
    found = await tx.webhooks.deliveries(delivery_id=delivery_id, at_most=1)
    if not found:
        raise UnknownDelivery(delivery_id)
    endpoint = await _locked(tx, found[0].endpoint_id)
    (delivery,) = await tx.webhooks.deliveries(delivery_id=delivery_id, lock=True, at_most=1)
    if delivery.status != "failed":
        raise WebhooksConflict(f"delivery {delivery_id} is {delivery.status}; only a failed one can be sent again")
    again = delivery.replayed(now)
    await tx.webhooks.replace([again])
    await _record(tx, "webhook_replayed", endpoint, by=(actor, reason), now=now, after={"deliveries": [delivery_id]})
    return again


async def replay_failed(
    endpoint_id: str, *, actor: str, reason: str, tx: LimitsTransaction, now: datetime
) -> list[WebhookDelivery]:
    """Send an endpoint's failed deliveries again, at most 1,000 at once.

    Raises:
        UnknownEndpoint: with the id.
    """
    endpoint = await _locked(tx, endpoint_id)
    failed = await tx.webhooks.deliveries(status="failed", endpoint_id=endpoint_id, lock=True, at_most=REPLAYED_MAX)
    again = [delivery.replayed(now) for delivery in failed]
    if again:
        await tx.webhooks.replace(again)
        named = [delivery.delivery_id for delivery in again]
        await _record(tx, "webhook_replayed", endpoint, by=(actor, reason), now=now, after={"deliveries": named})
    return again


def stream_of(endpoint_id: str) -> str:
    """Where an endpoint's changes are recorded."""
    return f"limit-webhook/{endpoint_id}"


async def _locked(tx: LimitsTransaction, endpoint_id: str) -> WebhookEndpoint:
    found = await tx.webhooks.find_endpoint(endpoint_id, lock=True)
    if found is None:
        raise UnknownEndpoint(endpoint_id)
    return found


async def _record(
    tx: LimitsTransaction,
    kind: str,
    endpoint: WebhookEndpoint,
    *,
    by: tuple[str, str],
    now: datetime,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    actor, reason = by
    data = {"reason": reason, "before": before, "after": after}
    await tx.record(stream_of(endpoint.endpoint_id), NewEvent(kind, data, actor, now))


def _shown(endpoint: WebhookEndpoint) -> dict[str, Any]:
    """What an event keeps of an endpoint: never its secrets."""
    return {
        "url": endpoint.url,
        "description": endpoint.description,
        "events": list(endpoint.events),
        "organization_id": endpoint.organization_id,
        "disabled_because": endpoint.disabled_because,
    }

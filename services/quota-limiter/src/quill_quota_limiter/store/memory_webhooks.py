"""Webhook endpoints and deliveries without Postgres."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from quill_quota_limiter.domain.webhook_delivery import DeliveryStatus, WebhookDelivery
from quill_quota_limiter.domain.webhook_endpoint import WebhookEndpoint
from quill_quota_limiter.domain.webhook_rooms import Rooms


@dataclass(slots=True)
class WebhookRows:
    """Everything there is about webhooks."""

    endpoints: dict[str, WebhookEndpoint] = field(default_factory=dict)
    deliveries: dict[str, WebhookDelivery] = field(default_factory=dict)

    def copy(self) -> "WebhookRows":
        return WebhookRows(dict(self.endpoints), dict(self.deliveries))


class MemoryWebhooks:
    """Implements `quill_quota_limiter.ports.WebhookBook`."""

    def __init__(self, rows: WebhookRows) -> None:
        self._rows = rows

    async def endpoints(self) -> list[WebhookEndpoint]:
        return sorted(self._rows.endpoints.values(), key=lambda each: (each.created_at, each.endpoint_id))

    async def find_endpoint(self, endpoint_id: str, *, lock: bool = False) -> WebhookEndpoint | None:
        del lock  # transactions take turns
        return self._rows.endpoints.get(endpoint_id)

    async def save_endpoint(self, endpoint: WebhookEndpoint) -> None:
        self._rows.endpoints[endpoint.endpoint_id] = endpoint

    async def remove_endpoint(self, endpoint_id: str) -> None:
        self._rows.endpoints.pop(endpoint_id, None)

    async def plan(self, deliveries: Sequence[WebhookDelivery]) -> int:
        before = len(self._rows.deliveries)
        for delivery in deliveries:
            self._rows.deliveries.setdefault(delivery.delivery_id, delivery)
        return len(self._rows.deliveries) - before

    async def lease(self, now: datetime, *, until: datetime, rooms: Rooms) -> list[WebhookDelivery]:
        due: list[WebhookDelivery] = []
        for endpoint in await self.endpoints():
            if endpoint.is_enabled:
                waiting = [each for each in self._pending(endpoint.endpoint_id) if each.due_at <= now]
                due += sorted(waiting, key=_due)[: rooms.of(endpoint)]
        taken = [each.leased(until) for each in sorted(due, key=_due)[: max(0, rooms.total)]]
        self._rows.deliveries.update({each.delivery_id: each for each in taken})
        return taken

    async def settle(self, delivery: WebhookDelivery, *, lease: datetime) -> bool:
        stored = self._rows.deliveries.get(delivery.delivery_id)
        if stored is None or stored.status != "pending" or stored.due_at != lease:
            return False
        self._rows.deliveries[delivery.delivery_id] = delivery
        return True

    async def replace(self, deliveries: Sequence[WebhookDelivery]) -> None:
        self._rows.deliveries.update({each.delivery_id: each for each in deliveries})

    async def deliveries(
        self,
        *,
        status: DeliveryStatus | None = None,
        endpoint_id: str | None = None,
        delivery_id: str | None = None,
        lock: bool = False,
        at_most: int,
    ) -> list[WebhookDelivery]:
        del lock  # transactions take turns
        found = [
            each
            for each in self._rows.deliveries.values()
            if status in (None, each.status)
            and endpoint_id in (None, each.endpoint_id)
            and delivery_id in (None, each.delivery_id)
        ]
        by_id = sorted(found, key=lambda each: each.delivery_id)
        return sorted(by_id, key=lambda each: each.planned_at, reverse=True)[:at_most]

    async def pending_count(self) -> int:
        return len(self._pending(None))

    async def give_up(self, now: datetime, *, endpoint_id: str | None, error: str) -> int:
        over = [
            each for each in self._pending(endpoint_id) if endpoint_id or (each.give_up_at < now and each.due_at <= now)
        ]
        for each in over:
            self._rows.deliveries[each.delivery_id] = replace(
                each, status="failed", finished_at=now, last_error=each.last_error or error
            )
        return len(over)

    async def forget(self, before: datetime) -> int:
        old = [
            name
            for name, each in self._rows.deliveries.items()
            if each.finished_at is not None and each.finished_at < before
        ]
        for name in old:
            del self._rows.deliveries[name]
        return len(old)

    def _pending(self, endpoint_id: str | None) -> list[WebhookDelivery]:
        return [
            each
            for each in self._rows.deliveries.values()
            if each.status == "pending" and endpoint_id in (None, each.endpoint_id)
        ]


def _due(delivery: WebhookDelivery) -> tuple[datetime, str]:
    return delivery.due_at, delivery.delivery_id

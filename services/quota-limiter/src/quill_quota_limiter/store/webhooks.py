"""Webhook endpoints and deliveries in Postgres."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Final

from quill_runtime.database import Transaction
from sqlalchemy import ARRAY, Integer, Row, String, delete, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert

from quill_quota_limiter.domain.webhook_delivery import DeliveryStatus, WebhookDelivery
from quill_quota_limiter.domain.webhook_endpoint import WebhookEndpoint
from quill_quota_limiter.domain.webhook_rooms import Rooms
from quill_quota_limiter.ports import WEBHOOK_ENDPOINTS_MAX
from quill_quota_limiter.store.tables import webhook_deliveries, webhook_endpoints

PAGE: Final = 1_000
COUNTED_MAX: Final = 100_000


class PostgresWebhooks:
    """Implements `quill_quota_limiter.ports.WebhookBook`. Endpoints are locked before deliveries, never after."""

    def __init__(self, transaction: Transaction) -> None:
        self._connection = transaction.connection

    async def endpoints(self) -> list[WebhookEndpoint]:
        table = webhook_endpoints
        rows = await self._connection.execute(
            select(table).order_by(table.c.created_at, table.c.endpoint_id).limit(WEBHOOK_ENDPOINTS_MAX)
        )
        return [_endpoint(row) for row in rows]

    async def find_endpoint(self, endpoint_id: str, *, lock: bool = False) -> WebhookEndpoint | None:
        statement = select(webhook_endpoints).where(webhook_endpoints.c.endpoint_id == endpoint_id)
        found = await self._connection.execute(statement.with_for_update() if lock else statement)
        row = found.one_or_none()
        return None if row is None else _endpoint(row)

    async def save_endpoint(self, endpoint: WebhookEndpoint) -> None:
        values = _values(endpoint)
        statement = insert(webhook_endpoints).values(values)
        await self._connection.execute(
            statement.on_conflict_do_update(index_elements=["endpoint_id"], set_=_without(values, "endpoint_id"))
        )

    async def remove_endpoint(self, endpoint_id: str) -> None:
        await self._connection.execute(delete(webhook_endpoints).where(webhook_endpoints.c.endpoint_id == endpoint_id))

    async def plan(self, deliveries: Sequence[WebhookDelivery]) -> int:
        planned = 0
        ordered = sorted(deliveries, key=lambda delivery: delivery.delivery_id)
        for start in range(0, len(ordered), PAGE):
            rows = [_values(delivery) for delivery in ordered[start : start + PAGE]]
            statement = insert(webhook_deliveries).values(rows).on_conflict_do_nothing()
            planned += (await self._connection.execute(statement)).rowcount
        return planned

    async def lease(self, now: datetime, *, until: datetime, rooms: Rooms) -> list[WebhookDelivery]:
        table = webhook_deliveries
        enabled = [endpoint for endpoint in await self.endpoints() if endpoint.is_enabled]
        rooms_of = {each.endpoint_id: rooms.of(each) for each in enabled if rooms.of(each)}
        if not rooms_of or rooms.total <= 0:
            return []
        endpoints = select(
            func.unnest(literal(list(rooms_of), ARRAY(String))).label("endpoint_id"),
            func.unnest(literal(list(rooms_of.values()), ARRAY(Integer))).label("room"),
        ).subquery()
        due = (
            select(table)
            .where(table.c.endpoint_id == endpoints.c.endpoint_id, table.c.status == "pending", table.c.due_at <= now)
            .order_by(table.c.due_at)
            .limit(endpoints.c.room)
            .with_for_update(skip_locked=True)
            .lateral()
        )
        rows = await self._connection.execute(
            select(due).select_from(endpoints.join(due, literal(True))).order_by(due.c.due_at).limit(rooms.total)
        )
        taken = [_delivery(row).leased(until) for row in rows]
        if taken:
            await self._connection.execute(
                update(table)
                .where(table.c.delivery_id.in_([each.delivery_id for each in taken]))
                .values(due_at=until, attempts=table.c.attempts + 1)
            )
        return taken

    async def settle(self, delivery: WebhookDelivery, *, lease: datetime) -> bool:
        table = webhook_deliveries
        settled = await self._connection.execute(
            update(table)
            .where(table.c.delivery_id == delivery.delivery_id, table.c.status == "pending", table.c.due_at == lease)
            .values(_without(_values(delivery), "delivery_id"))
        )
        return settled.rowcount == 1

    async def replace(self, deliveries: Sequence[WebhookDelivery]) -> None:
        table = webhook_deliveries
        for delivery in deliveries:
            await self._connection.execute(
                update(table)
                .where(table.c.delivery_id == delivery.delivery_id)
                .values(_without(_values(delivery), "delivery_id"))
            )

    async def deliveries(
        self,
        *,
        status: DeliveryStatus | None = None,
        endpoint_id: str | None = None,
        delivery_id: str | None = None,
        lock: bool = False,
        at_most: int,
    ) -> list[WebhookDelivery]:
        table = webhook_deliveries
        asked = {"status": status, "endpoint_id": endpoint_id, "delivery_id": delivery_id}
        statement = (
            select(table)
            .where(*(table.c[name] == value for name, value in asked.items() if value is not None))
            .order_by(table.c.planned_at.desc(), table.c.delivery_id)
            .limit(at_most)
        )
        return [
            _delivery(row) for row in await self._connection.execute(statement.with_for_update() if lock else statement)
        ]

    async def pending_count(self) -> int:
        table = webhook_deliveries
        some = select(table.c.delivery_id).where(table.c.status == "pending").limit(COUNTED_MAX).subquery()
        return await self._connection.scalar(select(func.count()).select_from(some)) or 0

    async def give_up(self, now: datetime, *, endpoint_id: str | None, error: str) -> int:
        table = webhook_deliveries
        whose = (
            (table.c.give_up_at < now, table.c.due_at <= now)
            if endpoint_id is None
            else (table.c.endpoint_id == endpoint_id,)
        )
        some = select(table.c.delivery_id).where(table.c.status == "pending", *whose).limit(PAGE)
        given_up = await self._connection.execute(
            update(table)
            .where(table.c.delivery_id.in_(some.with_for_update(skip_locked=endpoint_id is None)))
            .values(status="failed", finished_at=now, last_error=func.coalesce(table.c.last_error, error))
        )
        return given_up.rowcount

    async def forget(self, before: datetime) -> int:
        table = webhook_deliveries
        old = select(table.c.delivery_id).where(table.c.finished_at < before).limit(PAGE)
        return (await self._connection.execute(delete(table).where(table.c.delivery_id.in_(old)))).rowcount


def _values(row: WebhookEndpoint | WebhookDelivery) -> dict[str, Any]:
    values = {each.name: getattr(row, each.name) for each in fields(row)}
    return values if "events" not in values else values | {"events": list(values["events"])}


def _without(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


def _endpoint(row: Row[Any]) -> WebhookEndpoint:
    values = row._asdict()
    return WebhookEndpoint(**values | {"events": tuple(values["events"])})


def _delivery(row: Row[Any]) -> WebhookDelivery:
    return WebhookDelivery(**row._asdict())

"""The rail's objects, effects to come, reports sent, webhooks received."""

from datetime import datetime

from quill_runtime import operations
from quill_runtime.database import Transaction
from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert

from quill_invoicing.domain.webhook import Webhook
from quill_invoicing.ports import PlannedEffect, RailAccount, SentReport
from quill_invoicing.store.tables import meter_reports, rail_customers, webhook_events


class RailRows:
    """The rail part of a transaction on Postgres."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._connection = transaction.connection

    async def plan(self, effect: PlannedEffect, *, now: datetime) -> bool:
        return await operations.plan(
            self._transaction,
            operation_id=effect.operation_id,
            kind=effect.kind,
            subject=effect.subject,
            request=effect.request,
            now=now,
        )

    async def rail_account(self, organization_id: str) -> RailAccount | None:
        row = (
            await self._connection.execute(
                select(rail_customers).where(rail_customers.c.organization_id == organization_id)
            )
        ).one_or_none()
        if row is None:
            return None
        return RailAccount(
            row.organization_id,
            row.customer,
            row.subscription,
            row.subscribed_revision,
            row.billed_from,
            {product: datetime.fromisoformat(since) for product, since in row.rated_from.items()},
        )

    async def save_rail_account(self, account: RailAccount) -> None:
        values = {
            "customer": account.customer,
            "subscription": account.subscription,
            "subscribed_revision": account.subscribed_revision,
            "billed_from": account.billed_from,
            "rated_from": {product: since.isoformat() for product, since in account.rated_from.items()},
        }
        await self._connection.execute(
            insert(rail_customers)
            .values(organization_id=account.organization_id, **values)
            .on_conflict_do_update(index_elements=["organization_id"], set_=values)
        )

    async def sent_reports(self, organization_id: str, period_start: datetime) -> dict[str, SentReport]:
        rows = await self._connection.execute(
            select(meter_reports).where(
                meter_reports.c.organization_id == organization_id, meter_reports.c.period_start == period_start
            )
        )
        return {row.product_key: SentReport(row.quantity, row.stamped_at, row.looked_at) for row in rows}

    async def save_sent_report(
        self, organization_id: str, product_key: str, period_start: datetime, report: SentReport
    ) -> None:
        values = {
            "quantity": report.quantity,
            "stamped_at": report.stamped_at,
            "looked_at": report.looked_at,
        }
        await self._connection.execute(
            insert(meter_reports)
            .values(organization_id=organization_id, product_key=product_key, period_start=period_start, **values)
            .on_conflict_do_update(index_elements=["organization_id", "product_key", "period_start"], set_=values)
        )

    async def take_webhook(self, webhook: Webhook, *, received_at: datetime) -> bool:
        taken = await self._connection.scalar(
            insert(webhook_events)
            .values(
                event_id=webhook.event_id,
                type=webhook.type,
                api_version=webhook.api_version,
                object_id=webhook.object_id,
                created=webhook.created,
                raw=webhook.raw,
                received_at=received_at,
                due_at=received_at,
            )
            .on_conflict_do_nothing()
            .returning(webhook_events.c.event_id)
        )
        return taken is not None

    async def due_webhooks(self, *, now: datetime, limit: int) -> list[Webhook]:
        rows = await self._connection.execute(
            select(webhook_events)
            .where(webhook_events.c.processed_at.is_(None), webhook_events.c.due_at <= now)
            .order_by(webhook_events.c.due_at, webhook_events.c.event_id)
            .limit(limit)
        )
        return [
            Webhook(row.event_id, row.type, row.api_version, row.object_id, row.created, row.raw, row.attempts)
            for row in rows
        ]

    async def mark_webhook(self, event_id: str, *, outcome: str, processed_at: datetime) -> None:
        await self._connection.execute(
            update(webhook_events)
            .where(webhook_events.c.event_id == event_id)
            .values(outcome=outcome, processed_at=processed_at)
        )

    async def postpone_webhook(self, event_id: str, *, problem: str, due_at: datetime) -> None:
        await self._connection.execute(
            update(webhook_events)
            .where(webhook_events.c.event_id == event_id)
            .values(outcome=problem, due_at=due_at, attempts=webhook_events.c.attempts + 1)
        )

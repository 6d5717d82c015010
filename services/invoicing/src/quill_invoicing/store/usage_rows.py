"""Usage by period, closings, late usage."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from quill_pricing.period import BillingPeriod
from quill_runtime.database import Transaction
from sqlalchemy import Row, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from quill_invoicing.domain.closing import ClosedPeriod, LateUsage
from quill_invoicing.domain.period_usage import KnownUsage, PeriodUsage
from quill_invoicing.ports import SNAPSHOT_PERIODS
from quill_invoicing.store.documents import (
    billed_documents,
    billed_from_documents,
    waiver_documents,
    waivers_from_documents,
)
from quill_invoicing.store.tables import closed_periods, late_usage, usage_periods


class UsageRows:
    """The usage part of a transaction on Postgres."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._connection = transaction.connection

    async def save_usage(self, organization_id: str, usage: PeriodUsage) -> bool:
        values = {
            "period_end": usage.period.end,
            "revision": usage.revision,
            "customer_revision": usage.customer_revision,
            "meters": dict(usage.meters),
            "cuts": [{"at": at.isoformat(), "used": dict(used)} for at, used in usage.cuts.items()],
        }
        is_newer = await self._connection.scalar(
            insert(usage_periods)
            .values(organization_id=organization_id, period_start=usage.period.start, **values)
            .on_conflict_do_update(
                index_elements=["organization_id", "period_start"],
                set_=values,
                where=usage_periods.c.revision < usage.revision,
            )
            .returning(usage_periods.c.revision)
        )
        return is_newer is not None

    async def forget_other_periods(
        self, organization_id: str, periods: Sequence[PeriodUsage], *, revision: int
    ) -> None:
        starts = [usage.period.start for usage in periods]
        moved_away = delete(usage_periods).where(
            usage_periods.c.organization_id == organization_id,
            usage_periods.c.period_start.not_in(starts),
            usage_periods.c.revision < revision,
        )
        if len(starts) >= SNAPSHOT_PERIODS:
            moved_away = moved_away.where(usage_periods.c.period_start > min(starts))
        await self._connection.execute(moved_away)

    async def known_usage(self, organization_id: str, period: BillingPeriod) -> KnownUsage:
        rows = await self._connection.execute(
            select(usage_periods)
            .where(usage_periods.c.organization_id == organization_id, usage_periods.c.period_start <= period.start)
            .order_by(usage_periods.c.period_start.desc())
            .limit(2)
        )
        found = [_usage(row) for row in rows]
        current = next((usage for usage in found if usage.period.start == period.start), None)
        earlier = next((usage for usage in found if usage.period.start < period.start), None)
        followed = await self._connection.scalar(
            select(func.max(usage_periods.c.customer_revision)).where(
                usage_periods.c.organization_id == organization_id
            )
        )
        return KnownUsage.of(period, current, earlier, followed_revision=followed or 0)

    async def close(self, closed: ClosedPeriod) -> bool:
        inserted = await self._connection.scalar(
            insert(closed_periods)
            .values(
                organization_id=closed.organization_id,
                period_start=closed.period.start,
                period_end=closed.period.end,
                closed_at=closed.closed_at,
                usage_revision=closed.usage_revision,
                invoice_id=closed.invoice_id,
                billed=billed_documents(closed.billed),
                waivers=waiver_documents(closed.waivers),
            )
            .on_conflict_do_nothing()
            .returning(closed_periods.c.organization_id)
        )
        return inserted is not None

    async def closed_period(self, organization_id: str, period_start: datetime) -> ClosedPeriod | None:
        row = (
            await self._connection.execute(
                select(closed_periods).where(
                    closed_periods.c.organization_id == organization_id,
                    closed_periods.c.period_start == period_start,
                )
            )
        ).one_or_none()
        return None if row is None else _closed(row)

    async def closed_periods_of(self, organization_id: str, *, limit: int) -> list[ClosedPeriod]:
        rows = await self._connection.execute(
            select(closed_periods)
            .where(closed_periods.c.organization_id == organization_id)
            .order_by(closed_periods.c.period_start.desc())
            .limit(limit)
        )
        return [_closed(row) for row in rows]

    async def add_late_usage(self, late: LateUsage) -> None:
        await self._connection.execute(
            insert(late_usage).values(
                organization_id=late.organization_id,
                period_start=late.period_start,
                product_key=late.product_key,
                revision=late.revision,
                quantity_before=late.quantity_before,
                quantity_after=late.quantity_after,
                recorded_at=late.recorded_at,
            )
        )

    async def late_usage_of(self, organization_id: str, period_start: datetime, product_key: str) -> LateUsage | None:
        row = (
            await self._connection.execute(
                select(late_usage)
                .where(
                    late_usage.c.organization_id == organization_id,
                    late_usage.c.period_start == period_start,
                    late_usage.c.product_key == product_key,
                )
                .order_by(late_usage.c.revision.desc())
                .limit(1)
            )
        ).one_or_none()
        return None if row is None else _late(row)

    async def unsettled_late_usage(self, organization_id: str) -> list[LateUsage]:
        rows = await self._connection.execute(
            select(late_usage)
            .where(late_usage.c.organization_id == organization_id, late_usage.c.invoice_id.is_(None))
            .order_by(late_usage.c.period_start, late_usage.c.product_key, late_usage.c.revision)
        )
        return [_late(row) for row in rows]

    async def settle_late_usage(self, steps: Sequence[LateUsage], *, invoice_id: str) -> None:
        for step in steps:
            await self._connection.execute(
                update(late_usage)
                .where(
                    late_usage.c.organization_id == step.organization_id,
                    late_usage.c.period_start == step.period_start,
                    late_usage.c.product_key == step.product_key,
                    late_usage.c.revision == step.revision,
                )
                .values(invoice_id=invoice_id)
            )


def _usage(row: Row[Any]) -> PeriodUsage:
    return PeriodUsage(
        period=BillingPeriod(row.period_start, row.period_end),
        revision=row.revision,
        customer_revision=row.customer_revision,
        meters=row.meters,
        cuts={datetime.fromisoformat(cut["at"]): cut["used"] for cut in row.cuts},
    )


def _closed(row: Row[Any]) -> ClosedPeriod:
    return ClosedPeriod(
        organization_id=row.organization_id,
        period=BillingPeriod(row.period_start, row.period_end),
        closed_at=row.closed_at,
        usage_revision=row.usage_revision,
        invoice_id=row.invoice_id,
        billed=billed_from_documents(row.billed),
        waivers=waivers_from_documents(row.waivers),
    )


def _late(row: Row[Any]) -> LateUsage:
    return LateUsage(
        organization_id=row.organization_id,
        period_start=row.period_start,
        product_key=row.product_key,
        revision=row.revision,
        quantity_before=row.quantity_before,
        quantity_after=row.quantity_after,
        recorded_at=row.recorded_at,
    )

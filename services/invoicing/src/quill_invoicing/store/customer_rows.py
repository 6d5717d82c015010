"""Customers, their terms, and the period that is open."""

from datetime import datetime

from quill_pricing.period import BillingPeriod
from quill_runtime.database import Transaction
from sqlalchemy import and_, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from quill_invoicing.domain.terms import CustomerTerms, TermsHistory
from quill_invoicing.store.documents import terms_document, terms_from_document
from quill_invoicing.store.tables import customer_terms, customers, held_closings


class CustomerRows:
    """The customer part of a transaction on Postgres."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._connection = transaction.connection

    async def customer_revision(self, organization_id: str) -> int:
        revision = await self._connection.scalar(
            select(customers.c.revision).where(customers.c.organization_id == organization_id).with_for_update()
        )
        return int(revision or 0)

    async def save_customer(self, organization_id: str, *, revision: int, open_period: BillingPeriod) -> None:
        values = {
            "revision": revision,
            "open_period_start": open_period.start,
            "open_period_end": open_period.end,
        }
        await self._connection.execute(
            insert(customers)
            .values(organization_id=organization_id, **values)
            .on_conflict_do_update(index_elements=["organization_id"], set_=values)
        )

    async def open_period(self, organization_id: str) -> BillingPeriod | None:
        row = (
            await self._connection.execute(
                select(customers.c.open_period_start, customers.c.open_period_end).where(
                    customers.c.organization_id == organization_id
                )
            )
        ).one_or_none()
        return None if row is None else BillingPeriod(row.open_period_start, row.open_period_end)

    async def lock_open_period(self, organization_id: str) -> BillingPeriod | None:
        row = (
            await self._connection.execute(
                select(customers.c.open_period_start, customers.c.open_period_end)
                .where(customers.c.organization_id == organization_id)
                .with_for_update(skip_locked=True)
            )
        ).one_or_none()
        return None if row is None else BillingPeriod(row.open_period_start, row.open_period_end)

    async def move_open_period(self, organization_id: str, period: BillingPeriod) -> None:
        await self._connection.execute(
            update(customers)
            .where(customers.c.organization_id == organization_id)
            .values(open_period_start=period.start, open_period_end=period.end)
        )

    async def organizations_to_close(self, *, ended_before: datetime, limit: int, now: datetime) -> list[str]:
        is_held = select(held_closings.c.organization_id).where(
            held_closings.c.organization_id == customers.c.organization_id,
            held_closings.c.period_start == customers.c.open_period_start,
            held_closings.c.look_again_at > now,
        )
        rows = await self._connection.execute(
            select(customers.c.organization_id)
            .where(customers.c.open_period_end <= ended_before, ~is_held.exists())
            .order_by(customers.c.open_period_end, customers.c.organization_id)
            .limit(limit)
        )
        return list(rows.scalars())

    async def organizations_to_hold(self, *, now: datetime, limit: int) -> list[str]:
        rows = await self._connection.execute(
            select(customers.c.organization_id)
            .where(
                and_(
                    customers.c.open_period_end <= now,
                    or_(
                        customers.c.held_period_start.is_(None),
                        customers.c.held_period_start != customers.c.open_period_start,
                    ),
                )
            )
            .order_by(customers.c.open_period_end, customers.c.organization_id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return list(rows.scalars())

    async def mark_held(self, organization_id: str, period_start: datetime) -> None:
        await self._connection.execute(
            update(customers)
            .where(customers.c.organization_id == organization_id)
            .values(held_period_start=period_start)
        )

    async def add_terms(self, terms: CustomerTerms) -> None:
        await self._connection.execute(
            insert(customer_terms).values(
                organization_id=terms.organization_id,
                revision=terms.revision,
                effective_at=terms.effective_at,
                terms=terms_document(terms),
            )
        )

    async def terms_history(self, organization_id: str) -> TermsHistory:
        rows = await self._connection.execute(
            select(customer_terms).where(customer_terms.c.organization_id == organization_id)
        )
        return TermsHistory.of(
            terms_from_document(row.organization_id, row.revision, row.effective_at, row.terms) for row in rows
        )

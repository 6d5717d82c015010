"""What customers are owed: entries and their sums."""

from typing import Any

from quill_runtime.database import Transaction
from sqlalchemy import Row, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert

from quill_invoicing.domain.credits import CreditBalance, CreditEntry
from quill_invoicing.store.tables import credit_entries

_SUM = func.sum(credit_entries.c.amount_minor)


class CreditRows:
    """The credit part of a transaction on Postgres."""

    def __init__(self, transaction: Transaction) -> None:
        self._connection = transaction.connection

    async def add_credit_entry(self, entry: CreditEntry) -> bool:
        added = await self._connection.scalar(
            insert(credit_entries)
            .values(
                entry_id=entry.entry_id,
                organization_id=entry.organization_id,
                currency=entry.currency,
                kind=entry.kind,
                amount_minor=entry.amount_minor,
                invoice_id=entry.invoice_id,
                recorded_at=entry.recorded_at,
            )
            .on_conflict_do_nothing()
            .returning(credit_entries.c.entry_id)
        )
        return added is not None

    async def credit_balance(self, organization_id: str, currency: str) -> int:
        total = await self._connection.scalar(
            select(_SUM).where(
                credit_entries.c.organization_id == organization_id, credit_entries.c.currency == currency
            )
        )
        return int(total or 0)

    async def credit_entries_of(self, organization_id: str, *, limit: int) -> list[CreditEntry]:
        rows = await self._connection.execute(
            select(credit_entries)
            .where(credit_entries.c.organization_id == organization_id)
            .order_by(credit_entries.c.recorded_at.desc(), credit_entries.c.entry_id)
            .limit(limit)
        )
        return [_entry(row) for row in rows]

    async def credit_balances(
        self, *, organization_id: str | None = None, after: tuple[str, str] = ("", ""), limit: int
    ) -> list[CreditBalance]:
        query = (
            select(credit_entries.c.organization_id, credit_entries.c.currency, _SUM.label("balance"))
            .group_by(credit_entries.c.organization_id, credit_entries.c.currency)
            .order_by(credit_entries.c.organization_id, credit_entries.c.currency)
        )
        if organization_id is None:
            query = query.where(tuple_(credit_entries.c.organization_id, credit_entries.c.currency) > after).having(
                _SUM != 0
            )
        else:
            query = query.where(credit_entries.c.organization_id == organization_id)
        rows = await self._connection.execute(query.limit(limit))
        return [CreditBalance(row.organization_id, row.currency, int(row.balance)) for row in rows]


def _entry(row: Row[Any]) -> CreditEntry:
    return CreditEntry(
        entry_id=row.entry_id,
        organization_id=row.organization_id,
        currency=row.currency,
        kind=row.kind,
        amount_minor=row.amount_minor,
        invoice_id=row.invoice_id,
        recorded_at=row.recorded_at,
    )

"""Invoices, their lines, their comparison with the rail's."""

from datetime import datetime
from typing import Any

from quill_contracts import topics
from quill_pricing.period import BillingPeriod
from quill_runtime.database import Transaction
from quill_runtime.event_store import NewEvent, PostgresEventStream
from quill_runtime.outbox import Outbox
from quill_runtime.publisher import Outgoing
from sqlalchemy import Row, Select, select, update
from sqlalchemy.dialects.postgresql import insert

from quill_invoicing.domain.invoice import Invoice, InvoiceLine
from quill_invoicing.domain.reconciliation import Reconciliation
from quill_invoicing.ports import PersonsChange
from quill_invoicing.store.documents import difference_documents, differences_from_documents
from quill_invoicing.store.tables import invoice_lines, invoice_numbers, invoices, reconciliations
from quill_invoicing.wire import to_wire_invoice


class InvoiceRows:
    """The invoice part of a transaction on Postgres."""

    def __init__(self, transaction: Transaction, outbox: Outbox) -> None:
        self._transaction = transaction
        self._connection = transaction.connection
        self._outbox = outbox

    async def next_invoice_sequence(self, year: int) -> int:
        upsert = insert(invoice_numbers).values(year=year, last_sequence=1)
        sequence = await self._connection.scalar(
            upsert.on_conflict_do_update(
                index_elements=["year"], set_={"last_sequence": invoice_numbers.c.last_sequence + 1}
            ).returning(invoice_numbers.c.last_sequence)
        )
        return int(sequence or 0)

    async def add_invoice(self, draft: Invoice) -> None:
        await self._connection.execute(
            insert(invoices).values(
                invoice_id=draft.invoice_id,
                number=draft.number,
                organization_id=draft.organization_id,
                customer_id=draft.customer_id,
                revision=draft.revision,
                status=draft.status,
                currency=draft.currency,
                collection_mode=draft.collection_mode,
                period_start=draft.period.start,
                period_end=draft.period.end,
                usage_revision=draft.usage_revision,
                total_minor=draft.total_minor,
                created_at=draft.created_at,
                reconciliation=draft.reconciliation,
            )
        )
        if draft.lines:
            await self._connection.execute(
                insert(invoice_lines),
                [_line_values(draft.invoice_id, position, line) for position, line in enumerate(draft.lines)],
            )

    async def save_invoice(self, invoice: Invoice) -> None:
        await self._connection.execute(
            update(invoices)
            .where(invoices.c.invoice_id == invoice.invoice_id)
            .values(
                revision=invoice.revision,
                status=invoice.status,
                finalized_at=invoice.finalized_at,
                settled_at=invoice.settled_at,
                rail_invoice=invoice.rail_invoice,
                reconciliation=invoice.reconciliation,
                collection_problem=invoice.collection_problem,
            )
        )
        await self._outbox.add(
            self._transaction,
            [Outgoing(topics.INVOICES.name, invoice.organization_id, to_wire_invoice(invoice).to_bytes())],
        )

    async def invoice(self, invoice_id: str, *, locked: bool = False) -> Invoice | None:
        query = select(invoices).where(invoices.c.invoice_id == invoice_id)
        found = await self._invoices(query.with_for_update() if locked else query)
        return found[0] if found else None

    async def invoice_at_rail(self, rail_invoice: str) -> Invoice | None:
        found = await self._invoices(select(invoices).where(invoices.c.rail_invoice == rail_invoice))
        return found[0] if found else None

    async def invoices_of(self, organization_id: str, *, limit: int) -> list[Invoice]:
        return await self._invoices(
            select(invoices)
            .where(invoices.c.organization_id == organization_id)
            .order_by(invoices.c.period_start.desc())
            .limit(limit)
        )

    async def save_reconciliation(self, reconciliation: Reconciliation) -> None:
        values = {
            "compared_at": reconciliation.compared_at,
            "our_total_minor": reconciliation.our_total_minor,
            "rail_total_minor": reconciliation.rail_total_minor,
            "is_equal": reconciliation.is_equal,
            "differences": difference_documents(reconciliation.differences),
            "accepted_by": reconciliation.accepted_by,
            "accepted_reason": reconciliation.accepted_reason,
            "accepted_at": reconciliation.accepted_at,
        }
        await self._connection.execute(
            insert(reconciliations)
            .values(
                reconciliation_id=reconciliation.reconciliation_id,
                organization_id=reconciliation.organization_id,
                invoice_id=reconciliation.invoice_id,
                **values,
            )
            .on_conflict_do_update(index_elements=["reconciliation_id"], set_=values)
        )

    async def reconciliation(self, reconciliation_id: str, *, locked: bool = False) -> Reconciliation | None:
        query = select(reconciliations).where(reconciliations.c.reconciliation_id == reconciliation_id)
        row = (await self._connection.execute(query.with_for_update() if locked else query)).one_or_none()
        return None if row is None else _reconciliation(row)

    async def reconciliations(self, *, is_equal: bool | None, limit: int) -> list[Reconciliation]:
        query = select(reconciliations)
        if is_equal is not None:
            query = query.where(reconciliations.c.is_equal.is_(is_equal))
        rows = await self._connection.execute(
            query.order_by(reconciliations.c.compared_at.desc(), reconciliations.c.reconciliation_id).limit(limit)
        )
        return [_reconciliation(row) for row in rows]

    async def record_change(self, change: PersonsChange) -> None:
        stream = PostgresEventStream(self._transaction)
        known = await stream.read(change.stream)
        await stream.append(
            change.stream,
            expected_version=len(known),
            events=[
                NewEvent(
                    type=change.type,
                    data={"before": dict(change.before), "after": dict(change.after)},
                    actor=change.actor,
                    occurred_at=change.occurred_at,
                )
            ],
        )

    async def _invoices(self, query: Select[Any]) -> list[Invoice]:
        rows = (await self._connection.execute(query)).all()
        if not rows:
            return []
        lines: dict[str, list[InvoiceLine]] = {row.invoice_id: [] for row in rows}
        for row in await self._connection.execute(
            select(invoice_lines)
            .where(invoice_lines.c.invoice_id.in_(list(lines)))
            .order_by(invoice_lines.c.invoice_id, invoice_lines.c.position)
        ):
            lines[row.invoice_id].append(_line(row))
        return [_invoice(row, tuple(lines[row.invoice_id])) for row in rows]


def _line_values(invoice_id: str, position: int, line: InvoiceLine) -> dict[str, Any]:
    return {
        "invoice_id": invoice_id,
        "position": position,
        "kind": line.kind,
        "product_key": line.product_key,
        "usage_key": line.usage_key,
        "description": line.description,
        "quantity": line.quantity,
        "unit_amount": line.unit_amount,
        "amount_minor": line.amount_minor,
        "service_period_start": line.service_period.start,
        "service_period_end": line.service_period.end,
        "tier": line.tier,
    }


def _line(row: Row[Any]) -> InvoiceLine:
    return InvoiceLine(
        kind=row.kind,
        product_key=row.product_key,
        usage_key=row.usage_key,
        description=row.description,
        quantity=row.quantity,
        unit_amount=row.unit_amount,
        amount_minor=row.amount_minor,
        service_period=BillingPeriod(row.service_period_start, row.service_period_end),
        tier=row.tier,
    )


def _invoice(row: Row[Any], lines: tuple[InvoiceLine, ...]) -> Invoice:
    finalized_at: datetime | None = row.finalized_at
    return Invoice(
        invoice_id=row.invoice_id,
        number=row.number,
        organization_id=row.organization_id,
        customer_id=row.customer_id,
        revision=row.revision,
        status=row.status,
        currency=row.currency,
        collection_mode=row.collection_mode,
        period=BillingPeriod(row.period_start, row.period_end),
        usage_revision=row.usage_revision,
        lines=lines,
        created_at=row.created_at,
        finalized_at=finalized_at,
        settled_at=row.settled_at,
        rail_invoice=row.rail_invoice,
        reconciliation=row.reconciliation,
        collection_problem=row.collection_problem,
    )


def _reconciliation(row: Row[Any]) -> Reconciliation:
    return Reconciliation(
        reconciliation_id=row.reconciliation_id,
        organization_id=row.organization_id,
        invoice_id=row.invoice_id,
        compared_at=row.compared_at,
        our_total_minor=row.our_total_minor,
        rail_total_minor=row.rail_total_minor,
        differences=differences_from_documents(row.differences),
        accepted_by=row.accepted_by,
        accepted_reason=row.accepted_reason,
        accepted_at=row.accepted_at,
    )

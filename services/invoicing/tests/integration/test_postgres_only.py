"""What only a real database can show: frozen rows, two closers at once, announcements with their state."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from quill_contracts.invoices import Invoice as WireInvoice
from quill_invoicing.domain.period_close import Grace
from quill_invoicing.usecases.close_period import close_due_periods, close_period
from quill_invoicing.usecases.keep_terms import keep_terms
from quill_invoicing.usecases.record_usage import record_usage
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

pytestmark = pytest.mark.integration

GRACE = Grace(timedelta(hours=24))
AFTER_OCTOBER = datetime(2026, 11, 2, 1, tzinfo=UTC)
ANOTHER_LINE = """
    insert into invoice_lines
    select invoice_id, 99, kind, product_key, usage_key, description, quantity, unit_amount, amount_minor,
        service_period_start, service_period_end, tier
    from invoice_lines limit 1
"""
WRONG_TOTAL = """
    insert into invoices (
        invoice_id, number, organization_id, customer_id, revision, status, currency, collection_mode, period_start,
        period_end, usage_revision, total_minor, created_at, reconciliation)
    values ('x', 'x', 'org-2', 'c', 1, 'draft', 'usd', 'quill-rates', now(), now(), 1, 5, now(), 'pending')
"""


@pytest.fixture
async def closable(postgres_store, make):
    async with postgres_store.begin() as tx:
        await keep_terms(make.terms(), tx=tx, now=AFTER_OCTOBER)
        observed = [make.used(1, 12_000_000)]
        await record_usage("org-1", observed, tx=tx, now=AFTER_OCTOBER, report_every=timedelta(0))
    return postgres_store


@pytest.mark.parametrize(
    "statement",
    [
        "update invoices set total_minor = 1",
        "update invoices set period_end = now()",
        "update invoices set status = 'draft'",
        "update invoices set status = 'paid', currency = 'eur'",
        "delete from invoices",
        "update invoice_lines set amount_minor = 0",
        "delete from invoice_lines",
        ANOTHER_LINE,
        "update closed_periods set usage_revision = 9",
        "update customer_terms set effective_at = now()",
    ],
)
async def test_the_database_refuses_to_change_what_is_final(closable, database, statement):
    await close_due_periods(store=closable, grace=GRACE, now=AFTER_OCTOBER, limit=10)
    with pytest.raises(DBAPIError):
        async with database.begin() as transaction:
            await transaction.connection.execute(text(statement))


async def test_an_invoice_whose_total_is_not_its_lines_cannot_be_finalized(database):
    async with database.begin() as transaction:
        await transaction.connection.execute(text(WRONG_TOTAL))
        finalizing = transaction.connection.execute(text("update invoices set status = 'finalized' where number = 'x'"))
        with pytest.raises(DBAPIError, match="not the sum of its lines"):
            await finalizing


async def test_of_many_closers_at_once_one_makes_the_invoice(closable, database):
    released = asyncio.Event()

    async def closer():
        await released.wait()
        async with closable.begin() as tx:
            return await close_period("org-1", tx=tx, grace=GRACE, now=AFTER_OCTOBER)

    closers = [asyncio.create_task(closer()) for _ in range(6)]
    released.set()
    outcomes = await asyncio.gather(*closers)
    assert sorted(outcomes) == [False] * 5 + [True]
    async with database.begin() as transaction:
        rows = (await transaction.connection.execute(text("select number, status from invoices"))).all()
        planned = await transaction.connection.scalar(text("select count(*) from operations where kind = 'collect'"))
    assert [tuple(row) for row in rows] == [("2026-000001", "finalized")]
    assert planned == 1


async def test_a_finalized_invoice_is_announced_in_the_transaction_that_made_it(closable, database):
    await close_due_periods(store=closable, grace=GRACE, now=AFTER_OCTOBER, limit=10)
    async with database.begin() as transaction:
        rows = (await transaction.connection.execute(text("select topic, key, value from outbox order by id"))).all()
    ((topic, key, value),) = [tuple(row) for row in rows]
    announced = WireInvoice.from_bytes(value)
    assert (topic, key) == ("invoicing.invoices.v1", "org-1")
    assert (announced.status, announced.total_minor, announced.revision) == ("finalized", 39_300, 2)
    assert sum(line.amount_minor for line in announced.lines) == announced.total_minor

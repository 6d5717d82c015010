"""What customers are owed, on the store in memory and on Postgres (K4)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from quill_invoicing.domain.closing import LateUsage
from quill_invoicing.domain.collection import RailInvoice
from quill_invoicing.domain.credits import CreditBalance, CreditEntry
from quill_invoicing.domain.period_close import Grace
from quill_invoicing.store.memory import MemoryStore
from quill_invoicing.usecases.close_period import close_due_periods, close_period
from quill_invoicing.usecases.collect_invoice import refresh_invoice
from quill_invoicing.usecases.keep_terms import keep_terms
from quill_invoicing.usecases.record_usage import record_usage
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

pytestmark = pytest.mark.integration

GRACE = Grace(timedelta(hours=24))
OCTOBER_1 = datetime(2026, 10, 1, tzinfo=UTC)
FEE = {"model": "flat", "currency": "usd", "amount": "300"}


@pytest.fixture(params=["memory", "postgres"])
def store(request):
    return MemoryStore() if request.param == "memory" else request.getfixturevalue("postgres_store")


async def agree(store, make, now, revision, **changed):
    async with store.begin() as tx:
        terms = make.terms(revision=revision, effective_at=now, collection_mode="quill-rates", **changed)
        await keep_terms(terms, tx=tx, now=now)


async def close(store, now):
    while await close_due_periods(store=store, grace=GRACE, now=now, limit=10):
        pass


async def correct(store, quantities, *, revision=2):
    """Late usage of October: what was billed is now another quantity."""
    before, after = quantities
    async with store.begin() as tx:
        step = LateUsage("org-1", OCTOBER_1, "product_analytics", revision, before, after, OCTOBER_1)
        await tx.add_late_usage(step)


async def totals(store):
    async with store.begin() as tx:
        return [each.total_minor for each in reversed(await tx.invoices_of("org-1", limit=50))]


async def balance(store):
    async with store.begin() as tx:
        return await tx.credit_balance("org-1", "usd")


@pytest.fixture
async def billed(store, make):
    """October is billed at $393.00; from November on the customer pays a fee of $300.00."""
    await agree(store, make, OCTOBER_1, 1)
    async with store.begin() as tx:
        observed = [make.used(1, 12_000_000)]
        await record_usage("org-1", observed, tx=tx, now=OCTOBER_1, report_every=timedelta(days=1))
    await close(store, datetime(2026, 11, 2, 1, tzinfo=UTC))
    fee = make.item(product_key="platform", usage_key=None, counter=None, price=FEE, quota=None, quantity=1)
    await agree(store, make, datetime(2026, 11, 1, tzinfo=UTC), 2, items=[fee])
    return store


async def test_a_credit_larger_than_an_invoice_is_given_back_within_two(billed):
    """K4: October billed $393, corrected by -$343; the next twelve invoices are $300 each."""
    await correct(billed, (12_000_000, 2_000_000))
    await close(billed, datetime(2027, 11, 2, 1, tzinfo=UTC))
    assert await totals(billed) == [393_00, 0, 257_00, *[300_00] * 10]
    assert await balance(billed) == 0
    async with billed.begin() as tx:
        second, first = (await tx.invoices_of("org-1", limit=50))[-3:-1]
        entries = await tx.credit_entries_of("org-1", limit=10)
    assert [(each.kind, each.amount_minor) for each in first.lines] == [
        ("licensed", 300_00),
        ("adjustment", -343_00),
        ("credit", 43_00),
    ]
    assert [(each.kind, each.amount_minor) for each in second.lines] == [("licensed", 300_00), ("credit", -43_00)]
    assert [(each.kind, each.amount_minor) for each in entries] == [("used", -43_00), ("kept", 43_00)]
    assert first.status == "paid", "an invoice of nothing needs no collection"


async def test_a_customer_who_left_is_still_owed_the_rest(billed, make):
    """K4: nothing is billed any more, and the correction makes an invoice of its own."""
    await agree(billed, make, datetime(2026, 11, 1, tzinfo=UTC), 3, has_active_subscription=False, items=[])
    await correct(billed, (12_000_000, 2_000_000))
    await close(billed, datetime(2027, 3, 2, 1, tzinfo=UTC))
    async with billed.begin() as tx:
        assert await tx.credit_balances(limit=10) == [CreditBalance("org-1", "usd", 343_00)]
        assert await tx.credit_balances(after=("org-1", "usd"), limit=10) == []
        assert await tx.credit_balances(organization_id="org-2", limit=10) == []
    assert (await totals(billed))[1:] == [0]


async def test_late_charges_and_credits_meet_on_one_invoice(billed):
    await correct(billed, (12_000_000, 2_000_000), revision=2)
    await correct(billed, (2_000_000, 3_000_000), revision=3)
    await close(billed, datetime(2026, 12, 2, 1, tzinfo=UTC))
    # 343.00 back and 34.30 more: 308.70 are 8.70 more than November costs.
    assert (await totals(billed))[1:] == [0]
    assert await balance(billed) == 8_70


async def test_closing_again_after_a_crash_keeps_a_credit_once(billed):
    await correct(billed, (12_000_000, 2_000_000))
    december = datetime(2026, 12, 2, 1, tzinfo=UTC)

    class Crash(Exception):
        """The process died before the closing was committed."""

    async def crashing_close():
        async with billed.begin() as tx:
            assert await close_period("org-1", tx=tx, grace=GRACE, now=december)
            raise Crash

    with pytest.raises(Crash):
        await crashing_close()
    assert await balance(billed) == 0
    await close(billed, december)
    await close(billed, december)
    assert await balance(billed) == 43_00
    async with billed.begin() as tx:
        (entry,) = await tx.credit_entries_of("org-1", limit=5)
        assert not await tx.add_credit_entry(replace(entry, amount_minor=1))
    assert await balance(billed) == 43_00


async def test_credits_of_a_voided_invoice_are_owed_again(billed, make):
    """A person voids the invoice at Stripe after it has used a credit."""
    await correct(billed, (12_000_000, 2_000_000))
    await close(billed, datetime(2027, 1, 2, 1, tzinfo=UTC))
    async with billed.begin() as tx:
        newest = (await tx.invoices_of("org-1", limit=1))[0]
        await tx.save_invoice(newest.collected_as("in_1", problem=None))
    assert await balance(billed) == 0

    class Rail:
        async def invoice(self, reference):
            return RailInvoice(reference, "void", 257_00, newest.invoice_id)

    for _ in range(2):
        await refresh_invoice("in_1", store=billed, rail=Rail(), now=datetime(2027, 1, 3, tzinfo=UTC))
    assert await balance(billed) == 43_00


async def test_an_adjustment_in_another_currency_waits_for_an_invoice_in_its_own(billed, make):
    """The customer pays in euros now; dollars owed are not given back as euros."""
    euros = make.item(
        product_key="platform", usage_key=None, counter=None, quota=None, quantity=1, price={**FEE, "currency": "eur"}
    )
    await agree(billed, make, datetime(2026, 11, 1, tzinfo=UTC), 3, items=[euros])
    await correct(billed, (12_000_000, 2_000_000))
    await close(billed, datetime(2026, 12, 2, 1, tzinfo=UTC))
    assert (await totals(billed))[1:] == [300_00]
    async with billed.begin() as tx:
        assert len(await tx.unsettled_late_usage("org-1")) == 1
    await agree(billed, make, datetime(2026, 12, 2, tzinfo=UTC), 4, has_active_subscription=False, items=[])
    await close(billed, datetime(2027, 2, 2, 1, tzinfo=UTC))
    async with billed.begin() as tx:
        assert await tx.credit_balances(limit=5) == [CreditBalance("org-1", "usd", 343_00)]


@pytest.mark.parametrize("statement", ["update credit_entries set amount_minor = 1", "delete from credit_entries"])
async def test_entries_of_credit_cannot_be_changed_or_removed(postgres_store, database, make, statement):
    await agree(postgres_store, make, OCTOBER_1, 1)
    await close(postgres_store, datetime(2026, 11, 2, 1, tzinfo=UTC))
    async with postgres_store.begin() as tx:
        (invoice,) = await tx.invoices_of("org-1", limit=1)
        await tx.add_credit_entry(CreditEntry.of(invoice, kind="kept", amount_minor=5, at=OCTOBER_1))
    with pytest.raises(DBAPIError, match="append-only"):
        async with database.begin() as transaction:
            await transaction.connection.execute(text(statement))

"""One behaviour suite, run on the store in memory and on Postgres: closing, late usage, webhooks, people (L12-L14, L19)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from quill_invoicing.domain.invoice import IllegalMove
from quill_invoicing.domain.period_close import Grace
from quill_invoicing.domain.reconciliation import Difference, NothingToAccept, Reconciliation
from quill_invoicing.domain.webhook import Webhook
from quill_invoicing.ports import PlannedEffect, RailAccount
from quill_invoicing.store.memory import MemoryStore
from quill_invoicing.usecases.accept_difference import UnknownReconciliation, accept_difference
from quill_invoicing.usecases.close_period import close_due_periods, hold_drafts
from quill_invoicing.usecases.keep_terms import keep_terms
from quill_invoicing.usecases.record_usage import record_usage
from sqlalchemy.exc import DBAPIError

pytestmark = pytest.mark.integration

GRACE = Grace(timedelta(hours=24))
DAILY = timedelta(hours=24)
AFTER_OCTOBER = datetime(2026, 11, 2, 1, tzinfo=UTC)
AFTER_NOVEMBER = datetime(2026, 12, 2, 1, tzinfo=UTC)


@pytest.fixture(params=["memory", "postgres"])
def store(request):
    return MemoryStore() if request.param == "memory" else request.getfixturevalue("postgres_store")


async def keep(store, terms, *, now=datetime(2026, 10, 1, tzinfo=UTC)):
    async with store.begin() as tx:
        await keep_terms(terms, tx=tx, now=now)


async def record(store, *observed, now=datetime(2026, 10, 20, tzinfo=UTC)):
    async with store.begin() as tx:
        await record_usage("org-1", observed, tx=tx, now=now, report_every=DAILY)


async def close(store, now):
    return await close_due_periods(store=store, grace=GRACE, now=now, limit=10)


async def invoices(store):
    async with store.begin() as tx:
        return await tx.invoices_of("org-1", limit=10)


async def test_a_period_is_closed_once_its_grace_has_passed_and_only_once(store, make):
    await keep(store, make.terms())
    await record(store, make.used(1, 12_000_000))
    assert await close(store, datetime(2026, 11, 1, 23, 59, tzinfo=UTC)) == 0
    assert await close(store, AFTER_OCTOBER) == 1
    assert await close(store, AFTER_OCTOBER) == 0  # closing twice is closing once
    (invoice,) = await invoices(store)
    assert (invoice.status, invoice.total_minor, invoice.usage_revision) == ("finalized", 39_300, 1)
    assert invoice.finalized_at == AFTER_OCTOBER
    assert invoice.number == "2026-000001"


async def test_periods_close_one_per_run_and_in_order(store, make):
    await keep(store, make.terms())
    for month in (1, 1, 1):
        assert await close(store, datetime(2027, 1, 15, tzinfo=UTC)) == month
    assert await close(store, datetime(2027, 1, 15, tzinfo=UTC)) == 0
    found = await invoices(store)
    assert [invoice.period.start.month for invoice in found] == [12, 11, 10]
    assert [invoice.number for invoice in found] == ["2027-000003", "2027-000002", "2027-000001"]


async def test_without_a_subscription_no_invoice_is_made_and_usage_is_kept(store, make, october):
    await keep(store, make.terms(has_active_subscription=False))
    await record(store, make.used(1, 12_000_000))
    assert await close(store, AFTER_OCTOBER) == 1
    assert await invoices(store) == []
    async with store.begin() as tx:
        assert (await tx.closed_period("org-1", october.start)).invoice_id is None
        assert (await tx.known_usage("org-1", october)).revision == 1


async def test_an_older_or_repeated_snapshot_changes_nothing(store, make, october):
    await keep(store, make.terms(revision=5))
    await keep(store, make.terms(revision=4, has_active_subscription=False))
    await keep(store, make.terms(revision=5))
    await record(store, make.used(3, 100), make.used(3, 100))
    await record(store, make.used(2, 900))
    async with store.begin() as tx:
        history = await tx.terms_history("org-1")
        usage = await tx.known_usage("org-1", october)
    assert [terms.revision for terms in history.versions] == [5]
    assert (usage.revision, usage.current.meters) == (3, {"events": 100})


async def test_terms_come_back_as_they_were_saved(store, make):
    changes = [{"at": datetime(2026, 9, 3, tzinfo=UTC), "paid": True, "quota": 5, "quantity": 3}]
    trial = datetime(2026, 10, 9, tzinfo=UTC)
    item = make.item(quota=5, billing_limit_usd=20, changes=changes)
    terms = make.terms(items=[item], free_trial_until=trial)
    await keep(store, terms)
    async with store.begin() as tx:
        (kept,) = (await tx.terms_history("org-1")).versions
    assert kept == terms
    assert kept.items[0].changes == terms.items[0].changes  # no part of the comparison of terms


async def test_a_rolled_over_period_alone_adds_no_version_of_the_terms(store, make, november):
    await keep(store, make.terms(revision=1))
    rolled = make.terms(revision=2, period={"start": november.start, "end": november.end})
    await keep(store, rolled)
    async with store.begin() as tx:
        assert len((await tx.terms_history("org-1")).versions) == 1
        assert await tx.customer_revision("org-1") == 2
        assert (await tx.open_period("org-1")).end == november.start


async def test_late_usage_becomes_one_adjustment_line_at_its_own_periods_price(store, make, october, november):
    await keep(store, make.terms())
    await record(store, make.used(1, 12_000_000))
    await close(store, AFTER_OCTOBER)
    dearer = {"model": "per_unit", "currency": "usd", "unit_amount": "1"}
    await keep(store, make.terms(revision=2, effective_at=november.start, items=[make.item(price=dearer)]))
    await record(store, make.used(2, 13_000_000), now=AFTER_OCTOBER)
    await record(store, make.used(3, 14_000_000), now=AFTER_OCTOBER)
    (first,) = await invoices(store)
    assert first.total_minor == 39_300  # never rewritten (L13)

    await close(store, AFTER_NOVEMBER)
    second, first_again = await invoices(store)
    assert first_again == first
    (line,) = second.lines
    assert (line.kind, line.amount_minor, line.service_period) == ("adjustment", 6_860, october)
    await close(store, datetime(2027, 1, 2, 1, tzinfo=UTC))
    assert (await invoices(store))[0].lines == ()  # settled: it is billed once


async def test_a_zero_invoice_of_our_own_is_paid_at_once_and_one_at_the_rail_is_collected(store, make):
    await keep(store, make.terms(collection_mode="quill-rates"))
    await close(store, AFTER_OCTOBER)
    (invoice,) = await invoices(store)
    assert (invoice.status, invoice.total_minor) == ("paid", 0)
    await keep(store, make.terms(revision=2), now=AFTER_OCTOBER)
    await close(store, AFTER_NOVEMBER)
    assert (await invoices(store))[0].status == "finalized"


async def test_a_closing_that_fails_leaves_nothing_behind(store, make):
    euros = make.item(product_key="other", price={"model": "per_unit", "currency": "eur", "unit_amount": "1"})
    await keep(store, make.terms(items=[make.item(), euros]))
    assert await close(store, AFTER_OCTOBER) == 0
    assert await invoices(store) == []
    await keep(store, make.terms(revision=2, effective_at=datetime(2026, 9, 1, tzinfo=UTC)), now=AFTER_OCTOBER)
    assert await close(store, AFTER_OCTOBER) == 1
    assert (await invoices(store))[0].number == "2026-000001"  # numbers have no gap


async def test_a_finalized_invoice_makes_no_illegal_move(store, make):
    await keep(store, make.terms())
    await close(store, AFTER_OCTOBER)
    (invoice,) = await invoices(store)
    paid = invoice.settled("paid", at=AFTER_OCTOBER)
    async with store.begin() as tx:
        await tx.save_invoice(paid)
    with pytest.raises((IllegalMove, DBAPIError)):
        async with store.begin() as tx:
            await tx.save_invoice(replace(paid, status="finalized"))


async def test_running_quantities_are_reported_daily_when_they_changed(store, make, october):
    await keep(store, make.terms())
    async with store.begin() as tx:
        account = RailAccount("org-1", "cus_1", "sub_1", 1, october.start)
        await tx.save_rail_account(account)
        assert await tx.rail_account("org-1") == account

    async def sent():
        async with store.begin() as tx:
            return (await tx.sent_reports("org-1", october.start))["product_analytics"]

    noon = datetime(2026, 10, 5, 12, tzinfo=UTC)
    await record(store, make.used(1, 100), now=noon)
    assert (await sent()).quantity == 100
    await record(store, make.used(2, 200), now=noon + timedelta(hours=23))
    assert (await sent()).quantity == 100  # not yet
    await record(store, make.used(3, 300), now=noon + timedelta(hours=24))
    assert (await sent()).quantity == 300
    await record(store, make.used(4, 300), now=noon + timedelta(hours=60))
    assert (await sent()).stamped_at == noon + timedelta(hours=24)  # unchanged: not repeated


async def test_drafts_of_ended_periods_are_held_once(store, make, october):
    await keep(store, make.terms())
    async with store.begin() as tx:
        await tx.save_rail_account(RailAccount("org-1", "cus_1", "sub_1", 1, october.start))
    assert await hold_drafts(store=store, now=october.end - timedelta(seconds=1), limit=10) == 0
    assert await hold_drafts(store=store, now=october.end, limit=10) == 1
    assert await hold_drafts(store=store, now=october.end, limit=10) == 0


async def test_an_effect_is_planned_once(store):
    effect = PlannedEffect("op-1", "collect", "org-1", {"invoice_id": "i"})
    for expected in (True, False):
        async with store.begin() as tx:
            assert await tx.plan(effect, now=AFTER_OCTOBER) is expected


async def test_a_webhook_is_taken_once_and_acted_on_when_due(store):
    webhook = Webhook("evt_1", "invoice.paid", "2026-10-28.endive", "in_1", AFTER_OCTOBER, b"{}")
    for expected in (True, False):
        async with store.begin() as tx:
            assert await tx.take_webhook(webhook, received_at=AFTER_OCTOBER) is expected
    async with store.begin() as tx:
        assert await tx.due_webhooks(now=AFTER_OCTOBER, limit=5) == [webhook]
        await tx.postpone_webhook("evt_1", problem="away", due_at=AFTER_OCTOBER + timedelta(minutes=1))
    async with store.begin() as tx:
        assert await tx.due_webhooks(now=AFTER_OCTOBER, limit=5) == []
        (again,) = await tx.due_webhooks(now=AFTER_OCTOBER + timedelta(minutes=1), limit=5)
        assert again.attempts == 1
        await tx.mark_webhook("evt_1", outcome="recorded", processed_at=AFTER_OCTOBER)
    async with store.begin() as tx:
        assert await tx.due_webhooks(now=AFTER_NOVEMBER, limit=5) == []


async def test_a_difference_is_accepted_by_one_named_person_with_a_reason(store, make):
    await keep(store, make.terms())
    await close(store, AFTER_OCTOBER)
    (invoice,) = await invoices(store)
    different = Reconciliation(
        invoice.invoice_id, "org-1", invoice.invoice_id, AFTER_OCTOBER, 0, 5, (Difference("total", None, "t", 0, 5),)
    )

    async def accept(reconciliation_id, actor, reason):
        async with store.begin() as tx:
            return await accept_difference(reconciliation_id, actor=actor, reason=reason, tx=tx, now=AFTER_OCTOBER)

    with pytest.raises(UnknownReconciliation):
        await accept(invoice.invoice_id, "ada", "rounding")
    async with store.begin() as tx:
        await tx.save_reconciliation(different)
    accepted = await accept(invoice.invoice_id, "ada", "rounding")
    assert accepted.accepted_by == "ada"
    assert await accept(invoice.invoice_id, "ada", "rounding") == accepted  # a repeat
    with pytest.raises(NothingToAccept, match="ada"):
        await accept(invoice.invoice_id, "bob", "rounding")
    async with store.begin() as tx:
        assert await tx.reconciliations(is_equal=False, limit=5) == [accepted]
        assert await tx.reconciliations(is_equal=True, limit=5) == []
        await tx.save_reconciliation(replace(different, differences=()))
    with pytest.raises(NothingToAccept, match="equal"):
        await accept(invoice.invoice_id, "ada", "rounding")

"""Invoices made line by line, cards that refuse, licensed items and swaps."""

import pytest
import stripe

pytestmark = pytest.mark.integration


def free_standing(story, customer, **more):
    params = {
        "customer": customer,
        "auto_advance": False,
        "collection_method": "charge_automatically",
        "pending_invoice_items_behavior": "exclude",
        **more,
    }
    return story.client.v1.invoices.create(params=params)


def test_an_invoice_made_of_our_own_lines_is_finalized_and_paid(story):
    customer = story.customer()
    draft = free_standing(story, customer, metadata={"operation_id": "close-7"})
    lines = [
        {"amount": 5_000, "description": "tier 2", "metadata": {"tier": "2"}, "period": {"start": 100, "end": 200}},
        {"amount": 1_186, "description": "tier 3"},
    ]
    story.client.v1.invoices.add_lines(draft.id, params={"lines": lines})
    item = {"customer": customer, "invoice": draft.id, "amount": -186, "currency": "usd", "description": "adjustment"}
    story.client.v1.invoice_items.create(params=item)

    final = story.client.v1.invoices.finalize_invoice(draft.id)
    assert (final.status, final.total, final.amount_due) == ("open", 6_000, 6_000)
    assert [line.amount for line in final.lines.data] == [5_000, 1_186, -186]
    assert final.lines.data[0].metadata["tier"] == "2"
    assert final.lines.data[0].parent.invoice_item_details.invoice_item.startswith("ii_")

    assert story.client.v1.invoices.pay(draft.id).status == "paid"
    found = story.client.v1.invoices.search(params={"query": "metadata['operation_id']:'close-7'"})
    assert [each.id for each in found.data] == [draft.id]


def test_nothing_is_added_to_a_final_invoice(story):
    draft = free_standing(story, story.customer())
    story.client.v1.invoices.add_lines(draft.id, params={"lines": [{"amount": 1}]})
    story.client.v1.invoices.finalize_invoice(draft.id)

    with pytest.raises(stripe.InvalidRequestError) as refused:
        story.client.v1.invoices.add_lines(draft.id, params={"lines": [{"amount": 1}]})
    assert refused.value.code == "invoice_not_editable"
    with pytest.raises(stripe.InvalidRequestError):
        story.client.v1.invoices.finalize_invoice(draft.id)


def test_a_voided_invoice_is_owed_by_nobody(story):
    customer = story.customer()
    draft = free_standing(story, customer)
    story.client.v1.invoices.add_lines(draft.id, params={"lines": [{"amount": 100}]})
    story.client.v1.invoices.finalize_invoice(draft.id)

    assert story.client.v1.invoices.void_invoice(draft.id).status == "void"
    with pytest.raises(stripe.InvalidRequestError):
        story.client.v1.invoices.pay(draft.id)
    assert [each.id for each in story.client.v1.invoices.list(params={"status": "void"}).data] == [draft.id]


def test_a_declined_card_leaves_the_invoice_open_and_counts_the_attempt(story):
    customer = story.customer(card="pm_card_chargeCustomerFail")
    draft = free_standing(story, customer)
    story.client.v1.invoices.add_lines(draft.id, params={"lines": [{"amount": 100}]})
    story.client.v1.invoices.finalize_invoice(draft.id)

    with pytest.raises(stripe.CardError) as declined:
        story.client.v1.invoices.pay(draft.id)

    assert declined.value.code == "card_declined"
    left = story.client.v1.invoices.retrieve(draft.id)
    assert (left.status, left.attempt_count, left.amount_remaining) == ("open", 1, 100)
    assert story.client.v1.invoices.pay(draft.id, params={"paid_out_of_band": True}).status == "paid"


def test_a_payment_told_to_fail_makes_the_subscription_past_due_until_a_retry_succeeds(story):
    clock = story.clock(2026, 1, 1)
    customer = story.customer(clock)
    subscription = story.subscribe(customer, story.metered_price(story.meter()))
    story.report(customer, 2_345_678, story.at(2026, 1, 1))
    story.control.post(f"/customers/{customer}/fail-next-payments", json={"count": 1}).raise_for_status()

    story.advance(clock, 2026, 2, 2)
    (invoice,) = story.invoices(customer)
    assert (invoice.status, invoice.attempt_count) == ("open", 1)
    assert story.client.v1.subscriptions.retrieve(subscription.id).status == "past_due"

    story.advance(clock, 2026, 2, 5)
    assert story.invoices(customer)[0].status == "paid"
    assert story.client.v1.subscriptions.retrieve(subscription.id).status == "active"


def test_a_licensed_item_is_billed_ahead_and_prorated_when_its_quantity_changes(story):
    clock = story.clock(2026, 4, 1)
    customer = story.customer(clock)
    subscription = story.subscribe(customer, story.seat_price(1_000))
    first = story.client.v1.invoices.retrieve(story.client.v1.subscriptions.retrieve(subscription.id).latest_invoice)
    assert (first.status, first.total, first.billing_reason) == ("paid", 1_000, "subscription_create")

    story.advance(clock, 2026, 4, 16)
    item = subscription["items"].data[0].id
    story.client.v1.subscription_items.update(item, params={"quantity": 3})
    story.advance(clock, 2026, 5, 1)

    latest = story.invoices(customer)[0]
    assert [line.amount for line in latest.lines.data] == [3_000, -500, 1_500]


def test_a_metered_swap_without_proration_bills_the_whole_total_once_at_the_new_price(story):
    clock = story.clock(2026, 1, 1)
    customer, meter = story.customer(clock), story.meter()
    subscription = story.subscribe(customer, story.metered_price(meter))
    story.report(customer, 1_500_000, story.at(2026, 1, 1))
    story.advance(clock, 2026, 1, 15)

    dearer = story.metered_price(meter, [{"up_to": "inf", "unit_amount_decimal": "0.01"}])
    swap = [{"id": subscription["items"].data[0].id, "price": dearer}]
    params = {"items": swap, "proration_behavior": "none"}
    story.client.v1.subscriptions.update(subscription.id, params=params)
    story.report(customer, 2_000_000, story.at(2026, 1, 15) + 60)
    story.advance(clock, 2026, 2, 1)

    (invoice,) = story.invoices(customer)
    assert [(line.quantity, line.amount) for line in invoice.lines.data] == [(2_000_000, 20_000)]


def test_a_metered_swap_with_proration_bills_the_early_usage_at_the_old_price_too(story):
    clock = story.clock(2026, 1, 1)
    customer, meter = story.customer(clock), story.meter()
    subscription = story.subscribe(customer, story.metered_price(meter))
    story.report(customer, 2_000_000, story.at(2026, 1, 1))
    story.advance(clock, 2026, 1, 15)

    dearer = story.metered_price(meter, [{"up_to": "inf", "unit_amount_decimal": "0.01"}])
    items = [{"id": subscription["items"].data[0].id, "price": dearer}]
    story.client.v1.subscriptions.update(subscription.id, params={"items": items})
    story.report(customer, 2_000_000, story.at(2026, 1, 15) + 60)
    story.advance(clock, 2026, 2, 1)

    assert story.invoices(customer)[0].total == 20_000 + 5_000  # the trap of flexible mode with running totals


@pytest.mark.parametrize(("invoice_now", "totals"), [(True, [6_186]), (False, [])])
def test_cancelling_bills_open_usage_only_when_asked(story, invoice_now, totals):
    clock = story.clock(2026, 1, 1)
    customer = story.customer(clock)
    subscription = story.subscribe(customer, story.metered_price(story.meter()))
    story.report(customer, 2_345_678, story.at(2026, 1, 1))
    story.advance(clock, 2026, 1, 2)

    ended = story.client.v1.subscriptions.cancel(subscription.id, params={"invoice_now": invoice_now})

    assert ended.status == "canceled"
    assert [invoice.total for invoice in story.invoices(customer)] == totals
    assert story.client.v1.subscriptions.list(params={"customer": customer}).data == []


def test_a_subscription_that_ends_with_its_period_bills_the_last_usage(story):
    clock = story.clock(2026, 1, 1)
    customer = story.customer(clock)
    subscription = story.subscribe(customer, story.metered_price(story.meter()), cancel_at_period_end=True)
    story.report(customer, 2_345_678, story.at(2026, 1, 1))

    story.advance(clock, 2026, 2, 2)

    assert [(invoice.status, invoice.total) for invoice in story.invoices(customer)] == [("paid", 6_186)]
    assert story.client.v1.subscriptions.retrieve(subscription.id).status == "canceled"


def test_a_draft_kept_back_stays_a_draft(story):
    clock = story.clock(2026, 1, 1)
    customer = story.customer(clock)
    story.subscribe(customer, story.metered_price(story.meter()))
    story.advance(clock, 2026, 2, 1)
    (draft,) = story.invoices(customer)

    later = story.at(2026, 2, 2)
    story.client.v1.invoices.update(draft.id, params={"automatically_finalizes_at": later})
    story.advance(clock, 2026, 2, 1, 23)
    assert story.invoices(customer)[0].status == "draft"

    story.client.v1.invoices.update(draft.id, params={"auto_advance": False})
    story.advance(clock, 2026, 2, 20)
    assert story.invoices(customer)[0].status == "draft"
    assert story.client.v1.invoices.finalize_invoice(draft.id, params={"auto_advance": True}).status == "paid"


def test_a_parameter_that_would_be_ignored_is_refused(story):
    with pytest.raises(stripe.InvalidRequestError) as refused:
        story.subscribe(story.customer(), story.seat_price(), trial_period_days=14)

    assert (refused.value.code, refused.value.param) == ("not_simulated", "trial_period_days")


def test_a_live_key_is_turned_away(story):
    with pytest.raises(stripe.AuthenticationError):
        story.client.v1.customers.list(options={"api_key": "sk_live_no"})

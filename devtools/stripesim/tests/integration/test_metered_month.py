"""The main loop through the real SDK: meter events, a period that ends, an invoice with one line per tier."""

import pytest
import stripe
from quill_stripesim.engine.announcing import API_VERSION

pytestmark = pytest.mark.integration


def month(story, *reports):
    """One customer, anchored on 31 January, with the given (instant, value) reports; the clock stands in the grace."""
    clock = story.clock(2026, 1, 31)
    customer = story.customer(clock)
    story.subscribe(customer, story.metered_price(story.meter()))
    for at, value in reports:
        story.report(customer, value, at)
    story.advance(clock, 2026, 2, 28, 0, 30)
    return clock, customer


def test_a_month_becomes_one_line_per_tier_and_is_paid_after_its_grace(story):
    clock, customer = month(story, (story.at(2026, 1, 31, 0, 1), 2_345_678))

    (draft,) = story.invoices(customer)
    assert (draft.status, draft.billing_reason, draft.total) == ("draft", "subscription_cycle", 6_186)
    assert (draft.period_start, draft.period_end) == (story.at(2026, 1, 31), story.at(2026, 2, 28))
    assert draft.automatically_finalizes_at == story.at(2026, 2, 28, 1)

    story.advance(clock, 2026, 2, 28, 2)
    paid = story.client.v1.invoices.retrieve(draft.id, params={"expand": ["payments"]})
    assert (paid.status, paid.total, paid.amount_paid, paid.amount_remaining) == ("paid", 6_186, 6_186, 0)
    assert paid.number == "SIM00001-0001"
    assert paid.payments.data[0].payment.payment_intent.startswith("pi_")
    lines = paid.lines.data
    assert [(line.quantity, line.amount) for line in lines] == [(1_000_000, 0), (1_000_000, 5_000), (345_678, 1_186)]
    assert [str(line.pricing.unit_amount_decimal) for line in lines] == ["0", "0.005", "0.00343"]
    assert {line.parent.subscription_item_details.subscription for line in lines} == {
        paid.parent.subscription_details.subscription
    }


@pytest.mark.parametrize(
    ("quantity", "amounts"),
    [
        (0, [0]),
        (999_999, [0]),
        (1_000_100, [0, 1]),
        (1_000_300, [0, 2]),
        (2_000_150, [0, 5_000, 1]),
        (15_000_169, [0, 5_000, 44_590, 0]),
    ],
)
def test_lines_are_rounded_half_up_one_by_one(story, quantity, amounts):
    _, customer = month(story, (story.at(2026, 1, 31, 0, 1), quantity))

    (invoice,) = story.invoices(customer)
    assert [line.amount for line in invoice.lines.data] == amounts
    assert invoice.total == sum(amounts)


def test_last_is_the_newest_timestamp_whatever_arrived_when(story):
    late, early = story.at(2026, 1, 31, 0, 2), story.at(2026, 1, 31, 0, 1)
    _, customer = month(story, (late, 1_500_000), (early, 9_000_000))

    (invoice,) = story.invoices(customer)
    assert sum(line.quantity for line in invoice.lines.data) == 1_500_000


def test_last_takes_the_one_received_last_of_two_at_one_instant(story):
    at = story.at(2026, 1, 31, 0, 1)
    _, customer = month(story, (at, 9_000_000), (at, 7))

    (invoice,) = story.invoices(customer)
    assert sum(line.quantity for line in invoice.lines.data) == 7


@pytest.mark.parametrize(("formula", "quantity"), [("sum", 12), ("count", 3), ("last", 2)])
def test_a_meter_aggregates_by_its_formula(story, formula, quantity):
    clock = story.clock(2026, 3, 1)
    customer, meter = story.customer(clock), story.meter(formula=formula)
    for number, value in enumerate((7, 3, 2)):
        story.report(customer, value, story.at(2026, 3, 1) + number)

    summaries = story.client.v1.billing.meters.event_summaries.list(
        meter, params={"customer": customer, "start_time": story.at(2026, 3, 1), "end_time": story.at(2026, 3, 2)}
    )
    assert [summary.aggregated_value for summary in summaries.data] == [quantity]


def test_a_negative_total_is_billed_as_zero(story):
    clock = story.clock(2026, 1, 31)
    customer = story.customer(clock)
    story.subscribe(customer, story.metered_price(story.meter(formula="sum")))
    story.report(customer, -5, story.at(2026, 1, 31, 0, 1))

    story.advance(clock, 2026, 2, 28)

    assert story.invoices(customer)[0].total == 0


def test_usage_stamped_inside_the_old_period_is_read_until_the_draft_is_final(story):
    clock, customer = month(story, (story.at(2026, 1, 31, 0, 1), 1_000_000))
    story.report(customer, 2_345_678, story.at(2026, 2, 28) - 1)
    assert story.invoices(customer)[0].total == 0

    story.advance(clock, 2026, 2, 28, 2)
    assert story.invoices(customer)[0].total == 6_186

    story.report(customer, 15_000_000, story.at(2026, 2, 28) - 1)
    assert story.invoices(customer)[0].total == 6_186  # final is final (L13)


def test_an_event_at_the_period_end_belongs_to_the_next_period(story):
    clock, customer = month(story)
    story.report(customer, 2_345_678, story.at(2026, 2, 28))

    story.advance(clock, 2026, 3, 31)

    assert [invoice.total for invoice in story.invoices(customer)] == [6_186, 0]


def test_periods_return_to_the_31st_after_each_shorter_month(story):
    clock = story.clock(2026, 1, 31)
    subscription = story.subscribe(story.customer(clock), story.metered_price(story.meter()))
    ends = []
    for day in [(2026, 2, 28), (2026, 3, 31), (2026, 4, 30), (2026, 5, 31)]:
        ends.append(story.client.v1.subscriptions.retrieve(subscription.id)["items"].data[0].current_period_end)
        story.advance(clock, *day)

    assert ends == [story.at(2026, 2, 28), story.at(2026, 3, 31), story.at(2026, 4, 30), story.at(2026, 5, 31)]


def test_an_anchor_on_the_31st_set_in_february_returns_to_the_31st(story):
    clock = story.clock(2026, 2, 10)
    subscription = story.subscribe(
        story.customer(clock),
        story.metered_price(story.meter()),
        billing_cycle_anchor_config={"day_of_month": 31, "hour": 0, "minute": 0, "second": 0},
        backdate_start_date=story.at(2026, 1, 31),
        proration_behavior="none",
    )
    item = subscription["items"].data[0]
    assert (item.current_period_start, item.current_period_end) == (story.at(2026, 1, 31), story.at(2026, 2, 28))

    story.advance(clock, 2026, 2, 28)

    item = story.client.v1.subscriptions.retrieve(subscription.id)["items"].data[0]
    assert (item.current_period_start, item.current_period_end) == (story.at(2026, 2, 28), story.at(2026, 3, 31))


def test_lines_are_paged(story):
    clock = story.clock(2026, 1, 31)
    customer = story.customer(clock)
    tiers = [{"up_to": number, "unit_amount": 1} for number in range(1, 13)] + [{"up_to": "inf", "unit_amount": 1}]
    story.subscribe(customer, story.metered_price(story.meter(), tiers))
    story.report(customer, 20, story.at(2026, 1, 31, 0, 1))
    story.advance(clock, 2026, 2, 28)

    (invoice,) = story.invoices(customer)
    first = story.client.v1.invoices.line_items.list(invoice.id)
    assert (len(first.data), first.has_more, len(invoice.lines.data), invoice.lines.has_more) == (10, True, 10, True)
    assert [line.amount for line in first.auto_paging_iter()] == [1] * 12 + [8]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"event_name": "nobody"}, "no_meter"),
        ({"payload": {"stripe_customer_id": "cus_nobody", "value": "1"}}, "meter_event_customer_not_found"),
        ({"payload": {"value": "1"}}, "meter_event_no_customer_defined"),
        ({"payload": {"value": "1.5"}}, "meter_event_invalid_value"),
        ({"payload": {"value": "1234567890123456"}}, "meter_event_value_too_many_digits"),
        ({"timestamp": (2026, 4, 24, 23, 59, 59)}, "timestamp_too_far_in_past"),
        ({"timestamp": (2026, 5, 30, 0, 5, 1)}, "timestamp_in_future"),
    ],
)
def test_a_meter_event_outside_the_rules_is_refused(story, change, code):
    customer = story.customer(story.clock(2026, 5, 30))
    story.meter()
    params = {"event_name": "events", "payload": {"stripe_customer_id": customer, "value": "1"}, **change}
    if "timestamp" in change:
        params["timestamp"] = story.at(*change["timestamp"])
    if code in {"meter_event_invalid_value", "meter_event_value_too_many_digits"}:
        params["payload"]["stripe_customer_id"] = customer

    with pytest.raises(stripe.InvalidRequestError) as refused:
        story.client.v1.billing.meter_events.create(params=params)

    assert refused.value.code == code


def test_an_identifier_counts_once_a_day(story):
    clock = story.clock(2026, 5, 1)
    customer = story.customer(clock)
    story.meter(formula="sum")
    story.report(customer, 5, story.at(2026, 5, 1), identifier="report-1")

    with pytest.raises(stripe.InvalidRequestError, match="already exists") as refused:
        story.report(customer, 5, story.at(2026, 5, 1), identifier="report-1")
    assert refused.value.code == "duplicate_meter_event"

    story.advance(clock, 2026, 5, 2)
    story.report(customer, 5, story.at(2026, 5, 2), identifier="report-1")


def test_an_event_name_has_one_active_meter(story):
    meter = story.meter()
    with pytest.raises(stripe.InvalidRequestError, match="already an active meter"):
        story.meter()

    story.client.v1.billing.meters.deactivate(meter)

    assert story.meter() != meter


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
async def test_the_async_client_works_the_same(story):
    http_client = stripe.HTTPXClient(timeout=10)
    client = stripe.StripeClient(
        "sk_test_async",
        stripe_version=API_VERSION,
        base_addresses=dict.fromkeys(("api", "files", "connect", "meter_events"), story.url),
        http_client=http_client,
    )
    try:
        customer = await client.v1.customers.create_async(
            params={"name": "Async", "metadata": {"operation_id": "op-7"}}
        )
        found = await client.v1.customers.search_async(params={"query": "metadata['operation_id']:'op-7'"})
        assert [each.id for each in found.data] == [customer.id]
        with pytest.raises(stripe.InvalidRequestError):
            await client.v1.customers.retrieve_async("cus_nobody")
    finally:
        await http_client.close_async()

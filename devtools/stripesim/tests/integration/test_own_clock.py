"""Customers without a test clock live by the clock file, as the demo's services do (L21)."""

import pytest
import stripe
from quill_stripesim.app import Settings
from quill_stripesim.engine.announcing import API_VERSION
from quill_stripesim.serving import simulated_stripe

pytestmark = pytest.mark.integration
DAY = 86_400


@pytest.fixture
def clock_file(tmp_path):
    return tmp_path / "clock"


@pytest.fixture
def client(clock_file):
    with simulated_stripe(Settings(clock_file=clock_file, grace_hours=24)) as url:
        yield stripe.StripeClient(
            "sk_test_clock",
            stripe_version=API_VERSION,
            base_addresses=dict.fromkeys(("api", "files", "connect", "meter_events"), url),
            http_client=stripe.RequestsClient(timeout=10),
        )


def seats(client):
    product = client.v1.products.create(params={"name": "Seats"})
    params = {"product": product.id, "currency": "usd", "unit_amount": 700, "recurring": {"interval": "month"}}
    return client.v1.prices.create(params=params).id


def test_a_moved_clock_file_ends_the_period_and_leaves_the_draft_its_whole_grace(client, clock_file):
    card = {"payment_method": "pm_card_visa", "invoice_settings": {"default_payment_method": "pm_card_visa"}}
    customer = client.v1.customers.create(params={"name": "Acme", **card}).id
    client.v1.subscriptions.create(params={"customer": customer, "items": [{"price": seats(client)}]})

    clock_file.write_text(str(40 * DAY), encoding="utf-8")
    draft = client.v1.invoices.list(params={"customer": customer}).data[0]
    assert (draft.status, draft.billing_reason) == ("draft", "subscription_cycle")
    assert draft.automatically_finalizes_at == draft.created + DAY

    clock_file.write_text(str(41 * DAY + 60), encoding="utf-8")
    assert client.v1.invoices.retrieve(draft.id).status == "paid"


def test_several_periods_passed_at_once_make_an_invoice_each(client, clock_file):
    customer = client.v1.customers.create(params={"name": "Acme"}).id
    client.v1.subscriptions.create(
        params={
            "customer": customer,
            "collection_method": "send_invoice",
            "days_until_due": 30,
            "items": [{"price": seats(client)}],
        }
    )

    clock_file.write_text(str(100 * DAY), encoding="utf-8")

    invoices = client.v1.invoices.list(params={"customer": customer}).data
    assert [invoice.billing_reason for invoice in invoices] == ["subscription_cycle"] * 3 + ["subscription_create"]
    assert [older.period_end for older in invoices[1:3]] == [newer.period_start for newer in invoices[:2]]


def test_a_clock_does_not_go_back_and_not_too_far(client):
    clocks = client.v1.test_helpers.test_clocks
    clock = clocks.create(params={"frozen_time": 1_800_000_000})
    customer = client.v1.customers.create(params={"name": "Acme", "test_clock": clock.id}).id
    client.v1.subscriptions.create(
        params={
            "customer": customer,
            "collection_method": "send_invoice",
            "days_until_due": 30,
            "items": [{"price": seats(client)}],
        }
    )

    for frozen_time in (1_799_999_999, 1_800_000_000 + 70 * DAY):
        with pytest.raises(stripe.InvalidRequestError):
            clocks.advance(clock.id, params={"frozen_time": frozen_time})
    assert clocks.advance(clock.id, params={"frozen_time": 1_800_000_000 + 50 * DAY}).status == "advancing"


def test_a_request_in_another_api_version_is_refused(client):
    with pytest.raises(stripe.InvalidRequestError, match="API version"):
        client.v1.customers.list(options={"stripe_version": "2025-02-24.acacia"})


def test_an_unknown_path_is_refused_in_stripes_shape(client):
    with pytest.raises(stripe.InvalidRequestError, match="Unrecognized request URL"):
        client.v1.coupons.list()


def test_answers_name_their_request(client):
    customer = client.v1.customers.create(params={"name": "Acme"})

    assert customer.last_response.headers["request-id"].startswith("req_")
    with pytest.raises(stripe.InvalidRequestError) as missing:
        client.v1.customers.retrieve("cus_nobody")
    assert (missing.value.code, missing.value.http_status) == ("resource_missing", 404)
    assert missing.value.request_id.startswith("req_")

"""Answers held to the SDK's resource classes: nothing undeclared, nothing that must be there left out."""

import builtins
import sys
import types
from typing import Any, Union, get_args, get_origin, get_type_hints

import httpx
import pytest
import stripe
from stripe._list_object import ListObject
from stripe._stripe_object import StripeObject

pytestmark = pytest.mark.integration

UNDECLARED = {("Price", "tiers")}
"""Shown only when expanded, though the SDK cannot say so."""


class Names(dict):
    """The names that a resource class uses: its own inner classes, and the resources it imports only for checkers."""

    def __init__(self, resource: type) -> None:
        module = sys.modules[resource.__module__]
        at: Any = module
        known = {**vars(builtins), **vars(module)}
        for name in resource.__qualname__.split("."):
            at = getattr(at, name)
            known |= vars(at)
        super().__init__(known)

    def __missing__(self, name: str) -> Any:
        places = (stripe, stripe.billing, stripe.test_helpers)
        return next((getattr(place, name) for place in places if hasattr(place, name)), StripeObject)


def declared(resource: type) -> dict[str, Any]:
    bare = types.new_class("Fields")
    bare.__annotations__ = {
        name: hint
        for name, hint in resource.__annotations__.items()
        if not name.startswith("_") and name != "OBJECT_NAME"
    }
    return get_type_hints(bare, globalns={}, localns=Names(resource))


def members(hint: Any) -> list[Any]:
    if get_origin(hint) in {Union, types.UnionType}:
        return [each for member in get_args(hint) for each in members(member)]
    return [hint]


def faults(shown: Any, resource: type, at: str) -> list[str]:
    """Says how a JSON object differs from a resource class, down into what it contains."""
    fields = declared(resource)
    found = [f"{at}.{name} is not declared" for name in shown if name not in fields]
    for name, hint in fields.items():
        is_optional = type(None) in members(hint)
        if name not in shown:
            if not is_optional and (resource.__name__, name) not in UNDECLARED:
                found.append(f"{at}.{name} is missing")
            continue
        value = shown[name]
        if value is None and not is_optional:
            found.append(f"{at}.{name} is null")
        found += inner_faults(value, hint, f"{at}.{name}")
    return found


def inner_faults(value: Any, hint: Any, at: str) -> list[str]:
    for member in members(hint):
        inner = get_args(member)[0] if get_origin(member) in {list, ListObject} else member
        is_resource = isinstance(inner, type) and issubclass(inner, StripeObject) and inner.__annotations__
        if isinstance(value, dict) and value.get("object") == "list" and is_resource:
            return [fault for each in value["data"] for fault in faults(each, inner, f"{at}[]")]
        if isinstance(value, list) and is_resource:
            return [fault for each in value if isinstance(each, dict) for fault in faults(each, inner, f"{at}[]")]
        if isinstance(value, dict) and is_resource and not get_origin(member):
            return faults(value, inner, at)
    return []


@pytest.fixture
def shown(story):
    """Every kind of object after one paid month, as raw JSON."""
    clock = story.clock(2026, 1, 31)
    customer = story.customer(clock)
    meter = story.meter()
    subscription = story.subscribe(customer, story.metered_price(meter), story.seat_price())
    story.report(customer, 2_345_678, story.at(2026, 1, 31))
    story.advance(clock, 2026, 3, 1)
    draft = story.client.v1.invoices.create(params={"customer": customer})
    item = {"customer": customer, "invoice": draft.id, "amount": 5, "currency": "usd"}
    invoice_item = story.client.v1.invoice_items.create(params=item)
    story.client.v1.webhook_endpoints.create(
        params={"url": "http://127.0.0.1:1/hook", "enabled_events": ["plan.created"]}
    )

    def read(path: str) -> Any:
        headers = {"Authorization": "Bearer sk_test_story"}
        answer = httpx.get(f"{story.url}/v1/{path}", headers=headers, trust_env=False)
        return answer.raise_for_status().json()

    invoice = read(f"invoices?customer={customer}&status=paid")["data"][0]
    return {
        stripe.Customer: read(f"customers/{customer}"),
        stripe.Product: read("products")["data"][0],
        stripe.Price: read("prices")["data"][0],
        stripe.billing.Meter: read(f"billing/meters/{meter}"),
        stripe.billing.MeterEventSummary: read(
            f"billing/meters/{meter}/event_summaries?customer={customer}&start_time=0&end_time=2000000040"
        )["data"][0],
        stripe.Subscription: read(f"subscriptions/{subscription.id}"),
        stripe.SubscriptionItem: read(f"subscription_items?subscription={subscription.id}")["data"][0],
        stripe.Invoice: invoice,
        stripe.InvoiceLineItem: read(f"invoices/{invoice['id']}/lines")["data"][0],
        stripe.InvoiceItem: read(f"invoiceitems/{invoice_item.id}"),
        stripe.InvoicePayment: read("invoice_payments")["data"][0],
        stripe.PaymentMethod: read("payment_methods")["data"][0],
        stripe.Event: read("events")["data"][0],
        stripe.WebhookEndpoint: read("webhook_endpoints")["data"][0],
        stripe.test_helpers.TestClock: read(f"test_helpers/test_clocks/{clock}"),
    }


def test_every_object_has_the_shape_the_sdk_declares(shown):
    assert [fault for resource, value in shown.items() for fault in faults(value, resource, resource.__name__)] == []


def test_the_check_itself_sees_a_field_too_many_and_one_too_few(shown):
    product = {**shown[stripe.Product], "colour": "red"}
    del product["name"]

    assert faults(product, stripe.Product, "Product") == ["Product.colour is not declared", "Product.name is missing"]

    invoice = shown[stripe.Invoice]
    del invoice["parent"]["subscription_details"]["subscription"]
    invoice["lines"]["data"][0]["pricing"]["price_details"]["plan"] = "x"
    assert faults(invoice, stripe.Invoice, "Invoice") == [
        "Invoice.lines[].pricing.price_details.plan is not declared",
        "Invoice.parent.subscription_details.subscription is missing",
    ]


def test_expanding_replaces_an_id_by_its_object(story):
    customer = story.customer()
    subscription = story.subscribe(customer, story.seat_price())

    found = story.client.v1.subscriptions.retrieve(
        subscription.id, params={"expand": ["customer", "latest_invoice.payments", "items.data.price.product"]}
    )

    assert found.customer.name == "Acme"
    assert found.latest_invoice.payments.data[0].amount_paid == 1_000
    assert found["items"].data[0].price.product.name == "Seats"
    with pytest.raises(stripe.InvalidRequestError, match="cannot be expanded"):
        story.client.v1.subscriptions.retrieve(subscription.id, params={"expand": ["colour"]})

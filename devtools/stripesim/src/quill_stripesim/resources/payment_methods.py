"""Payment methods: Stripe's test cards, attached and made default."""

from stripe.params import (
    PaymentMethodAttachParams,
    PaymentMethodDetachParams,
    PaymentMethodListParams,
    PaymentMethodRetrieveParams,
)

from quill_stripesim.call import LISTING, Call, Route, honours
from quill_stripesim.engine.announcing import announce
from quill_stripesim.engine.metering import instant_of
from quill_stripesim.listing import newest_first, page
from quill_stripesim.stripe_error import StripeError, no_such
from quill_stripesim.world import Resource, World

TEST_CARDS = {
    "pm_card_visa": ("visa", "4242", False),
    "pm_card_mastercard": ("mastercard", "4444", False),
    "pm_card_chargeCustomerFail": ("visa", "0341", True),
}
"""Brand, last digits, and whether every charge is declined, by the token that stands for the card."""


def attach(call: Call) -> Resource:
    """Attaches a test card or a stored payment method to a customer."""
    if "customer" not in call.params:
        raise StripeError("Missing required param: customer.", code="parameter_missing", param="customer")
    customer = call.world.require("customer", call.params["customer"], param="customer")
    at = instant_of(call.world, customer, now=call.now)
    return attach_to(call.world, call.ids["id"], customer, at=at)


def attach_to(world: World, token_or_id: str, customer: Resource, *, at: int) -> Resource:
    """Attaches a payment method: a test token makes a new one each time.

    Raises:
        StripeError: 404 for an unknown one, 400 for one that belongs to another customer.
    """
    method = world.get("payment_method", token_or_id)
    if method is None and token_or_id in TEST_CARDS:
        method = _card(world, token_or_id, at=at)
    if method is None:
        raise no_such("PaymentMethod", token_or_id)
    if method["customer"] not in {None, customer["id"]}:
        raise StripeError("The payment method you provided has already been attached to a customer.")
    attached = world.put({**method, "customer": customer["id"]})
    announce(world, "payment_method.attached", attached, at=at)
    return attached


def detach(call: Call) -> Resource:
    """Takes a payment method away from its customer."""
    method = call.world.require("payment_method", call.ids["id"])
    if method["customer"] is None:
        raise StripeError("The payment method you provided is not attached to a customer.")
    customer = call.world.require("customer", method["customer"])
    settings = customer["invoice_settings"]
    if settings["default_payment_method"] == method["id"]:
        call.world.put({**customer, "invoice_settings": {**settings, "default_payment_method": None}})
    detached = call.world.put({**method, "customer": None})
    announce(call.world, "payment_method.detached", detached, at=instant_of(call.world, customer, now=call.now))
    return detached


def retrieve(call: Call) -> Resource:
    """Returns a payment method."""
    return call.world.require("payment_method", call.ids["id"])


def list_(call: Call) -> Resource:
    """Lists payment methods, of one customer if one is named."""
    found = newest_first(call.world.all("payment_method"))
    wanted = call.params.get("customer")
    return page([each for each in found if wanted in {None, each["customer"]}], call.params, url=call.path)


def _card(world: World, token: str, *, at: int) -> Resource:
    brand, last4, always_declines = TEST_CARDS[token]
    return {
        "id": world.new_id("pm"),
        "object": "payment_method",
        "allow_redisplay": "unspecified",
        "billing_details": {"address": None, "email": None, "name": None, "phone": None, "tax_id": None},
        "card": {
            "brand": brand,
            "checks": None,
            "country": "US",
            "display_brand": brand,
            "exp_month": 12,
            "exp_year": 2099,
            "funding": "credit",
            "last4": last4,
        },
        "created": at,
        "customer": None,
        "livemode": False,
        "metadata": {},
        "type": "card",
        "_always_declines": always_declines,
    }


ROUTES = [
    Route("GET", "/v1/payment_methods", list_, PaymentMethodListParams, LISTING | honours("customer", "type")),
    Route("GET", "/v1/payment_methods/{id}", retrieve, PaymentMethodRetrieveParams),
    Route("POST", "/v1/payment_methods/{id}/attach", attach, PaymentMethodAttachParams, honours("customer")),
    Route("POST", "/v1/payment_methods/{id}/detach", detach, PaymentMethodDetachParams),
]

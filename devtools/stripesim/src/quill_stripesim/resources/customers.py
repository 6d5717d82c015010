"""Customers: the party billed."""

import re
from typing import Any

from stripe.params import (
    CustomerCreateParams,
    CustomerDeleteParams,
    CustomerListParams,
    CustomerPaymentMethodListParams,
    CustomerRetrieveParams,
    CustomerSearchParams,
    CustomerUpdateParams,
)

from quill_stripesim.call import LISTING, Call, Route, honours
from quill_stripesim.engine.announcing import announce
from quill_stripesim.engine.metering import instant_of
from quill_stripesim.listing import newest_first, page, search
from quill_stripesim.resources.payment_methods import attach_to
from quill_stripesim.stripe_error import StripeError
from quill_stripesim.world import Resource, World

_OWN = ("address", "description", "email", "name", "phone", "preferred_locales")
_FIELDS = honours(*_OWN, "metadata", "invoice_settings", "invoice_prefix", "next_invoice_sequence")


def create(call: Call) -> Resource:
    """Creates a customer, on a test clock if one is named."""
    world, params = call.world, call.params
    clock = params.get("test_clock")
    if clock is not None:
        world.require("test_helpers.test_clock", clock, param="test_clock")
    identifier = world.new_id("cus")
    customer: Resource = {
        "id": identifier,
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": call.now,
        "currency": None,
        "default_source": None,
        "delinquent": False,
        "description": None,
        "discount": None,
        "email": None,
        "invoice_prefix": f"SIM{identifier[-5:]}",
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        "livemode": False,
        "metadata": {},
        "name": None,
        "next_invoice_sequence": 1,
        "phone": None,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": clock,
        "_fail_next_payments": 0,
    }
    created_at = instant_of(world, customer, now=call.now)
    customer = world.put({**customer, "created": created_at})
    chosen = dict(params.get("invoice_settings", {}))
    if "payment_method" in params:
        attached = attach_to(world, params["payment_method"], customer, at=created_at)
        if chosen.get("default_payment_method") == params["payment_method"]:
            chosen["default_payment_method"] = attached["id"]
    customer = world.put(_changed(world, customer, {**params, "invoice_settings": chosen}))
    announce(world, "customer.created", customer, at=created_at)
    return customer


def retrieve(call: Call) -> Resource:
    """Returns a customer."""
    return call.world.require("customer", call.ids["id"])


def update(call: Call) -> Resource:
    """Changes a customer."""
    before = call.world.require("customer", call.ids["id"])
    after = call.world.put(_changed(call.world, before, call.params))
    previous = {name: before[name] for name in call.params if before.get(name) != after.get(name)}
    at = instant_of(call.world, after, now=call.now)
    announce(call.world, "customer.updated", after, at=at, previous=previous)
    return after


def delete(call: Call) -> Resource:
    """Removes a customer that has no live subscription."""
    customer = call.world.require("customer", call.ids["id"])
    subscriptions = call.world.where("subscription", "customer", customer["id"])
    if any(each["status"] != "canceled" for each in subscriptions):
        raise StripeError("quill-stripesim deletes only customers without a live subscription: cancel it first.")
    call.world.remove("customer", customer["id"])
    announce(call.world, "customer.deleted", customer, at=instant_of(call.world, customer, now=call.now))
    return {"id": customer["id"], "object": "customer", "deleted": True}


def list_(call: Call) -> Resource:
    """Lists customers, newest first."""
    wanted = [each for each in newest_first(call.world.all("customer")) if _fits(each, call.params)]
    return page(wanted, call.params, url=call.path)


def search_(call: Call) -> Resource:
    """Searches customers by metadata, email or name."""
    return search(call.world.all("customer"), call.params, url=call.path)


def payment_methods(call: Call) -> Resource:
    """Lists a customer's payment methods."""
    customer = call.world.require("customer", call.ids["id"])
    return page(
        newest_first(call.world.where("payment_method", "customer", customer["id"])), call.params, url=call.path
    )


def merged_metadata(current: dict[str, str], given: Any) -> dict[str, str]:
    """Applies a metadata parameter: an empty value removes its key, an empty string removes everything."""
    if given == "":
        return {}
    return {key: value for key, value in {**current, **given}.items() if value != ""}


def _changed(world: World, customer: Resource, params: dict[str, Any]) -> Resource:
    settings = {**customer["invoice_settings"], **params.get("invoice_settings", {})}
    method = settings["default_payment_method"]
    if method is not None:
        param = "invoice_settings[default_payment_method]"
        if world.require("payment_method", method, param=param)["customer"] != customer["id"]:
            raise StripeError(f"The payment method {method} is not attached to this customer.", param=param)
    changed = {
        **customer,
        **{name: params[name] for name in (*_OWN, "invoice_prefix", "next_invoice_sequence") if name in params},
        "invoice_settings": settings,
    }
    _refuse_too_long(params)
    if "metadata" in params:
        changed["metadata"] = merged_metadata(customer["metadata"], params["metadata"])
    return changed


def _refuse_too_long(params: dict[str, Any]) -> None:
    """Holds name and e-mail to Stripe's bounds; an address without a domain is no address."""
    for name, length in (("name", 256), ("email", 512)):
        if len(params.get(name) or "") > length:
            raise StripeError(f"Invalid string: {name} must be at most {length} characters.", param=name)
    email = params.get("email")
    if email and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s.]+", email):
        raise StripeError(f"Invalid email address: {email}", code="email_invalid", param="email")


def _fits(customer: Resource, params: dict[str, Any]) -> bool:
    if customer["test_clock"] != params.get("test_clock", customer["test_clock"]):
        return False
    return bool(customer["email"] == params.get("email", customer["email"]))


ROUTES = [
    Route("POST", "/v1/customers", create, CustomerCreateParams, _FIELDS | honours("test_clock", "payment_method")),
    Route("GET", "/v1/customers", list_, CustomerListParams, LISTING | honours("email", "test_clock")),
    Route("GET", "/v1/customers/search", search_, CustomerSearchParams, honours("query", "limit", "page")),
    Route("GET", "/v1/customers/{id}", retrieve, CustomerRetrieveParams),
    Route("POST", "/v1/customers/{id}", update, CustomerUpdateParams, _FIELDS),
    Route("DELETE", "/v1/customers/{id}", delete, CustomerDeleteParams),
    Route("GET", "/v1/customers/{id}/payment_methods", payment_methods, CustomerPaymentMethodListParams, LISTING),
]

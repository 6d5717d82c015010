"""Invoice items: an amount waiting for an invoice, or put on a draft."""

from decimal import Decimal
from typing import Any

from stripe.params import (
    InvoiceItemCreateParams,
    InvoiceItemDeleteParams,
    InvoiceItemListParams,
    InvoiceItemRetrieveParams,
)

from quill_stripesim.call import LISTING, Call, Route, honours
from quill_stripesim.engine.announcing import announce
from quill_stripesim.engine.drafting import refuse_too_many_items, with_totals
from quill_stripesim.engine.invoice_lines import decimal_text, put_invoice_item_line
from quill_stripesim.engine.metering import instant_of
from quill_stripesim.listing import newest_first, page
from quill_stripesim.rating import rated_units
from quill_stripesim.stripe_error import StripeError
from quill_stripesim.world import Resource, World

MAX_AMOUNT = 99_999_999
MAX_DESCRIPTION_LENGTH = 500


def create(call: Call) -> Resource:
    """Creates an invoice item, pending or on a draft."""
    world, params = call.world, call.params
    if "customer" not in params:
        raise StripeError("Missing required param: customer.", code="parameter_missing", param="customer")
    customer = world.require("customer", params["customer"], param="customer")
    at = instant_of(world, customer, now=call.now)
    invoice = None
    if "invoice" in params:
        invoice = editable(world, params["invoice"], param="invoice")
        if invoice["customer"] != customer["id"]:
            raise StripeError("The invoice belongs to another customer.", param="invoice")
        refuse_too_many_items(world, invoice["id"], adding=1)
    currency = params.get("currency") or (invoice["currency"] if invoice is not None else None)
    item = new_item(world, customer, params, currency=currency, at=at)
    announce(world, "invoiceitem.created", item, at=at)
    if invoice is not None:
        put_invoice_item_line(world, invoice, item)
        with_totals(world, invoice)
    return world.require("invoiceitem", item["id"])


def retrieve(call: Call) -> Resource:
    """Returns an invoice item."""
    return call.world.require("invoiceitem", call.ids["id"])


def delete(call: Call) -> Resource:
    """Removes an invoice item that is pending or on a draft."""
    world = call.world
    item = world.require("invoiceitem", call.ids["id"])
    if item["invoice"] is not None:
        invoice = editable(world, item["invoice"], param="invoice")
        for line in world.where("line_item", "invoice", invoice["id"]):
            if line["_item"] == item["id"]:
                world.remove("line_item", line["id"])
        with_totals(world, invoice)
    world.remove("invoiceitem", item["id"])
    customer = world.require("customer", item["customer"])
    announce(world, "invoiceitem.deleted", item, at=instant_of(world, customer, now=call.now))
    return {"id": item["id"], "object": "invoiceitem", "deleted": True}


def list_(call: Call) -> Resource:
    """Lists invoice items, newest first."""
    params = call.params
    found = [
        each
        for each in newest_first(call.world.all("invoiceitem"))
        if params.get("customer", each["customer"]) == each["customer"]
        and params.get("invoice", each["invoice"]) == each["invoice"]
        and params.get("pending", each["invoice"] is None) == (each["invoice"] is None)
    ]
    return page(found, params, url=call.path)


def editable(world: World, invoice: str, *, param: str | None = None) -> Resource:
    """Returns a draft.

    Raises:
        StripeError: 400 `invoice_not_editable` once it is finalized (L13).
    """
    found = world.require("invoice", invoice, param=param)
    if found["status"] != "draft":
        raise StripeError(
            f"Invoice {invoice} is no longer editable: it is {found['status']}.",
            code="invoice_not_editable",
            param=param,
        )
    return found


def new_item(world: World, customer: Resource, params: dict[str, Any], *, currency: str | None, at: int) -> Resource:
    """Stores an invoice item of an amount, of units at a decimal price, or of a one-time price.

    Raises:
        StripeError: 400 when the amount is given in two ways or in none, or there is no currency.
    """
    amount, quantity, pricing, currency = _amount(world, params, currency)
    if abs(amount) > MAX_AMOUNT:
        raise StripeError(f"Amount must be no more than {MAX_AMOUNT}.", code="amount_too_large", param="amount")
    if len(params.get("description") or "") > MAX_DESCRIPTION_LENGTH:
        raise StripeError(
            f"Invalid string: description must be at most {MAX_DESCRIPTION_LENGTH} characters.", param="description"
        )
    if currency is None:
        raise StripeError("Missing required param: currency.", code="parameter_missing", param="currency")
    return world.put(
        {
            "id": world.new_id("ii"),
            "object": "invoiceitem",
            "amount": amount,
            "currency": currency,
            "customer": customer["id"],
            "customer_account": None,
            "date": at,
            "description": params.get("description"),
            "discountable": params.get("discountable", amount >= 0),
            "discounts": [],
            "invoice": None,
            "livemode": False,
            "metadata": params.get("metadata") or {},
            "net_amount": amount,
            "parent": None,
            "period": params.get("period", {"start": at, "end": at}),
            "pricing": pricing,
            "proration": False,
            "proration_details": None,
            "quantity": quantity,
            "quantity_decimal": str(quantity),
            "tax_rates": [],
            "test_clock": customer["test_clock"],
        }
    )


def _amount(world: World, params: dict[str, Any], currency: str | None) -> tuple[int, int, Resource | None, str | None]:
    """Returns amount in minor units, quantity, pricing and currency."""
    ways = [name for name in ("amount", "unit_amount_decimal", "pricing") if name in params]
    if len(ways) != 1:
        raise StripeError("Give exactly one of amount, unit_amount_decimal and pricing.", param="amount")
    if "amount" in params:
        if "quantity" in params:
            raise StripeError("You may only specify one of amount and quantity.", param="quantity")
        return params["amount"], 1, None, currency
    quantity = params.get("quantity", 1)
    if "unit_amount_decimal" in params:
        unit_amount: Decimal = params["unit_amount_decimal"]
        return rated_units(quantity, unit_amount), quantity, None, currency
    price = world.require("price", params["pricing"].get("price", ""), param="pricing[price]")
    if price["type"] != "one_time" or price["billing_scheme"] != "per_unit":
        raise StripeError("An invoice item takes a one-time per-unit price.", param="pricing[price]")
    unit_amount = Decimal(price["unit_amount_decimal"])
    pricing = {
        "type": "price_details",
        "price_details": {"price": price["id"], "product": price["product"]},
        "unit_amount_decimal": decimal_text(unit_amount),
    }
    return rated_units(quantity, unit_amount), quantity, pricing, price["currency"]


ROUTES = [
    Route(
        "POST",
        "/v1/invoiceitems",
        create,
        InvoiceItemCreateParams,
        honours(
            "amount",
            "currency",
            "customer",
            "description",
            "discountable",
            "invoice",
            "metadata",
            "period",
            "pricing",
            "quantity",
            "unit_amount_decimal",
        ),
    ),
    Route("GET", "/v1/invoiceitems", list_, InvoiceItemListParams, LISTING | honours("customer", "invoice", "pending")),
    Route("GET", "/v1/invoiceitems/{id}", retrieve, InvoiceItemRetrieveParams),
    Route("DELETE", "/v1/invoiceitems/{id}", delete, InvoiceItemDeleteParams),
]

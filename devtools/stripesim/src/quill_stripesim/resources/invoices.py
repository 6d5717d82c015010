"""Invoices: what is owed; draft, open, paid, void or uncollectible."""

from typing import Any

from stripe.params import (
    InvoiceAddLinesParams,
    InvoiceCreateParams,
    InvoiceDeleteParams,
    InvoiceFinalizeInvoiceParams,
    InvoiceListParams,
    InvoiceMarkUncollectibleParams,
    InvoicePayParams,
    InvoiceRetrieveParams,
    InvoiceSearchParams,
    InvoiceSendInvoiceParams,
    InvoiceUpdateParams,
    InvoiceVoidInvoiceParams,
)

from quill_stripesim.call import LISTING, Call, Route, honours
from quill_stripesim.engine import collecting
from quill_stripesim.engine.announcing import announce
from quill_stripesim.engine.drafting import (
    grace_seconds,
    new_invoice,
    pull_pending_items,
    refuse_too_many_items,
    with_totals,
)
from quill_stripesim.engine.invoice_lines import put_invoice_item_line
from quill_stripesim.engine.metering import instant_of
from quill_stripesim.listing import newest_first, page, search
from quill_stripesim.resources.customers import merged_metadata
from quill_stripesim.resources.invoice_items import editable, new_item
from quill_stripesim.stripe_error import StripeError, not_simulated
from quill_stripesim.world import Resource

_OWN = (
    "auto_advance",
    "automatically_finalizes_at",
    "collection_method",
    "default_payment_method",
    "description",
    "due_date",
    "effective_at",
    "footer",
    "number",
    "statement_descriptor",
)
_FIELDS = honours(*_OWN, "metadata", "days_until_due")
_LINE_PARAMS = frozenset(
    {"amount", "description", "discountable", "metadata", "period", "pricing", "quantity", "invoice_item"}
)


def create(call: Call) -> Resource:
    """Creates a free-standing draft; pending invoice items come along only with `include`."""
    world, params = call.world, call.params
    if "customer" not in params:
        raise StripeError("Missing required param: customer.", code="parameter_missing", param="customer")
    customer = world.require("customer", params["customer"], param="customer")
    at = instant_of(world, customer, now=call.now)
    draft = new_invoice(world, customer, at=at, currency=params.get("currency", "usd"), billing_reason="manual")
    invoice = world.put(_changed(draft, params, at=at, grace=grace_seconds(world)))
    if params.get("pending_invoice_items_behavior", "exclude") == "include":
        pull_pending_items(world, invoice)
    invoice = with_totals(world, invoice)
    announce(world, "invoice.created", invoice, at=at)
    return invoice


def update(call: Call) -> Resource:
    """Changes a draft; on a final invoice only metadata and `auto_advance`."""
    before = call.world.require("invoice", call.ids["id"])
    if before["status"] != "draft" and set(call.params) - {"metadata", "auto_advance"}:
        editable(call.world, before["id"])
    at = _instant(call, before)
    after = call.world.put(_changed(before, call.params, at=at, grace=grace_seconds(call.world)))
    previous = {name: before[name] for name in call.params if name in before and before[name] != after[name]}
    announce(call.world, "invoice.updated", after, at=at, previous=previous)
    return after


def retrieve(call: Call) -> Resource:
    """Returns an invoice."""
    return call.world.require("invoice", call.ids["id"])


def delete(call: Call) -> Resource:
    """Removes a free-standing draft; its items wait for another invoice again."""
    world = call.world
    invoice = editable(world, call.ids["id"])
    if invoice["_subscription"] is not None:
        raise StripeError("You can only delete drafts that no subscription made.")
    for line in world.where("line_item", "invoice", invoice["id"]):
        world.remove("line_item", line["id"])
    for item in world.where("invoiceitem", "invoice", invoice["id"]):
        world.put({**item, "invoice": None})
    world.remove("invoice", invoice["id"])
    announce(world, "invoice.deleted", invoice, at=_instant(call, invoice))
    return {"id": invoice["id"], "object": "invoice", "deleted": True}


def list_(call: Call) -> Resource:
    """Lists invoices, newest first."""
    found = [each for each in newest_first(call.world.all("invoice")) if _fits(each, call.params)]
    return page(found, call.params, url=call.path)


def search_(call: Call) -> Resource:
    """Searches invoices by metadata, number, status, customer or total."""
    return search(call.world.all("invoice"), call.params, url=call.path)


def add_lines(call: Call) -> Resource:
    """Adds lines to a draft, each as an invoice item of its own."""
    world = call.world
    invoice = editable(world, call.ids["id"])
    customer = world.require("customer", invoice["customer"])
    at = _instant(call, invoice)
    refuse_too_many_items(world, invoice["id"], adding=len(call.params["lines"]))
    for number, given in enumerate(call.params["lines"]):
        for name in given:
            if name not in _LINE_PARAMS:
                raise not_simulated(f"lines[{number}][{name}]")
        if "invoice_item" in given:
            item = world.require("invoiceitem", given["invoice_item"], param=f"lines[{number}][invoice_item]")
            if item["invoice"] is not None or item["customer"] != customer["id"]:
                raise StripeError("The invoice item is not pending for this customer.", param=f"lines[{number}]")
        else:
            item = new_item(world, customer, given, currency=invoice["currency"], at=at)
        put_invoice_item_line(world, invoice, item)
    if "invoice_metadata" in call.params:
        metadata = merged_metadata(invoice["metadata"], call.params["invoice_metadata"])
        invoice = world.put({**invoice, "metadata": metadata})
    invoice = with_totals(world, invoice)
    announce(world, "invoice.updated", invoice, at=at, previous={})
    return invoice


def finalize(call: Call) -> Resource:
    """Makes a draft final; with `auto_advance` Stripe goes on to collect it."""
    invoice = call.world.require("invoice", call.ids["id"])
    at = _instant(call, invoice)
    if invoice["status"] == "draft" and "auto_advance" in call.params:
        invoice = call.world.put({**invoice, "auto_advance": call.params["auto_advance"]})
    return collecting.advance_open(call.world, collecting.finalize(call.world, invoice, at=at), at=at)


def pay(call: Call) -> Resource:
    """Pays an invoice now, by its payment method, another one, or out of band."""
    invoice = call.world.require("invoice", call.ids["id"])
    return collecting.pay(
        call.world,
        invoice,
        at=_instant(call, invoice),
        payment_method=call.params.get("payment_method"),
        out_of_band=call.params.get("paid_out_of_band", False),
    )


def send(call: Call) -> Resource:
    """Sends an invoice by mail (only the event: no mail leaves the simulator)."""
    invoice = call.world.require("invoice", call.ids["id"])
    if invoice["collection_method"] != "send_invoice":
        raise StripeError("You can only send invoices with collection_method=send_invoice.")
    at = _instant(call, invoice)
    if invoice["status"] == "draft":
        invoice = collecting.finalize(call.world, invoice, at=at)
    announce(call.world, "invoice.sent", invoice, at=at)
    return invoice


def void(call: Call) -> Resource:
    """Voids an open invoice."""
    invoice = call.world.require("invoice", call.ids["id"])
    return collecting.void(call.world, invoice, at=_instant(call, invoice))


def mark_uncollectible(call: Call) -> Resource:
    """Gives up an open invoice."""
    invoice = call.world.require("invoice", call.ids["id"])
    return collecting.mark_uncollectible(call.world, invoice, at=_instant(call, invoice))


def _instant(call: Call, invoice: Resource) -> int:
    return instant_of(call.world, call.world.require("customer", invoice["customer"]), now=call.now)


def _changed(invoice: Resource, params: dict[str, Any], *, at: int, grace: int) -> Resource:
    changed = {**invoice, **{name: params[name] for name in _OWN if name in params}}
    if "metadata" in params:
        changed["metadata"] = merged_metadata(invoice["metadata"], params["metadata"])
    if "days_until_due" in params:
        changed["_days_until_due"] = params["days_until_due"]
    if (
        changed["collection_method"] == "send_invoice"
        and changed["_days_until_due"] is None
        and not changed["due_date"]
    ):
        raise StripeError("send_invoice needs days_until_due or due_date.", param="days_until_due")
    if "automatically_finalizes_at" in params:
        if params["automatically_finalizes_at"] < at:
            raise StripeError("automatically_finalizes_at must be in the future.", param="automatically_finalizes_at")
        changed["auto_advance"] = params.get("auto_advance", True)
    elif changed["status"] == "draft" and changed["auto_advance"]:
        changed["automatically_finalizes_at"] = invoice["automatically_finalizes_at"] or at + grace
    if not changed["auto_advance"]:
        changed["automatically_finalizes_at"] = None
    return changed


def _fits(invoice: Resource, params: dict[str, Any]) -> bool:
    fields = {"customer": "customer", "status": "status", "subscription": "_subscription"}
    fields["collection_method"] = "collection_method"
    return all(params[name] == invoice[field] for name, field in fields.items() if name in params)


ROUTES = [
    Route(
        "POST",
        "/v1/invoices",
        create,
        InvoiceCreateParams,
        _FIELDS | honours("customer", "currency", "pending_invoice_items_behavior"),
    ),
    Route(
        "GET",
        "/v1/invoices",
        list_,
        InvoiceListParams,
        LISTING | honours("customer", "status", "subscription", "collection_method"),
    ),
    Route("GET", "/v1/invoices/search", search_, InvoiceSearchParams, honours("query", "limit", "page")),
    Route("GET", "/v1/invoices/{id}", retrieve, InvoiceRetrieveParams),
    Route("POST", "/v1/invoices/{id}", update, InvoiceUpdateParams, _FIELDS),
    Route("DELETE", "/v1/invoices/{id}", delete, InvoiceDeleteParams),
    Route(
        "POST", "/v1/invoices/{id}/add_lines", add_lines, InvoiceAddLinesParams, honours("lines", "invoice_metadata")
    ),
    Route("POST", "/v1/invoices/{id}/finalize", finalize, InvoiceFinalizeInvoiceParams, honours("auto_advance")),
    Route(
        "POST",
        "/v1/invoices/{id}/pay",
        pay,
        InvoicePayParams,
        honours("payment_method", "paid_out_of_band", "off_session"),
    ),
    Route("POST", "/v1/invoices/{id}/send", send, InvoiceSendInvoiceParams),
    Route("POST", "/v1/invoices/{id}/void", void, InvoiceVoidInvoiceParams),
    Route("POST", "/v1/invoices/{id}/mark_uncollectible", mark_uncollectible, InvoiceMarkUncollectibleParams),
]

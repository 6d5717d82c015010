"""Invoice lines: one explained amount each, paged because a tiered invoice has many."""

from stripe.params import InvoiceLineItemListParams

from quill_stripesim.call import LISTING, Call, Route
from quill_stripesim.listing import page
from quill_stripesim.presentation import invoice_lines
from quill_stripesim.world import Resource


def list_(call: Call) -> Resource:
    """Lists an invoice's lines in the order of the invoice."""
    invoice = call.world.require("invoice", call.ids["id"])
    return page(invoice_lines(call.world, invoice["id"]), call.params, url=call.path)


ROUTES = [Route("GET", "/v1/invoices/{id}/lines", list_, InvoiceLineItemListParams, LISTING)]

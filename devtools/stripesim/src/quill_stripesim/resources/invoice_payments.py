"""Invoice payments: which payment settled which invoice."""

from stripe.params import InvoicePaymentListParams, InvoicePaymentRetrieveParams

from quill_stripesim.call import LISTING, Call, Route, honours
from quill_stripesim.listing import newest_first, page
from quill_stripesim.world import Resource


def retrieve(call: Call) -> Resource:
    """Returns an invoice payment."""
    return call.world.require("invoice_payment", call.ids["id"])


def list_(call: Call) -> Resource:
    """Lists invoice payments, newest first."""
    params = call.params
    intent = params.get("payment", {}).get("payment_intent")
    found = [
        each
        for each in newest_first(call.world.all("invoice_payment"))
        if params.get("invoice", each["invoice"]) == each["invoice"]
        and params.get("status", each["status"]) == each["status"]
        and intent in {None, each["payment"]["payment_intent"]}
    ]
    return page(found, params, url=call.path)


ROUTES = [
    Route(
        "GET",
        "/v1/invoice_payments",
        list_,
        InvoicePaymentListParams,
        LISTING | honours("invoice", "status", "payment"),
    ),
    Route("GET", "/v1/invoice_payments/{id}", retrieve, InvoicePaymentRetrieveParams),
]

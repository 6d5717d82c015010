"""Payment intents, as far as an invoice payment points at one."""

from stripe.params import PaymentIntentRetrieveParams

from quill_stripesim.call import Call, Route
from quill_stripesim.world import Resource


def retrieve(call: Call) -> Resource:
    """Returns a payment intent."""
    return call.world.require("payment_intent", call.ids["id"])


ROUTES = [Route("GET", "/v1/payment_intents/{id}", retrieve, PaymentIntentRetrieveParams)]

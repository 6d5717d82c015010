"""Events: what changed, kept so that whoever missed a webhook can catch up."""

from stripe.params import EventListParams, EventRetrieveParams

from quill_stripesim.call import LISTING, Call, Route, honours
from quill_stripesim.listing import newest_first, page
from quill_stripesim.world import Resource


def retrieve(call: Call) -> Resource:
    """Returns an event."""
    return call.world.require("event", call.ids["id"])


def list_(call: Call) -> Resource:
    """Lists events, newest first, of one type or of several."""
    wanted = set(call.params.get("types", []))
    if "type" in call.params:
        wanted.add(call.params["type"])
    delivered = call.params.get("delivery_success")
    found = [
        each
        for each in newest_first(call.world.all("event"))
        if (not wanted or each["type"] in wanted) and delivered in {None, each["pending_webhooks"] == 0}
    ]
    return page(found, call.params, url=call.path)


ROUTES = [
    Route("GET", "/v1/events", list_, EventListParams, LISTING | honours("type", "types", "delivery_success")),
    Route("GET", "/v1/events/{id}", retrieve, EventRetrieveParams),
]

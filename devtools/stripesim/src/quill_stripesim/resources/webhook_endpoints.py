"""Webhook endpoints: who is told about events, and with which secret."""

import hashlib

from stripe.params import (
    WebhookEndpointCreateParams,
    WebhookEndpointDeleteParams,
    WebhookEndpointListParams,
    WebhookEndpointRetrieveParams,
    WebhookEndpointUpdateParams,
)

from quill_stripesim.call import LISTING, Call, Route, honours
from quill_stripesim.engine.announcing import API_VERSION
from quill_stripesim.listing import newest_first, page
from quill_stripesim.resources.customers import merged_metadata
from quill_stripesim.stripe_error import StripeError, not_simulated
from quill_stripesim.world import Resource, World

MAX_ENDPOINTS = 16


def create(call: Call) -> Resource:
    """Registers an endpoint; its secret is shown in this answer only."""
    endpoint = register(
        call.world,
        url=call.params["url"],
        secret=None,
        enabled_events=call.params["enabled_events"],
        api_version=call.params.get("api_version", API_VERSION),
        at=call.now,
    )
    changed = {name: call.params[name] for name in ("description",) if name in call.params}
    stored = call.world.put({**endpoint, **changed, "metadata": call.params.get("metadata") or {}})
    return {**stored, "secret": stored["_secret"]}


def register(
    world: World, *, url: str, secret: str | None, enabled_events: list[str], api_version: str, at: int
) -> Resource:
    """Stores an endpoint.

    Args:
        world: Where it is stored.
        url: Where events are posted.
        secret: The signing secret, or None to derive one from the endpoint's id.
        enabled_events: Event types it hears, or `*`.
        api_version: Version its events are shaped in.
        at: Simulated unix seconds.

    Raises:
        StripeError: 400 for another API version than the pinned one, a url that is not http, or more than 16 endpoints.
    """
    if api_version != API_VERSION:
        raise not_simulated(f"api_version={api_version}")
    if not url.startswith(("http://", "https://")):
        raise StripeError("Invalid URL: An explicit scheme (such as https) must be provided.", param="url")
    if len(world.all("webhook_endpoint")) >= MAX_ENDPOINTS:
        raise StripeError(f"You have reached the maximum of {MAX_ENDPOINTS} webhook endpoints.")
    identifier = world.new_id("we")
    return world.put(
        {
            "id": identifier,
            "object": "webhook_endpoint",
            "api_version": api_version,
            "application": None,
            "created": at,
            "description": None,
            "enabled_events": enabled_events,
            "livemode": False,
            "metadata": {},
            "status": "enabled",
            "url": url,
            "_secret": secret or f"whsec_{hashlib.sha256(identifier.encode()).hexdigest()[:32]}",
        }
    )


def update(call: Call) -> Resource:
    """Changes where an endpoint is, what it hears, or whether it is enabled."""
    before = call.world.require("webhook_endpoint", call.ids["id"])
    own = ("url", "enabled_events", "description")
    changed: Resource = {name: call.params[name] for name in own if name in call.params}
    if "disabled" in call.params:
        changed["status"] = "disabled" if call.params["disabled"] else "enabled"
    metadata = merged_metadata(before["metadata"], call.params.get("metadata", {}))
    return call.world.put({**before, **changed, "metadata": metadata})


def retrieve(call: Call) -> Resource:
    """Returns an endpoint, without its secret."""
    return call.world.require("webhook_endpoint", call.ids["id"])


def delete(call: Call) -> Resource:
    """Removes an endpoint and what was still to be delivered to it."""
    endpoint = call.world.require("webhook_endpoint", call.ids["id"])
    for delivery in call.world.all("_delivery"):
        if delivery["endpoint"] == endpoint["id"]:
            call.world.remove("_delivery", delivery["id"])
    call.world.remove("webhook_endpoint", endpoint["id"])
    return {"id": endpoint["id"], "object": "webhook_endpoint", "deleted": True}


def list_(call: Call) -> Resource:
    """Lists endpoints, newest first."""
    return page(newest_first(call.world.all("webhook_endpoint")), call.params, url=call.path)


ROUTES = [
    Route(
        "POST",
        "/v1/webhook_endpoints",
        create,
        WebhookEndpointCreateParams,
        honours("url", "enabled_events", "api_version", "description", "metadata"),
    ),
    Route("GET", "/v1/webhook_endpoints", list_, WebhookEndpointListParams, LISTING),
    Route("GET", "/v1/webhook_endpoints/{id}", retrieve, WebhookEndpointRetrieveParams),
    Route(
        "POST",
        "/v1/webhook_endpoints/{id}",
        update,
        WebhookEndpointUpdateParams,
        honours("url", "enabled_events", "description", "disabled", "metadata"),
    ),
    Route("DELETE", "/v1/webhook_endpoints/{id}", delete, WebhookEndpointDeleteParams),
]

"""Every change makes an event, and an event one delivery per endpoint that listens."""

from quill_stripesim.presentation import present
from quill_stripesim.world import Resource, World

API_VERSION = "2026-10-28.endive"
"""The version the pinned SDK speaks: requests in another are refused, events carry it."""


def announce(world: World, kind: str, resource: Resource, *, at: int, previous: Resource | None = None) -> None:
    """Records an event with the object as it is now.

    Args:
        world: Where it is recorded, with one delivery per endpoint that listens.
        kind: Event type, such as `invoice.paid`.
        resource: The object that changed.
        at: Simulated unix seconds of the change.
        previous: Former values of the changed attributes, for `.updated` events.
    """
    data: Resource = {"object": present(world, resource)}
    if previous is not None:
        data["previous_attributes"] = previous
    listeners = [each for each in world.all("webhook_endpoint") if _listens(each, kind)]
    cause = world.cause
    event = world.put(
        {
            "id": world.new_id("evt"),
            "object": "event",
            "api_version": API_VERSION,
            "created": at,
            "data": data,
            "livemode": False,
            "pending_webhooks": len(listeners),
            "request": {
                "id": cause.request_id if cause else None,
                "idempotency_key": cause.idempotency_key if cause else None,
            },
            "type": kind,
        }
    )
    for endpoint in listeners:
        world.put(
            {
                "id": world.new_id("_delivery"),
                "object": "_delivery",
                "event": event["id"],
                "endpoint": endpoint["id"],
                "invoice": resource["id"] if kind == "invoice.created" else None,
                "attempts": 0,
            }
        )


def _listens(endpoint: Resource, kind: str) -> bool:
    return endpoint["status"] == "enabled" and ("*" in endpoint["enabled_events"] or kind in endpoint["enabled_events"])

"""What leaves the simulator: objects in the shape of the pinned API version, expanded as asked."""

from collections.abc import Callable, Iterable
from typing import Any

from quill_stripesim.listing import DEFAULT_PAGE
from quill_stripesim.stripe_error import StripeError
from quill_stripesim.world import Resource, World

MAX_EXPANSION_DEPTH = 4


def present(world: World, resource: Resource) -> Resource:
    """Returns an object as Stripe shows it unexpanded: without inner fields, and with the lists it always carries."""
    shown = {name: value for name, value in resource.items() if not name.startswith("_")}
    if shown.get("deleted", False):
        return shown
    if str(shown.get("id", "")).startswith("_"):
        del shown["id"]
    if shown.get("object") in {"list", "search_result"}:
        return {**shown, "data": [present(world, each) for each in shown["data"]]}
    embed = _EMBEDDED.get(resource.get("object", ""))
    return embed(world, shown, resource) if embed is not None else shown


def expand(world: World, shown: Resource, paths: Iterable[str]) -> Resource:
    """Replaces ids by objects along dotted paths, as `expand[]=latest_invoice.payments` asks.

    Raises:
        StripeError: 400 for a path that cannot be expanded or is more than four levels deep.
    """
    for path in paths:
        steps = path.split(".")
        if len(steps) > MAX_EXPANSION_DEPTH:
            raise StripeError(f"You cannot expand more than {MAX_EXPANSION_DEPTH} levels: {path}", param="expand")
        shown = _expand_in(world, shown, steps, path)
    return shown


def _expand_in(world: World, shown: Any, steps: list[str], path: str) -> Any:
    if not steps or shown is None:
        return shown
    if isinstance(shown, list):
        return [_expand_in(world, each, steps, path) for each in shown]
    step, rest = steps[0], steps[1:]
    on_request = _ON_REQUEST.get((shown.get("object", ""), step))
    if step not in shown and on_request is not None:
        shown = {**shown, step: on_request(world, shown["id"])}
    elif step not in shown:
        raise StripeError(f"This property cannot be expanded ({path}).", param="expand")
    value = shown[step]
    if isinstance(value, str):
        found = world.find(value)
        if found is None:
            raise StripeError(f"This property cannot be expanded ({path}).", param="expand")
        value = present(world, found)
    elif isinstance(value, list) and value and isinstance(value[0], str):
        value = [present(world, found) for found in map(world.find, value) if found is not None]
    return {**shown, step: _expand_in(world, value, rest, path)}


def embedded_list(world: World, resources: list[Resource], *, url: str, limit: int = DEFAULT_PAGE) -> Resource:
    """Returns a list object inside another object: its first page."""
    data = [present(world, each) for each in resources[:limit]]
    return {"object": "list", "data": data, "has_more": len(resources) > limit, "url": url}


def invoice_lines(world: World, invoice: str) -> list[Resource]:
    """Returns an invoice's lines in the order they are shown: items as subscribed, tiers upwards, then the rest."""
    return sorted(world.where("line_item", "invoice", invoice), key=lambda line: [*line["_order"], line["_seq"]])


def _invoice(world: World, shown: Resource, resource: Resource) -> Resource:
    url = f"/v1/invoices/{resource['id']}/lines"
    return {**shown, "lines": embedded_list(world, invoice_lines(world, resource["id"]), url=url)}


def _subscription(world: World, shown: Resource, resource: Resource) -> Resource:
    items = world.where("subscription_item", "subscription", resource["id"])
    url = f"/v1/subscription_items?subscription={resource['id']}"
    return {**shown, "items": embedded_list(world, items, url=url, limit=20)}


def _subscription_item(world: World, shown: Resource, resource: Resource) -> Resource:
    price = world.require("price", resource["_price"])
    return {**shown, "price": present(world, price), "plan": _plan(price)}


def _price(_world: World, shown: Resource, _resource: Resource) -> Resource:
    return {name: value for name, value in shown.items() if name != "tiers"}


def _plan(price: Resource) -> Resource:
    """The same price in its older shape, which subscription items still carry beside it."""
    recurring = price["recurring"]
    return {
        "id": price["id"],
        "object": "plan",
        "active": price["active"],
        "amount": price["unit_amount"],
        "amount_decimal": price["unit_amount_decimal"],
        "billing_scheme": price["billing_scheme"],
        "created": price["created"],
        "currency": price["currency"],
        "interval": recurring["interval"],
        "interval_count": recurring["interval_count"],
        "livemode": False,
        "metadata": price["metadata"],
        "meter": recurring["meter"],
        "nickname": price["nickname"],
        "product": price["product"],
        "tiers_mode": price["tiers_mode"],
        "transform_usage": price["transform_quantity"],
        "trial_period_days": None,
        "usage_type": recurring["usage_type"],
    }


def _tiers(world: World, price: str) -> list[Resource]:
    tiers: list[Resource] = world.require("price", price)["tiers"] or []
    return tiers


def _payments(world: World, invoice: str) -> Resource:
    payments = world.where("invoice_payment", "invoice", invoice)
    return embedded_list(world, payments, url=f"/v1/invoice_payments?invoice={invoice}")


def _subscriptions(world: World, customer: str) -> Resource:
    subscriptions = [each for each in world.where("subscription", "customer", customer) if each["status"] != "canceled"]
    return embedded_list(world, subscriptions, url=f"/v1/customers/{customer}/subscriptions")


_EMBEDDED: dict[str, Callable[[World, Resource, Resource], Resource]] = {
    "invoice": _invoice,
    "subscription": _subscription,
    "subscription_item": _subscription_item,
    "price": _price,
}
_ON_REQUEST: dict[tuple[str, str], Callable[[World, str], Any]] = {
    ("price", "tiers"): _tiers,
    ("invoice", "payments"): _payments,
    ("customer", "subscriptions"): _subscriptions,
}

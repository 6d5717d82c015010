"""Where invoice lines come from: metered usage, licensed items, and invoice items with an amount."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from quill_stripesim.engine.metering import billed_quantity
from quill_stripesim.rating import RatedPart, rate, share
from quill_stripesim.world import Resource, World

_ITEM_LINES_FIRST = 0
_INVOICE_ITEMS_AFTER = 1


def decimal_text(value: Decimal) -> str:
    """Writes a decimal plainly, without exponent or trailing zeros."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def put_metered_lines(world: World, invoice: Resource, metered: Resource, *, position: int) -> None:
    """Writes the lines of one metered item for its span, replacing those of an earlier reading.

    Args:
        world: Holds the price, the usage and the lines written before.
        invoice: The draft.
        metered: `item`, `price`, `start` and `end` of the usage billed.
        position: The item's place on the invoice.
    """
    price = world.require("price", metered["price"])
    meter = world.require("billing.meter", price["recurring"]["meter"])
    quantity = billed_quantity(world, meter, invoice["customer"], start=metered["start"], end=metered["end"])
    former = {
        line["_key"]: line["id"]
        for line in world.where("line_item", "invoice", invoice["id"])
        if line["_item"] == metered["item"] and line["_key"] is not None
    }
    for number, part in enumerate(rate(price, quantity)):
        key = f"{part.tier}:{part.is_flat}"
        line = _line(
            world,
            invoice,
            identifier=former.pop(key, None),
            amount=part.amount,
            quantity=part.quantity,
            description=_description(world, price, part),
            start=metered["start"],
            end=metered["end"],
        )
        world.put(
            {
                **line,
                "parent": _item_parent(metered["subscription"], metered["item"]),
                "pricing": _pricing(price, part.unit_amount),
                "subscription": metered["subscription"],
                "_item": metered["item"],
                "_key": key,
                "_order": [_ITEM_LINES_FIRST, position, number],
            }
        )
    for stale in former.values():
        world.remove("line_item", stale)


def put_licensed_lines(
    world: World, invoice: Resource, item: Resource, *, span: tuple[int, int], whole: tuple[int, int], position: int
) -> None:
    """Writes the lines of one licensed item in advance; a span shorter than its whole period is prorated by seconds."""
    price = world.require("price", item["_price"])
    seconds, of_seconds = span[1] - span[0], whole[1] - whole[0]
    for number, part in enumerate(rate(price, item["quantity"])):
        is_part = seconds != of_seconds
        amount = share(part.amount, numerator=seconds, denominator=of_seconds) if is_part else part.amount
        line = _line(
            world,
            invoice,
            identifier=None,
            amount=amount,
            quantity=part.quantity,
            description=_description(world, price, part),
            start=span[0],
            end=span[1],
        )
        world.put(
            {
                **line,
                "parent": _item_parent(item["subscription"], item["id"], proration=is_part),
                "pricing": _pricing(price, part.unit_amount),
                "subscription": item["subscription"],
                "_item": item["id"],
                "_order": [_ITEM_LINES_FIRST, position, number],
            }
        )


def put_invoice_item_line(world: World, invoice: Resource, invoice_item: Resource) -> Resource:
    """Pulls an invoice item into an invoice: one line of its amount."""
    attached = world.put({**invoice_item, "invoice": invoice["id"]})
    line = _line(
        world,
        invoice,
        identifier=None,
        amount=attached["amount"],
        quantity=attached["quantity"],
        description=attached["description"],
        start=attached["period"]["start"],
        end=attached["period"]["end"],
    )
    subscription = (attached["parent"] or {}).get("subscription_details", {}).get("subscription")
    return world.put(
        {
            **line,
            "discountable": attached["discountable"],
            "metadata": attached["metadata"],
            "parent": {
                "type": "invoice_item_details",
                "invoice_item_details": {
                    "invoice_item": attached["id"],
                    "proration": attached["proration"],
                    "proration_details": {"credited_items": None},
                    "subscription": subscription,
                },
                "subscription_item_details": None,
            },
            "pricing": attached["pricing"],
            "subscription": subscription,
            "_item": attached["id"],
            "_order": [_INVOICE_ITEMS_AFTER, 0, 0],
        }
    )


def lines_of(world: World, invoice: str) -> Iterator[Resource]:
    """Yields an invoice's lines in no particular order."""
    yield from world.where("line_item", "invoice", invoice)


def _line(
    world: World,
    invoice: Resource,
    *,
    identifier: str | None,
    amount: int,
    quantity: int,
    description: str | None,
    start: int,
    end: int,
) -> Resource:
    return {
        "id": identifier or world.new_id("il"),
        "object": "line_item",
        "amount": amount,
        "currency": invoice["currency"],
        "description": description,
        "discount_amounts": [],
        "discountable": True,
        "discounts": [],
        "invoice": invoice["id"],
        "livemode": False,
        "metadata": {},
        "parent": None,
        "period": {"start": start, "end": end},
        "pretax_credit_amounts": [],
        "pricing": None,
        "quantity": quantity,
        "quantity_decimal": str(quantity),
        "subscription": None,
        "subtotal": amount,
        "taxes": [],
        "_item": None,
        "_key": None,
        "_order": [_INVOICE_ITEMS_AFTER, 0, 0],
    }


def _item_parent(subscription: str, item: str, *, proration: bool = False) -> Resource:
    return {
        "type": "subscription_item_details",
        "invoice_item_details": None,
        "subscription_item_details": {
            "invoice_item": None,
            "proration": proration,
            "proration_details": {"credited_items": None},
            "subscription": subscription,
            "subscription_item": item,
        },
    }


def _pricing(price: Resource, unit_amount: Decimal | None) -> dict[str, Any]:
    return {
        "type": "price_details",
        "price_details": {"price": price["id"], "product": price["product"]},
        "unit_amount_decimal": None if unit_amount is None else decimal_text(unit_amount),
    }


def _description(world: World, price: Resource, part: RatedPart) -> str:
    name = world.require("product", price["product"])["name"]
    if part.is_flat:
        return f"{name} (Tier {part.tier} flat fee)"
    tier = "" if part.tier is None else f" (Tier {part.tier})"
    return f"{part.quantity} x {name}{tier}"

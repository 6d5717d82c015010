"""Invoices before they are final: free-standing drafts and those a subscription makes."""

from quill_stripesim.engine.announcing import announce
from quill_stripesim.engine.invoice_lines import (
    lines_of,
    put_invoice_item_line,
    put_licensed_lines,
    put_metered_lines,
)
from quill_stripesim.stripe_error import StripeError
from quill_stripesim.world import Resource, World

DEFAULT_GRACE_HOURS = 1
LONGEST_GRACE_HOURS = 72
_ACCOUNT = "_account"
MAX_INVOICE_ITEMS = 250


def new_invoice(world: World, customer: Resource, *, at: int, currency: str, billing_reason: str) -> Resource:
    """Returns an empty draft, not yet stored."""
    return {
        "id": world.new_id("in"),
        "object": "invoice",
        "account_country": "US",
        "account_name": "Quill simulated account",
        "account_tax_ids": None,
        "amount_due": 0,
        "amount_overpaid": 0,
        "amount_paid": 0,
        "amount_paid_off_stripe": 0,
        "amount_remaining": 0,
        "amount_shipping": 0,
        "application": None,
        "attempt_count": 0,
        "attempted": False,
        "auto_advance": False,
        "automatic_tax": {
            "disabled_reason": None,
            "enabled": False,
            "liability": None,
            "provider": None,
            "status": None,
        },
        "automatically_finalizes_at": None,
        "billing_reason": billing_reason,
        "collection_method": "charge_automatically",
        "created": at,
        "currency": currency,
        "custom_fields": None,
        "customer": customer["id"],
        "customer_account": None,
        "customer_address": customer["address"],
        "customer_email": customer["email"],
        "customer_name": customer["name"],
        "customer_phone": customer["phone"],
        "customer_shipping": None,
        "customer_tax_exempt": "none",
        "customer_tax_ids": [],
        "default_payment_method": None,
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "due_date": None,
        "effective_at": None,
        "ending_balance": None,
        "footer": None,
        "from_invoice": None,
        "hosted_invoice_url": None,
        "invoice_pdf": None,
        "issuer": {"type": "self"},
        "last_finalization_error": None,
        "latest_revision": None,
        "livemode": False,
        "metadata": {},
        "next_payment_attempt": None,
        "number": None,
        "on_behalf_of": None,
        "parent": None,
        "payment_settings": {"default_mandate": None, "payment_method_options": None, "payment_method_types": None},
        "period_end": at,
        "period_start": at,
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "receipt_number": None,
        "rendering": None,
        "shipping_cost": None,
        "shipping_details": None,
        "starting_balance": 0,
        "statement_descriptor": None,
        "status": "draft",
        "status_details": None,
        "status_transitions": {
            "finalized_at": None,
            "marked_uncollectible_at": None,
            "paid_at": None,
            "voided_at": None,
        },
        "subtotal": 0,
        "subtotal_excluding_tax": 0,
        "test_clock": customer["test_clock"],
        "threshold_reason": None,
        "total": 0,
        "total_discount_amounts": [],
        "total_excluding_tax": 0,
        "total_pretax_credit_amounts": [],
        "total_taxes": [],
        "webhooks_delivered_at": None,
        "_days_until_due": None,
        "_metered": [],
        "_subscription": None,
    }


def set_grace(world: World, *, hours: int) -> None:
    """Sets how long automatic drafts wait before they are finalized, as the Dashboard does.

    Raises:
        ValueError: Not between 1 and 72 hours.
    """
    if not DEFAULT_GRACE_HOURS <= hours <= LONGEST_GRACE_HOURS:
        raise ValueError(f"the grace of a draft is {DEFAULT_GRACE_HOURS} to {LONGEST_GRACE_HOURS} hours")
    world.put({"id": _ACCOUNT, "object": _ACCOUNT, "grace_seconds": hours * 3_600})


def grace_seconds(world: World) -> int:
    """Returns how long an automatic draft waits, unless it says otherwise itself."""
    account = world.get(_ACCOUNT, _ACCOUNT)
    return DEFAULT_GRACE_HOURS * 3_600 if account is None else int(account["grace_seconds"])


def with_totals(world: World, invoice: Resource) -> Resource:
    """Stores an invoice whose total is the sum of its rounded lines (L11) and returns it."""
    total = sum(line["amount"] for line in lines_of(world, invoice["id"]))
    due = max(0, total)
    return world.put(
        {
            **invoice,
            "subtotal": total,
            "subtotal_excluding_tax": total,
            "total": total,
            "total_excluding_tax": total,
            "amount_due": due,
            "amount_remaining": due - invoice["amount_paid"],
        }
    )


def pull_pending_items(world: World, invoice: Resource) -> None:
    """Adds the customer's invoice items that wait for an invoice of this currency."""
    subscription = invoice["_subscription"]
    for item in world.where("invoiceitem", "customer", invoice["customer"]):
        belongs_to = (item["parent"] or {}).get("subscription_details", {}).get("subscription")
        waits = item["invoice"] is None and item["currency"] == invoice["currency"]
        if waits and belongs_to in {None, subscription}:
            put_invoice_item_line(world, invoice, item)


def refuse_too_many_items(world: World, invoice: str, *, adding: int) -> None:
    """Holds an invoice to Stripe's bound.

    Raises:
        StripeError: 400 beyond 250 invoice items.
    """
    if len(world.where("invoiceitem", "invoice", invoice)) + adding > MAX_INVOICE_ITEMS:
        raise StripeError(f"An invoice can have at most {MAX_INVOICE_ITEMS} invoice items.")


def draft_for_subscription(
    world: World,
    subscription: Resource,
    *,
    at: int,
    billing_reason: str,
    arrears: tuple[int, int] | None,
    advance: tuple[tuple[int, int], tuple[int, int]] | None,
) -> Resource | None:
    """Makes the draft a subscription owes: metered items for the period behind, licensed ones for the period ahead.

    Args:
        world: Holds the items, their prices and the usage.
        subscription: Whose invoice it is.
        at: Simulated unix seconds of making it.
        billing_reason: Stripe's word for why, such as `subscription_cycle`.
        arrears: The period whose metered usage is billed, or None.
        advance: The span licensed items are billed for and the whole period it is part of, or None.

    Returns:
        The draft, or None when it would be empty (flexible billing mode makes no invoice then).
    """
    customer = world.require("customer", subscription["customer"])
    draft = new_invoice(world, customer, at=at, currency=subscription["currency"], billing_reason=billing_reason)
    shown_period = arrears or (advance[0] if advance is not None else (at, at))
    invoice = world.put(
        {
            **draft,
            "auto_advance": True,
            "automatically_finalizes_at": at + grace_seconds(world),
            "collection_method": subscription["collection_method"],
            "default_payment_method": subscription["default_payment_method"],
            "parent": {
                "type": "subscription_details",
                "quote_details": None,
                "subscription_details": {
                    "metadata": subscription["metadata"],
                    "subscription": subscription["id"],
                    "subscription_proration_date": None,
                },
            },
            "period_start": shown_period[0],
            "period_end": shown_period[1],
            "_days_until_due": subscription["days_until_due"],
            "_subscription": subscription["id"],
        }
    )
    metered = []
    for position, item in enumerate(world.where("subscription_item", "subscription", subscription["id"])):
        if item["_is_metered"] and arrears is not None:
            entry = _metered(item, arrears, position)
            metered.append(entry)
            put_metered_lines(world, invoice, entry, position=position)
        elif not item["_is_metered"] and advance is not None:
            put_licensed_lines(world, invoice, item, span=advance[0], whole=advance[1], position=position)
    invoice = world.put({**invoice, "_metered": metered})
    pull_pending_items(world, invoice)
    if not any(True for _ in lines_of(world, invoice["id"])):
        world.remove("invoice", invoice["id"])
        return None
    invoice = with_totals(world, invoice)
    world.put({**world.require("subscription", subscription["id"]), "latest_invoice": invoice["id"]})
    announce(world, "invoice.created", invoice, at=at)
    return invoice


def read_usage_again(world: World, invoice: Resource) -> Resource:
    """Refreshes the metered quantities of a draft, as Stripe does when it finalizes, and returns it with new totals."""
    for entry in invoice["_metered"]:
        put_metered_lines(world, invoice, entry, position=entry["position"])
    return with_totals(world, invoice)


def _metered(item: Resource, arrears: tuple[int, int], position: int) -> Resource:
    """An item added in the middle of a period bills only what comes after its addition."""
    return {
        "item": item["id"],
        "subscription": item["subscription"],
        "price": item["_price"],
        "start": max(arrears[0], item["_usage_from"]),
        "end": arrears[1],
        "position": position,
    }

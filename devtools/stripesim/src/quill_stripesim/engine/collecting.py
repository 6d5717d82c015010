"""From draft to money: finalize, try to pay, try again, void."""

from quill_stripesim.engine.announcing import announce
from quill_stripesim.engine.drafting import read_usage_again
from quill_stripesim.stripe_error import StripeError
from quill_stripesim.world import Resource, World

RETRY_AFTER_SECONDS = 3 * 86_400
MAX_ATTEMPTS = 4

MAX_PAYMENT = 99_999_999
"""Eight digits of minor units: a larger invoice cannot be one payment."""


def finalize(world: World, invoice: Resource, *, at: int) -> Resource:
    """Makes a draft final: usage is read a last time, the number is given, nothing on it changes afterwards (L13).

    An invoice over 0 stays open until it is paid; one of 0 or less is paid at once.

    Raises:
        StripeError: 400 `invoice_not_editable` when it is not a draft.
    """
    if invoice["status"] != "draft":
        raise StripeError(
            f"This invoice is already finalized, you can't re-finalize it ({invoice['id']}).",
            code="invoice_not_editable",
        )
    invoice = read_usage_again(world, invoice)
    customer = world.require("customer", invoice["customer"])
    sequence = customer["next_invoice_sequence"]
    world.put({**customer, "next_invoice_sequence": sequence + 1})
    days = invoice["_days_until_due"]
    invoice = world.put(
        {
            **invoice,
            "status": "open",
            "number": invoice["number"] or f"{customer['invoice_prefix']}-{sequence:04d}",
            "automatically_finalizes_at": None,
            "effective_at": invoice["effective_at"] or at,
            "due_date": invoice["due_date"] or (None if days is None else at + days * 86_400),
            "ending_balance": 0,
            "hosted_invoice_url": f"https://invoice.invalid/i/{invoice['id']}",
            "invoice_pdf": f"https://invoice.invalid/i/{invoice['id']}/pdf",
            "status_transitions": {**invoice["status_transitions"], "finalized_at": at},
        }
    )
    announce(world, "invoice.finalized", invoice, at=at)
    if invoice["amount_due"] == 0:
        return _settle(world, invoice, at=at, amount_paid=0)
    return invoice


def advance_open(world: World, invoice: Resource, *, at: int) -> Resource:
    """Does what Stripe does by itself with a finalized invoice: charge it, or send it."""
    if invoice["status"] != "open" or not invoice["auto_advance"]:
        return invoice
    if invoice["collection_method"] == "send_invoice":
        announce(world, "invoice.sent", invoice, at=at)
        return world.put({**invoice, "next_payment_attempt": None})
    method = _payment_method(world, invoice)
    if method is None or _declines(world, method, invoice):
        return _record_failure(world, invoice, at=at)
    return _record_payment(world, invoice, method=method, at=at)


def pay(world: World, invoice: Resource, *, at: int, payment_method: str | None, out_of_band: bool) -> Resource:
    """Pays an open invoice on request.

    Raises:
        StripeError: 400 when it is not open or there is nothing to charge; 402 `card_declined` when the card refuses.
    """
    if invoice["status"] == "draft":
        invoice = finalize(world, invoice, at=at)
    if invoice["status"] == "paid":
        raise StripeError("Invoice is already paid", code="invoice_already_paid")
    if invoice["status"] not in {"open", "uncollectible"}:
        raise StripeError(f"Invoices with status {invoice['status']} cannot be paid.")
    if out_of_band:
        return _settle(world, invoice, at=at, amount_paid=0, off_stripe=invoice["amount_due"])
    if invoice["amount_due"] > MAX_PAYMENT:
        raise StripeError(f"Amount must be no more than {MAX_PAYMENT}.", code="amount_too_large", param="amount")
    if payment_method is not None:
        method = world.require("payment_method", payment_method, param="payment_method")
        if method["customer"] != invoice["customer"]:
            raise StripeError("The payment method does not belong to the invoice's customer.", param="payment_method")
    else:
        found = _payment_method(world, invoice)
        if found is None:
            raise StripeError(
                "There is no `default_payment_method` set on this Customer or Invoice.", code="resource_missing"
            )
        method = found
    if _declines(world, method, invoice):
        _record_failure(world, invoice, at=at)
        raise StripeError(
            "Your card was declined.",
            status=402,
            kind="card_error",
            code="card_declined",
            keeps_changes=True,
            decline_code="generic_decline",
        )
    return _record_payment(world, invoice, method=method, at=at)


def void(world: World, invoice: Resource, *, at: int) -> Resource:
    """Makes an open or uncollectible invoice void.

    Raises:
        StripeError: 400 for any other status.
    """
    if invoice["status"] not in {"open", "uncollectible"}:
        raise StripeError(f"You can only void open or uncollectible invoices; this one is {invoice['status']}.")
    return _end(world, invoice, status="void", transition="voided_at", event="invoice.voided", at=at)


def mark_uncollectible(world: World, invoice: Resource, *, at: int) -> Resource:
    """Gives an open invoice up.

    Raises:
        StripeError: 400 for any other status.
    """
    if invoice["status"] != "open":
        raise StripeError(f"You can only mark open invoices uncollectible; this one is {invoice['status']}.")
    return _end(
        world,
        invoice,
        status="uncollectible",
        transition="marked_uncollectible_at",
        event="invoice.marked_uncollectible",
        at=at,
    )


def _end(world: World, invoice: Resource, *, status: str, transition: str, event: str, at: int) -> Resource:
    ended = world.put(
        {
            **invoice,
            "status": status,
            "auto_advance": False,
            "next_payment_attempt": None,
            "status_transitions": {**invoice["status_transitions"], transition: at},
        }
    )
    announce(world, event, ended, at=at)
    return ended


def _payment_method(world: World, invoice: Resource) -> Resource | None:
    customer = world.require("customer", invoice["customer"])
    chosen = invoice["default_payment_method"] or customer["invoice_settings"]["default_payment_method"]
    return None if chosen is None else world.get("payment_method", chosen)


def _declines(world: World, method: Resource, invoice: Resource) -> bool:
    """A card that always refuses, or a customer told (through the control API) to fail a number of times."""
    customer = world.require("customer", invoice["customer"])
    if customer["_fail_next_payments"] > 0:
        world.put({**customer, "_fail_next_payments": customer["_fail_next_payments"] - 1})
        return True
    return bool(method["_always_declines"])


def _record_payment(world: World, invoice: Resource, *, method: Resource, at: int) -> Resource:
    intent = world.put(
        {
            "id": world.new_id("pi"),
            "object": "payment_intent",
            "amount": invoice["amount_remaining"],
            "amount_received": invoice["amount_remaining"],
            "created": at,
            "currency": invoice["currency"],
            "customer": invoice["customer"],
            "livemode": False,
            "metadata": {},
            "payment_method": method["id"],
            "status": "succeeded",
        }
    )
    world.put(
        {
            "id": world.new_id("inpay"),
            "object": "invoice_payment",
            "amount_paid": invoice["amount_remaining"],
            "amount_requested": invoice["amount_remaining"],
            "created": at,
            "currency": invoice["currency"],
            "invoice": invoice["id"],
            "is_default": True,
            "livemode": False,
            "payment": {"type": "payment_intent", "payment_intent": intent["id"]},
            "status": "paid",
            "status_transitions": {"canceled_at": None, "paid_at": at},
        }
    )
    tried = {**invoice, "attempt_count": invoice["attempt_count"] + 1, "attempted": True}
    return _settle(world, tried, at=at, amount_paid=invoice["amount_remaining"])


def _settle(world: World, invoice: Resource, *, at: int, amount_paid: int, off_stripe: int = 0) -> Resource:
    paid = world.put(
        {
            **invoice,
            "status": "paid",
            "attempted": True,
            "auto_advance": False,
            "amount_paid": amount_paid + off_stripe,
            "amount_paid_off_stripe": off_stripe,
            "amount_remaining": 0,
            "next_payment_attempt": None,
            "status_transitions": {**invoice["status_transitions"], "paid_at": at},
        }
    )
    announce(world, "invoice.paid", paid, at=at)
    announce(world, "invoice.payment_succeeded", paid, at=at)
    _set_subscription_status(world, paid, at=at, status="active", only_from={"past_due", "incomplete", "unpaid"})
    return paid


def _record_failure(world: World, invoice: Resource, *, at: int) -> Resource:
    attempts = invoice["attempt_count"] + 1
    tries_again = invoice["auto_advance"] and attempts < MAX_ATTEMPTS
    failed = world.put(
        {
            **invoice,
            "attempt_count": attempts,
            "attempted": True,
            "next_payment_attempt": at + RETRY_AFTER_SECONDS if tries_again else None,
        }
    )
    announce(world, "invoice.payment_failed", failed, at=at)
    _set_subscription_status(world, failed, at=at, status="past_due", only_from={"active"})
    return failed


def _set_subscription_status(world: World, invoice: Resource, *, at: int, status: str, only_from: set[str]) -> None:
    if invoice["_subscription"] is None:
        return
    subscription = world.require("subscription", invoice["_subscription"])
    if subscription["status"] not in only_from:
        return
    changed = world.put({**subscription, "status": status})
    announce(world, "customer.subscription.updated", changed, at=at, previous={"status": subscription["status"]})

"""Stripe's objects in our words, and ours in Stripe's, within Stripe's bounds."""

from typing import Any, Final

from quill_invoicing.domain.collection import ChargedLine, RailInvoice, RailLine
from quill_invoicing.gateways.stripe_catalog import product_key_of

DESCRIPTION_LENGTH_MAX: Final = 500


def untyped(params: dict[str, Any]) -> Any:
    """Parameters put together at run time; the SDK's types want literals. The simulator checks them instead."""
    return params


def shortened(text: str, length: int) -> str:
    """A text that fits; one that was cut ends in an ellipsis."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def metadata_of(found: Any, name: str) -> str | None:
    """A metadata value; None when it is not there."""
    metadata = found.metadata
    return metadata[name] if metadata is not None and name in metadata else None


def to_invoice(found: Any) -> RailInvoice:
    """An invoice as it now stands."""
    return RailInvoice(
        reference=found.id,
        status=found.status,
        total_minor=found.total,
        quill_invoice_id=metadata_of(found, "quill_invoice_id"),
    )


def to_line(found: Any) -> RailLine:
    """A line that we charged says in its metadata what it is about; Stripe's own say it by their price."""
    product_key = metadata_of(found, "quill_product_key")
    quantity = metadata_of(found, "quill_quantity")
    details = getattr(found.pricing, "price_details", None) if found.pricing is not None else None
    if product_key is None and details is not None:
        product_key = product_key_of(details.product)
    return RailLine(
        product_key=product_key,
        description=found.description or "",
        quantity=int(quantity) if quantity is not None and quantity.isdecimal() else int(found.quantity or 0),
        amount_minor=found.amount,
        label=metadata_of(found, "quill_line"),
    )


def line_params(line: ChargedLine) -> dict[str, Any]:
    """A line of ours for Stripe."""
    return {
        "amount": line.amount_minor,
        "description": shortened(line.description, DESCRIPTION_LENGTH_MAX),
        "metadata": {
            "quill_product_key": line.product_key,
            "quill_quantity": str(line.quantity),
            "quill_line": line.label,
        },
        "period": {
            "start": int(line.service_period.start.timestamp()),
            "end": int(line.service_period.end.timestamp()),
        },
    }

"""From terms and usage to lines: one per tier reached, as Stripe writes them, so that both can be compared (L11, L16).

Zero: no usage makes no line, and a tier that costs nothing makes its line of 0 once reached, so that an invoice shows
the free allowance that was used.

Licensed products (seats, a flat fee) have a module of their own, ``licensed_lines``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from quill_pricing.billed_quantity import billed_quantity
from quill_pricing.money import CurrencyMismatch
from quill_pricing.period import BillingPeriod
from quill_pricing.rating import RatedLine, rate

from quill_invoicing.domain.closing import BilledProduct
from quill_invoicing.domain.invoice import InvoiceLine, LineKind
from quill_invoicing.domain.licensed_lines import bill_licensed
from quill_invoicing.domain.period_usage import KnownUsage
from quill_invoicing.domain.terms import TermsHistory, TermsItem


class MixedCurrencies(ValueError):
    """A customer's products are priced in more than one currency: they cannot be on one invoice."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What a period costs.

    Attributes:
        is_billed: Whether anything was subscribed at all; then there is an invoice, even of 0.
        billed: The quantity of each metered product, for the closing.
    """

    is_billed: bool
    currency: str | None
    lines: tuple[InvoiceLine, ...]
    billed: tuple[BilledProduct, ...]

    @property
    def total_minor(self) -> int:
        return sum(line.amount_minor for line in self.lines)


def bill_period(history: TermsHistory, usage: KnownUsage, period: BillingPeriod) -> Statement:
    """Rate everything a customer was subscribed to in a period.

    Raises:
        MixedCurrencies: the items do not share a currency.
    """
    items = [item for _, item in history.items_billed_in(period)]
    try:
        licensed = bill_licensed(history, period)
    except CurrencyMismatch as error:
        raise MixedCurrencies(str(error)) from error
    currencies = sorted({item.currency for item in items} | {currency for _, currency in licensed})
    if len(currencies) > 1:
        raise MixedCurrencies(", ".join(currencies))
    lines = [line for line, _ in licensed]
    billed: list[BilledProduct] = []
    for item in items:
        if item.is_metered and item.usage_key is not None:
            quantity = billed_quantity_of(item, history=history, usage=usage, period=period)
            lines.extend(_metered_lines(item, quantity, period))
            billed.append(BilledProduct(item.product_key, item.usage_key, quantity, item.price_document))
    lines.sort(key=lambda line: line.product_key)
    return Statement(bool(items or licensed), currencies[0] if currencies else None, tuple(lines), tuple(billed))


def billed_quantity_of(item: TermsItem, *, history: TermsHistory, usage: KnownUsage, period: BillingPeriod) -> int:
    """What is billed of a metered product, by time of use (L12)."""
    if item.usage_key is None:
        raise ValueError(f"{item.product_key} is not billed by usage")
    used = usage.of_meter(item.usage_key, is_last_value=item.is_last_value, is_carried=item.carried)
    return billed_quantity(used, history.billing_terms(item.product_key), period)


def _metered_lines(item: TermsItem, quantity: int, period: BillingPeriod) -> Iterator[InvoiceLine]:
    for rated in rate(price=item.price, quantity=quantity).lines:
        match rated.kind:
            case "flat_fee" | "flat":
                kind: LineKind = "flat_fee"
            case "package":
                kind = "package"
            case _:
                kind = "usage"
        units = rated.last_unit if kind == "package" and rated.last_unit is not None else rated.quantity
        yield _line(item, rated, period, kind=kind, quantity=units, amount=rated.amount.amount_minor)


def _line(
    item: TermsItem, rated: RatedLine, period: BillingPeriod, *, kind: LineKind, quantity: int, amount: int
) -> InvoiceLine:
    return InvoiceLine(
        kind=kind,
        product_key=item.product_key,
        usage_key=item.usage_key,
        description=_description(item, rated, kind),
        quantity=quantity,
        unit_amount=Decimal(rated.unit_amount),
        amount_minor=amount,
        service_period=period,
        tier=None if rated.tier_index is None else rated.tier_index + 1,
    )


def _description(item: TermsItem, rated: RatedLine, kind: LineKind) -> str:
    name = item.product_key.replace("_", " ")
    match kind:
        case "flat_fee":
            return f"{name}, tier {(rated.tier_index or 0) + 1}, flat fee"
        case "package":
            return f"{name}, {rated.quantity:,} packages begun"
        case _:
            span = f"{rated.first_unit or 0:,} to {rated.last_unit or 0:,}"
            return f"{name}, tier {rated.tier_index + 1}: {span}" if rated.tier_index is not None else f"{name}: {span}"

"""Licensed products (seats, a flat fee): one line for the period, and one for each change inside it (D18).

They are billed in arrears, so everything that a period costs is on that period's one invoice. ``quill_pricing`` has the
arithmetic; this module finds what was held when, and describes it.
"""

from datetime import datetime, time
from decimal import Decimal

from quill_pricing.licensed_quantity import LicensedLine, LicensedStep, licensed_lines
from quill_pricing.period import BillingPeriod
from quill_pricing.rating import rate

from quill_invoicing.domain.invoice import InvoiceLine
from quill_invoicing.domain.terms import CustomerTerms, TermsHistory, TermsItem


def bill_licensed(history: TermsHistory, period: BillingPeriod) -> tuple[tuple[InvoiceLine, str], ...]:
    """The lines of all licensed products of a period, by product key, each with its currency.

    Raises:
        CurrencyMismatch: the price of a product changed its currency inside the period.
    """
    keys = {item.product_key for terms in history.versions for item in terms.items if not item.is_metered}
    return tuple(
        (_invoice_line(_item_at(history, product_key, line.span.start), line, period), line.amount.currency)
        for product_key in sorted(keys)
        for line in licensed_lines(licensed_steps(history, product_key), period)
    )


def licensed_steps(history: TermsHistory, product_key: str) -> tuple[LicensedStep, ...]:
    """What was held of a licensed product over time, oldest first.

    Each version of the terms tells the item's changes of the last billing periods, so a version that never arrived
    (a compacted topic keeps the newest) is not missed.
    """
    held: dict[datetime, int] = {}
    for terms in history.versions:
        item = terms.item(product_key)
        for change in () if item is None or item.is_metered else item.changes:
            held[change.at] = _quantity(change.quantity) if change.paid else 0
    for instant in history.own_instants:
        in_force = history.at(instant)
        if in_force is not None:
            held[instant] = _held(in_force, product_key, instant)
    return tuple(
        LicensedStep(instant, quantity, _item_at(history, product_key, instant).price)
        for instant, quantity in sorted(held.items())
    )


def _held(terms: CustomerTerms, product_key: str, instant: datetime) -> int:
    """The quantity paid for at ``instant`` by the terms then in force."""
    item = terms.item(product_key)
    is_paid = item is not None and item in terms.billed_items() and not terms.is_in_trial(instant)
    return _quantity(item.quantity) if item is not None and is_paid and not item.is_metered else 0


def _quantity(licensed: int | None) -> int:
    """A flat price has no quantity of its own: it is held once."""
    return 1 if licensed is None else licensed


def _item_at(history: TermsHistory, product_key: str, instant: datetime) -> TermsItem:
    """The item at ``instant``, or in the version nearest to it that has the product: its price is the one to bill."""
    having = [terms for terms in history.versions if terms.item(product_key) is not None]
    nearest = [terms for terms in having if terms.effective_at <= instant][-1:] or having[:1]
    item = nearest[0].item(product_key)
    assert item is not None, "only versions that have the product were taken"
    return item


def _invoice_line(item: TermsItem, line: LicensedLine, period: BillingPeriod) -> InvoiceLine:
    """A full line shows its quantity and unit price. A line of a part is one thing at its amount."""
    name = item.product_key.replace("_", " ")
    is_full = line.span == period
    rated = rate(price=line.price, quantity=line.quantity).lines if is_full else ()
    change = f": {line.before:,} to {line.quantity:,} from {_day(line.span.start)}"
    return InvoiceLine(
        kind="licensed",
        product_key=item.product_key,
        usage_key=item.usage_key,
        description=name if is_full else name + change,
        quantity=line.quantity if is_full else 1,
        unit_amount=Decimal(rated[0].unit_amount if len(rated) == 1 else line.amount.to_decimal_string()),
        amount_minor=line.amount.amount_minor,
        service_period=line.span,
    )


def _day(instant: datetime) -> str:
    day = f"{instant.day} {instant:%B}"
    return day if instant.time() == time() else f"{day} {instant:%H:%M} UTC"

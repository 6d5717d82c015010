"""Late usage on a later invoice: rate the new total, bill the difference (L13)."""

from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise

from quill_pricing.money import Money
from quill_pricing.price import price_from_document
from quill_pricing.rating import amount_minor

from quill_invoicing.domain.closing import ClosedPeriod, LateUsage
from quill_invoicing.domain.invoice import InvoiceLine


@dataclass(frozen=True, slots=True)
class Adjustment:
    """One line that corrects an earlier period, and the steps of late usage it settles."""

    line: InvoiceLine
    currency: str
    steps: tuple[LateUsage, ...]

    @classmethod
    def of(cls, closed: ClosedPeriod, product_key: str, steps: tuple[LateUsage, ...]) -> "Adjustment":
        """The difference between what the quantity now costs and what it cost before, at the closed period's price.

        Args:
            closed: The period that the usage belongs to.
            product_key: A product that the closing billed.
            steps: Consecutive steps not on an invoice yet, oldest first; at least one.

        Raises:
            ValueError: the closing did not bill this product, or a step does not begin where the one before ended.
        """
        billed = closed.billed_of(product_key)
        if billed is None:
            raise ValueError(f"{product_key} was not billed in the period from {closed.period.start.isoformat()}")
        for earlier, later in pairwise(steps):
            if later.quantity_before != earlier.quantity_after:
                raise ValueError(f"late usage of {product_key} has a gap between revisions")
        before, after = steps[0].quantity_before, steps[-1].quantity_after
        price = price_from_document(billed.price_document)
        amount = Money(amount_minor(price, after) - amount_minor(price, before), price.currency)
        word = "late usage" if after >= before else "correction"
        line = InvoiceLine(
            kind="adjustment",
            product_key=product_key,
            usage_key=billed.usage_key,
            description=(
                f"Adjustment for the period from {closed.period.start:%Y-%m-%d} ({word}):"
                f" {before:,} to {after:,} {billed.usage_key}"
            ),
            quantity=1,
            unit_amount=Decimal(amount.to_decimal_string()),
            amount_minor=amount.amount_minor,
            service_period=closed.period,
        )
        return cls(line, price.currency, steps)

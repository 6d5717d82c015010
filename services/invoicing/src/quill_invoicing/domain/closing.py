"""A closed period: what was counted and billed, and what came too late (L13)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from quill_pricing.period import BillingPeriod

from quill_invoicing.domain.completeness_gate import Waiver


@dataclass(frozen=True, slots=True)
class BilledProduct:
    """What a closing billed of one metered product, with the price it was billed by."""

    product_key: str
    usage_key: str
    quantity: int
    price_document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ClosedPeriod:
    """The closing as a fact, with its cut-off, so that replay agrees with history.

    Attributes:
        usage_revision: The newest usage snapshot that counted; anything newer is late.
        invoice_id: None when nobody was subscribed and nothing was owed.
        waivers: By whose word it went on without a source that had not told everything.
    """

    organization_id: str
    period: BillingPeriod
    closed_at: datetime
    usage_revision: int
    invoice_id: str | None
    billed: tuple[BilledProduct, ...]
    waivers: tuple[Waiver, ...] = ()

    def billed_of(self, product_key: str) -> BilledProduct | None:
        """What was billed of a product; None when it was not billed."""
        return next((each for each in self.billed if each.product_key == product_key), None)


@dataclass(frozen=True, slots=True)
class LateUsage:
    """A step of a closed period's billed quantity, up or (after a correction) down, not yet on an invoice."""

    organization_id: str
    period_start: datetime
    product_key: str
    revision: int
    quantity_before: int
    quantity_after: int
    recorded_at: datetime

"""What customers are owed, as the API shows it."""

from datetime import datetime

from pydantic import BaseModel
from quill_pricing.money import Money

from quill_invoicing.domain.credits import CreditBalance, CreditEntry
from quill_invoicing.domain.terms import TermsHistory


class BalanceView(BaseModel):
    """What one customer is owed in one currency.

    Attributes:
        is_subscribed: False for a customer who left: no later invoice will use the credit.
    """

    organization_id: str
    organization_name: str | None
    is_subscribed: bool
    currency: str
    balance_minor: int
    balance: str


class EntryView(BaseModel):
    """One change of a balance; ``kind`` is ``kept``, ``used`` or ``returned``."""

    entry_id: str
    kind: str
    currency: str
    amount_minor: int
    amount: str
    invoice_id: str
    recorded_at: datetime


class BalanceList(BaseModel):
    """Balances that are not zero, by organization and currency; ``next_after`` continues the list."""

    results: list[BalanceView]
    next_after: str | None


class EntryList(BaseModel):
    """A customer's entries, newest first."""

    results: list[EntryView]


def next_after(last: CreditBalance) -> str:
    """Where a list goes on after its last balance."""
    return f"{last.organization_id}:{last.currency}"


def balance_after(cursor: str) -> tuple[str, str]:
    """The organization and currency that a list goes on after."""
    organization, _, currency = cursor.rpartition(":")
    return organization, currency


def to_view_balance(balance: CreditBalance, history: TermsHistory) -> BalanceView:
    """A balance with who it belongs to."""
    newest = history.versions[-1] if history.versions else None
    return BalanceView(
        organization_id=balance.organization_id,
        organization_name=None if newest is None else newest.organization_name,
        is_subscribed=newest is not None and bool(newest.billed_items()),
        currency=balance.currency,
        balance_minor=balance.balance_minor,
        balance=Money(balance.balance_minor, balance.currency).to_decimal_string(),
    )


def to_view_entry(entry: CreditEntry) -> EntryView:
    """An entry for the API."""
    return EntryView(
        entry_id=entry.entry_id,
        kind=entry.kind,
        currency=entry.currency,
        amount_minor=entry.amount_minor,
        amount=Money(entry.amount_minor, entry.currency).to_decimal_string(),
        invoice_id=entry.invoice_id,
        recorded_at=entry.recorded_at,
    )

"""What a customer has left of its credit grants, as invoicing last said."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CreditBalance:
    """One revision of an organization's balance, in minor units; at zero or below it is used up."""

    organization_id: str
    revision: int
    currency: str
    balance_minor: int

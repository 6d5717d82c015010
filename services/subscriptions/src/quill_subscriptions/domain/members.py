"""The member register: who belongs to the organization, as the product last told us.

It is copied state, not a change anybody makes to billing, and it is personal; so it lives outside the event history,
where it can be replaced and erased.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OrganizationUser:
    """A member: 8 is administrator, 15 is owner (the product's membership levels)."""

    email: str
    distinct_id: str
    role: int


@dataclass(frozen=True, slots=True)
class MemberRegister:
    """Addresses and ids of one organization; ``email`` is where invoices go."""

    email: str | None = None
    admin_emails: tuple[str, ...] = ()
    users: tuple[OrganizationUser, ...] = ()
    distinct_ids: tuple[str, ...] = ()

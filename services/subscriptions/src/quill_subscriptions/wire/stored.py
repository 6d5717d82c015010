"""Domain values as the JSON that the store keeps. Reading is strict: a document that does not fit is a fault."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from quill_subscriptions.domain.customer import (
    BillingLimitsChanged,
    Customer,
    CustomerEvent,
    CustomerRegistered,
    FurtherLicensesChanged,
    NeverDropDataChanged,
    OrganizationRenamed,
    ProjectsRegistered,
    QuantitiesChanged,
    SubscriptionCancelled,
    SubscriptionStarted,
    TrialSet,
    TrustScoresChanged,
)
from quill_subscriptions.domain.item_changes import ItemChange, ItemChanges
from quill_subscriptions.domain.members import MemberRegister
from quill_subscriptions.domain.usage import UsageSnapshot

_EVENTS: Mapping[str, TypeAdapter[Any]] = {
    kind.__name__: TypeAdapter(kind)
    for kind in (
        CustomerRegistered,
        OrganizationRenamed,
        SubscriptionStarted,
        SubscriptionCancelled,
        QuantitiesChanged,
        BillingLimitsChanged,
        TrustScoresChanged,
        NeverDropDataChanged,
        ProjectsRegistered,
        TrialSet,
        FurtherLicensesChanged,
    )
}
_CUSTOMER = TypeAdapter(Customer)
_MEMBERS = TypeAdapter(MemberRegister)
_USAGE = TypeAdapter(UsageSnapshot)
_ITEM_CHANGES = TypeAdapter(dict[str, tuple[ItemChange, ...]])


class UnknownEvent(LookupError):
    """The history holds an event type that this version does not know; an older version must not write here."""


def to_stored_event(event: CustomerEvent) -> tuple[str, dict[str, Any]]:
    """Type name and JSON content of an event."""
    name = type(event).__name__
    content: dict[str, Any] = _EVENTS[name].dump_python(event, mode="json")
    return name, content


def from_stored_event(name: str, content: Mapping[str, Any]) -> CustomerEvent:
    """The event with this type name and content.

    Raises:
        UnknownEvent: the type is not known.
    """
    if name not in _EVENTS:
        raise UnknownEvent(f"no such customer event: {name}")
    event: CustomerEvent = _EVENTS[name].validate_python(dict(content))
    return event


def to_stored_customer(customer: Customer) -> dict[str, Any]:
    """The JSON of a customer's state."""
    stored: dict[str, Any] = _CUSTOMER.dump_python(customer, mode="json")
    return stored


def from_stored_customer(stored: Mapping[str, Any]) -> Customer:
    """A customer's state from its JSON."""
    return _CUSTOMER.validate_python(dict(stored))


def to_stored_members(members: MemberRegister) -> dict[str, Any]:
    """The JSON of a member register."""
    stored: dict[str, Any] = _MEMBERS.dump_python(members, mode="json")
    return stored


def from_stored_members(stored: Mapping[str, Any]) -> MemberRegister:
    """A member register from its JSON."""
    return _MEMBERS.validate_python(dict(stored))


def to_stored_changes(changes: ItemChanges) -> dict[str, Any]:
    """The JSON of the changes of a customer's items."""
    stored: dict[str, Any] = _ITEM_CHANGES.dump_python(dict(changes), mode="json")
    return stored


def from_stored_changes(stored: Mapping[str, Any]) -> ItemChanges:
    """The changes of a customer's items from their JSON."""
    return _ITEM_CHANGES.validate_python(dict(stored))


def to_stored_usage(snapshot: UsageSnapshot) -> dict[str, Any]:
    """The JSON of a usage snapshot."""
    stored: dict[str, Any] = _USAGE.dump_python(snapshot, mode="json")
    return stored


def from_stored_usage(stored: Mapping[str, Any]) -> UsageSnapshot:
    """A usage snapshot from its JSON."""
    return _USAGE.validate_python(dict(stored))

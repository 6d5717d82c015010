"""What the use cases need from a store, and what they hand to it."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from quill_subscriptions.domain.billing_update import ClaimedUpdate, UpdateStanding, UpdateStatus
from quill_subscriptions.domain.catalog import Catalog, Product
from quill_subscriptions.domain.customer import Customer, CustomerEvent, RecordedEvent
from quill_subscriptions.domain.entitlements import Entitlements, Published
from quill_subscriptions.domain.item_changes import ItemChanges
from quill_subscriptions.domain.members import MemberRegister
from quill_subscriptions.domain.usage import UsageSnapshot

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CustomerRecord:
    """A customer with its place in its stream and the revision of its newest published snapshot."""

    customer: Customer
    stream_version: int
    revision: int
    members: MemberRegister
    effective_at: datetime
    refresh_at: datetime
    changes: ItemChanges
    """The changes of its items as that snapshot told them."""

    @property
    def published(self) -> Published:
        """What entitlements need to know of that snapshot."""
        return Published(self.changes, self.refresh_at)


@dataclass(frozen=True, slots=True)
class CustomerChange:
    """A customer as it will be, with the events that made it so and everything its snapshot says."""

    customer: Customer
    members: MemberRegister
    events: Sequence[CustomerEvent]
    actor: str
    entitlements: Entitlements
    catalog_version: int
    effective_at: datetime
    """When the facts of the snapshot came into force (L12)."""
    refresh_at: datetime
    """When time alone will change the snapshot: the next billing period, or the end of a trial."""
    now: datetime


@dataclass(frozen=True, slots=True)
class NumberedEvent:
    """An event with its number in the customer's history, from 1."""

    version: int
    recorded: RecordedEvent


class BillingUpdates(Protocol):
    """Which regions are to be told of which customers (L15): marked with the change, done when the queue has it.

    Organizations whose license stands for no region with a queue are passed over everywhere.
    """

    async def mark(self, organization_ids: Collection[str], *, at_once: bool, now: datetime) -> None:
        """These changed; without ``at_once`` one that was told of lately waits for the policy's spacing to pass."""
        ...

    async def expect_usage(self, revisions: Mapping[str, int], *, now: datetime) -> None:
        """Tell of these at once when usage of that revision (or a later one) is here, which may be now."""
        ...

    async def claim(self, license_ids: Collection[str], *, now: datetime, count_max: int) -> list[ClaimedUpdate]:
        """Take due updates of these licenses for `IN_FLIGHT`; no other sender gets them meanwhile."""
        ...

    async def conclude(self, claimed: ClaimedUpdate, *, now: datetime) -> None:
        """The queue has it. What was marked since it was claimed stays due."""
        ...

    async def postpone(self, claimed: ClaimedUpdate, error: str, *, until: datetime) -> None:
        """It was not sent, or nobody knows; it stays due and is free again at ``until``."""
        ...

    async def give_up(self, claimed: ClaimedUpdate, error: str, *, now: datetime) -> None:
        """It cannot be sent as it is; shown as failed until a later one is sent."""
        ...

    async def standing(self, status: UpdateStatus, *, after: str, count_max: int) -> list[UpdateStanding]:
        """A page of updates in the order of their organization ids."""
        ...


class SubscriptionsTransaction(Protocol):
    """One transaction: state, events and the messages that tell of them appear together or not at all."""

    @property
    def updates(self) -> BillingUpdates:
        """The marks of this transaction; `save` and `keep_usage` set theirs by themselves."""
        ...

    async def catalog(self) -> Catalog | None:
        """The catalog in force."""
        ...

    async def put_in_force(self, catalog: Catalog, changed: Sequence[Product], *, now: datetime) -> None:
        """Store a version of the catalog and publish the products that changed.

        Raises:
            quill_runtime.database.Conflict: another process stored this version meanwhile.
        """
        ...

    async def find(self, organization_id: str, *, for_change: bool = False) -> CustomerRecord | None:
        """A customer; with ``for_change``, nobody else changes it until the end of this transaction."""
        ...

    async def bind_license(self, license_id: str, organization_id: str, *, now: datetime) -> str:
        """Bind a license to one organization for ever, the first named wins (L17); returns the one it is bound to.

        Raises:
            quill_runtime.database.Conflict: another license has just been bound to this organization.
        """
        ...

    async def attach_license(self, license_id: str, organization_id: str, *, now: datetime) -> str:
        """Bind a license that is nobody's yet as a further one of an account (O3); returns whose it is now."""
        ...

    async def detach_license(self, license_id: str, organization_id: str) -> None:
        """Let go of a further license of this account; one that is not, stays as it is."""
        ...

    async def account_of_further_license(self, license_id: str) -> str | None:
        """The organization on whose account this license is billed beside that account's own."""
        ...

    async def save(self, change: CustomerChange, *, before: CustomerRecord | None) -> CustomerRecord:
        """Append the events, store the projection and publish its complete snapshot under the next revision.

        Raises:
            quill_runtime.database.Conflict: somebody else changed the customer since ``before`` was read.
        """
        ...

    async def due_for_refresh(self, *, now: datetime, catalog_version: int, count_max: int) -> list[str]:
        """Organizations whose snapshot has become old by time or by a new catalog, locked for this transaction."""
        ...

    async def customers_after(self, organization_id: str, *, count_max: int) -> list[CustomerRecord]:
        """A page of customers in the order of their organization ids."""
        ...

    async def history(self, organization_id: str, *, after: int, count_max: int) -> list[NumberedEvent]:
        """A page of a customer's events, oldest first."""
        ...

    async def usage(self, organization_id: str) -> UsageSnapshot | None:
        """The newest usage snapshot that was received."""
        ...

    async def keep_usage(self, snapshots: Sequence[UsageSnapshot], *, now: datetime) -> None:
        """Store each snapshot whose revision is higher than the stored one; ignore the rest."""
        ...


class SubscriptionsStore(Protocol):
    """Opens transactions."""

    async def run(self, work: Callable[[SubscriptionsTransaction], Awaitable[T]]) -> T:
        """Run ``work`` in one transaction, again from its beginning after a conflict (a bounded number of times)."""
        ...

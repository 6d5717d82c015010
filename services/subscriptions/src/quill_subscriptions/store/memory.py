"""The store in memory, for fast tests and simulations: the same behaviour, transactions one at a time.

What it keeps has passed through the same JSON as in Postgres, so a value that would not survive storing fails here too.
"""

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from quill_contracts import topics
from quill_contracts.subscriptions import CatalogProduct
from quill_runtime.database import CONFLICT_RETRIES, Conflict
from quill_runtime.event_store import MemoryEventStream, NewEvent, StoredEvent
from quill_runtime.publisher import Outgoing

from quill_subscriptions.domain.billing_update import UpdatePolicy
from quill_subscriptions.domain.catalog import Catalog, Product
from quill_subscriptions.domain.customer import RecordedEvent
from quill_subscriptions.domain.usage import UsageSnapshot
from quill_subscriptions.ports import CustomerChange, CustomerRecord, NumberedEvent, SubscriptionsTransaction
from quill_subscriptions.store.memory_updates import MemoryBillingUpdates, UpdateRow
from quill_subscriptions.wire import stored
from quill_subscriptions.wire.catalog import product_from_wire, product_to_wire
from quill_subscriptions.wire.snapshots import customer_to_wire

T = TypeVar("T")


@dataclass(slots=True)
class CustomerRow:
    """What Postgres keeps in a row of ``customers``."""

    state: dict[str, Any]
    members: dict[str, Any]
    stream_version: int
    revision: int
    catalog_version: int
    effective_at: datetime
    refresh_at: datetime
    item_changes: dict[str, Any]


@dataclass(slots=True)
class Contents:
    """Everything that a transaction may change."""

    catalogs: dict[int, tuple[datetime, list[tuple[str, int]]]] = field(default_factory=dict)
    products: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    customers: dict[str, CustomerRow] = field(default_factory=dict)
    bindings: dict[str, str] = field(default_factory=dict)
    further: set[str] = field(default_factory=set)
    streams: dict[str, list[StoredEvent]] = field(default_factory=dict)
    usage: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    updates: dict[str, UpdateRow] = field(default_factory=dict)
    published: list[Outgoing] = field(default_factory=list)


class MemorySubscriptions:
    """`SubscriptionsStore` in memory; ``contents.published`` is what would have gone to Kafka."""

    def __init__(self, policy: UpdatePolicy | None = None) -> None:
        self.contents = Contents()
        self.policy = policy or UpdatePolicy()
        self._one_at_a_time = asyncio.Lock()

    async def run(self, work: Callable[[SubscriptionsTransaction], Awaitable[T]]) -> T:
        for attempt in range(CONFLICT_RETRIES):
            async with self._one_at_a_time:
                working = copy.deepcopy(self.contents)
                try:
                    result = await work(MemorySubscriptionsTransaction(working, self.policy))
                except Conflict:
                    if attempt == CONFLICT_RETRIES - 1:
                        raise
                    continue
                self.contents = working
                return result
        raise AssertionError("unreachable: the loop returns or raises")


class MemorySubscriptionsTransaction:
    """`SubscriptionsTransaction` on a copy that replaces the contents at the end."""

    def __init__(self, contents: Contents, policy: UpdatePolicy) -> None:
        self._contents = contents
        self.updates = MemoryBillingUpdates(
            contents.updates, policy, license_of=self._license_of, usage_revision_of=self._usage_revision_of
        )
        self._events = MemoryEventStream(contents.streams)

    async def catalog(self) -> Catalog | None:
        if not self._contents.catalogs:
            return None
        version = max(self._contents.catalogs)
        effective_at, listed = self._contents.catalogs[version]
        products = {
            key: product_from_wire(CatalogProduct.model_validate(document))
            for key, document in sorted(self._contents.products.items())
        }
        in_force = tuple(products.pop(key) for key in listed)
        return Catalog(version, effective_at, in_force, tuple(products.values()))

    async def put_in_force(self, catalog: Catalog, changed: Sequence[Product], *, now: datetime) -> None:  # noqa: ARG002
        if catalog.version in self._contents.catalogs:
            raise Conflict(f"catalog version {catalog.version} was stored by another process")
        self._contents.catalogs[catalog.version] = (
            catalog.effective_at,
            [(product.key, product.revision) for product in catalog.in_force],
        )
        for product in changed:
            message = product_to_wire(product)
            self._contents.products[product.key, product.revision] = message.model_dump(mode="json")
            self._contents.published.append(Outgoing(topics.CATALOG.name, product.key, message.to_bytes()))

    async def find(self, organization_id: str, *, for_change: bool = False) -> CustomerRecord | None:  # noqa: ARG002
        row = self._contents.customers.get(organization_id)
        return None if row is None else _record(row)

    async def bind_license(self, license_id: str, organization_id: str, *, now: datetime) -> str:  # noqa: ARG002
        own = [bound for key, bound in self._contents.bindings.items() if key not in self._contents.further]
        if license_id not in self._contents.bindings and organization_id in own:
            raise Conflict(f"organization {organization_id} was bound to another license meanwhile")
        return self._contents.bindings.setdefault(license_id, organization_id)

    async def attach_license(self, license_id: str, organization_id: str, *, now: datetime) -> str:  # noqa: ARG002
        if license_id not in self._contents.bindings:
            self._contents.further.add(license_id)
        return self._contents.bindings.setdefault(license_id, organization_id)

    async def detach_license(self, license_id: str, organization_id: str) -> None:
        if license_id in self._contents.further and self._contents.bindings[license_id] == organization_id:
            self._contents.further.remove(license_id)
            del self._contents.bindings[license_id]

    async def account_of_further_license(self, license_id: str) -> str | None:
        return self._contents.bindings[license_id] if license_id in self._contents.further else None

    async def save(self, change: CustomerChange, *, before: CustomerRecord | None) -> CustomerRecord:
        customer = change.customer
        stream_version = await self._events.append(
            f"customer/{customer.organization_id}",
            expected_version=0 if before is None else before.stream_version,
            events=[
                NewEvent(*stored.to_stored_event(event), actor=change.actor, occurred_at=change.now)
                for event in change.events
            ],
        )
        row = self._contents.customers.get(customer.organization_id)
        if (row.revision if row else None) != (before.revision if before else None):
            raise Conflict(f"customer {customer.organization_id} was changed by another transaction")
        row = CustomerRow(
            state=stored.to_stored_customer(customer),
            members=stored.to_stored_members(change.members),
            stream_version=stream_version,
            revision=1 if before is None else before.revision + 1,
            catalog_version=change.catalog_version,
            effective_at=change.effective_at,
            refresh_at=change.refresh_at,
            item_changes=stored.to_stored_changes(change.entitlements.changes),
        )
        self._contents.customers[customer.organization_id] = row
        message = customer_to_wire(
            customer, change.members, change.entitlements, revision=row.revision, effective_at=change.effective_at
        )
        self._contents.published.append(Outgoing(topics.CUSTOMERS.name, customer.organization_id, message.to_bytes()))
        await self.updates.mark([customer.organization_id], at_once=True, now=change.now)
        return _record(row)

    async def due_for_refresh(self, *, now: datetime, catalog_version: int, count_max: int) -> list[str]:
        due = (
            organization_id
            for organization_id, row in sorted(self._contents.customers.items())
            if row.refresh_at <= now or row.catalog_version < catalog_version
        )
        return list(due)[:count_max]

    async def customers_after(self, organization_id: str, *, count_max: int) -> list[CustomerRecord]:
        following = (row for key, row in sorted(self._contents.customers.items()) if key > organization_id)
        return [_record(row) for row in list(following)[:count_max]]

    async def history(self, organization_id: str, *, after: int, count_max: int) -> list[NumberedEvent]:
        events = await self._events.read(f"customer/{organization_id}")
        return [
            NumberedEvent(
                event.version,
                RecordedEvent(stored.from_stored_event(event.type, event.data), event.actor, event.occurred_at),
            )
            for event in events[after : after + count_max]
        ]

    async def usage(self, organization_id: str) -> UsageSnapshot | None:
        kept = self._contents.usage.get(organization_id)
        return None if kept is None else stored.from_stored_usage(kept[1])

    async def keep_usage(self, snapshots: Sequence[UsageSnapshot], *, now: datetime) -> None:
        for snapshot in snapshots:
            kept = self._contents.usage.get(snapshot.organization_id)
            if kept is None or snapshot.revision > kept[0]:
                self._contents.usage[snapshot.organization_id] = (
                    snapshot.revision,
                    stored.to_stored_usage(snapshot),
                )
                await self.updates.mark([snapshot.organization_id], at_once=False, now=now)

    def _license_of(self, organization_id: str) -> str | None:
        row = self._contents.customers.get(organization_id)
        return None if row is None else str(row.state["license_id"])

    def _usage_revision_of(self, organization_id: str) -> int:
        kept = self._contents.usage.get(organization_id)
        return 0 if kept is None else kept[0]


def _record(row: CustomerRow) -> CustomerRecord:
    return CustomerRecord(
        customer=stored.from_stored_customer(row.state),
        stream_version=row.stream_version,
        revision=row.revision,
        members=stored.from_stored_members(row.members),
        effective_at=row.effective_at,
        refresh_at=row.refresh_at,
        changes=stored.from_stored_changes(row.item_changes),
    )

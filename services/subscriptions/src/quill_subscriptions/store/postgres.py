"""The store on Postgres: state, events and messages in one transaction."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from quill_contracts import topics
from quill_contracts.subscriptions import CatalogProduct
from quill_runtime.database import Conflict, Database, Transaction
from quill_runtime.event_store import NewEvent, PostgresEventStream
from quill_runtime.outbox import Outbox
from quill_runtime.publisher import Outgoing
from quill_runtime.tables import events as events_table
from sqlalchemy import Row, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from quill_subscriptions.domain.billing_update import UpdatePolicy
from quill_subscriptions.domain.catalog import Catalog, Product
from quill_subscriptions.domain.customer import RecordedEvent
from quill_subscriptions.domain.usage import UsageSnapshot
from quill_subscriptions.ports import CustomerChange, CustomerRecord, NumberedEvent, SubscriptionsTransaction
from quill_subscriptions.store.billing_updates import PostgresBillingUpdates
from quill_subscriptions.store.tables import (
    catalog_products,
    catalog_versions,
    customers,
    license_bindings,
    period_usage,
)
from quill_subscriptions.wire import stored
from quill_subscriptions.wire.catalog import product_from_wire, product_to_wire
from quill_subscriptions.wire.snapshots import customer_to_wire

T = TypeVar("T")


def stream_of(organization_id: str) -> str:
    """The event stream of a customer."""
    return f"customer/{organization_id}"


@dataclass(slots=True)
class CatalogCache:
    """The newest catalog this process has read; a version never changes, so its number says whether it still holds."""

    catalog: Catalog | None = None


@dataclass(slots=True)
class PostgresSubscriptions:
    """`SubscriptionsStore` on Postgres."""

    database: Database
    outbox: Outbox
    policy: UpdatePolicy = field(default_factory=UpdatePolicy)
    cache: CatalogCache = field(default_factory=CatalogCache)

    async def run(self, work: Callable[[SubscriptionsTransaction], Awaitable[T]]) -> T:
        async def in_transaction(transaction: Transaction) -> T:
            return await work(self.within(transaction))

        return await self.database.run(in_transaction)

    def within(self, transaction: Transaction) -> "PostgresSubscriptionsTransaction":
        """The same store inside a transaction that somebody else opened (a consumer's batch)."""
        return PostgresSubscriptionsTransaction(transaction, self.outbox, self.cache, self.policy)


class PostgresSubscriptionsTransaction:
    """`SubscriptionsTransaction` on one open transaction."""

    def __init__(self, transaction: Transaction, outbox: Outbox, cache: CatalogCache, policy: UpdatePolicy) -> None:
        self._transaction = transaction
        self._connection = transaction.connection
        self._outbox = outbox
        self._cache = cache
        self._events = PostgresEventStream(transaction)
        self.updates = PostgresBillingUpdates(transaction, policy)

    async def catalog(self) -> Catalog | None:
        version = await self._connection.scalar(select(func.max(catalog_versions.c.version)))
        if version is None:
            return None
        if self._cache.catalog is None or self._cache.catalog.version != version:
            self._cache.catalog = await self._read_catalog(version)
        return self._cache.catalog

    async def _read_catalog(self, version: int) -> Catalog:
        header = (
            await self._connection.execute(select(catalog_versions).where(catalog_versions.c.version == version))
        ).one()
        rows = await self._connection.execute(
            select(catalog_products.c.document).order_by(catalog_products.c.product_key, catalog_products.c.revision)
        )
        products = {
            (product.key, product.revision): product
            for product in (product_from_wire(CatalogProduct.model_validate(row.document)) for row in rows)
        }
        in_force = tuple(products.pop((key, revision)) for key, revision in header.products)
        return Catalog(version, header.effective_at, in_force, tuple(products.values()))

    async def put_in_force(self, catalog: Catalog, changed: Sequence[Product], *, now: datetime) -> None:
        stored_version = await self._connection.scalar(
            insert(catalog_versions)
            .values(
                version=catalog.version,
                effective_at=catalog.effective_at,
                adopted_at=now,
                products=[[product.key, product.revision] for product in catalog.in_force],
            )
            .on_conflict_do_nothing()
            .returning(catalog_versions.c.version)
        )
        if stored_version is None:
            raise Conflict(f"catalog version {catalog.version} was stored by another process")
        messages = [product_to_wire(product) for product in changed]
        if not messages:
            return
        await self._connection.execute(
            insert(catalog_products),
            [
                {
                    "product_key": message.product_key,
                    "revision": message.revision,
                    "document": message.model_dump(mode="json"),
                }
                for message in messages
            ],
        )
        await self._outbox.add(
            self._transaction,
            [Outgoing(topics.CATALOG.name, message.product_key, message.to_bytes()) for message in messages],
        )

    async def find(self, organization_id: str, *, for_change: bool = False) -> CustomerRecord | None:
        query = select(customers).where(customers.c.organization_id == organization_id)
        row = (await self._connection.execute(query.with_for_update() if for_change else query)).one_or_none()
        return None if row is None else _record(row)

    async def bind_license(self, license_id: str, organization_id: str, *, now: datetime) -> str:
        await self._connection.execute(
            insert(license_bindings)
            .values(license_id=license_id, organization_id=organization_id, bound_at=now)
            .on_conflict_do_nothing()
        )
        bound = await self._connection.scalar(
            select(license_bindings.c.organization_id).where(license_bindings.c.license_id == license_id)
        )
        if bound is None:
            raise Conflict(f"organization {organization_id} was bound to another license meanwhile")
        return str(bound)

    async def attach_license(self, license_id: str, organization_id: str, *, now: datetime) -> str:
        await self._connection.execute(
            insert(license_bindings)
            .values(license_id=license_id, organization_id=organization_id, bound_at=now, is_further=True)
            .on_conflict_do_nothing()
        )
        bound = await self._connection.scalar(
            select(license_bindings.c.organization_id).where(license_bindings.c.license_id == license_id)
        )
        if bound is None:
            raise Conflict(f"license {license_id} was let go meanwhile")
        return str(bound)

    async def detach_license(self, license_id: str, organization_id: str) -> None:
        await self._connection.execute(
            delete(license_bindings)
            .where(license_bindings.c.license_id == license_id)
            .where(license_bindings.c.organization_id == organization_id)
            .where(license_bindings.c.is_further)
        )

    async def account_of_further_license(self, license_id: str) -> str | None:
        account: str | None = await self._connection.scalar(
            select(license_bindings.c.organization_id)
            .where(license_bindings.c.license_id == license_id)
            .where(license_bindings.c.is_further)
        )
        return account

    async def save(self, change: CustomerChange, *, before: CustomerRecord | None) -> CustomerRecord:
        customer = change.customer
        stream_version = await self._events.append(
            stream_of(customer.organization_id),
            expected_version=0 if before is None else before.stream_version,
            events=[
                NewEvent(*stored.to_stored_event(event), actor=change.actor, occurred_at=change.now)
                for event in change.events
            ],
        )
        revision = 1 if before is None else before.revision + 1
        values: dict[str, Any] = {
            "license_id": customer.license_id,
            "stream_version": stream_version,
            "revision": revision,
            "catalog_version": change.catalog_version,
            "effective_at": change.effective_at,
            "refresh_at": change.refresh_at,
            "updated_at": change.now,
            "state": stored.to_stored_customer(customer),
            "members": stored.to_stored_members(change.members),
            "item_changes": stored.to_stored_changes(change.entitlements.changes),
        }
        if before is None:
            statement = insert(customers).values(organization_id=customer.organization_id, **values)
            written = await self._connection.scalar(statement.on_conflict_do_nothing().returning(customers.c.revision))
        else:
            written = await self._connection.scalar(
                update(customers)
                .where(customers.c.organization_id == customer.organization_id)
                .where(customers.c.revision == before.revision)
                .values(**values)
                .returning(customers.c.revision)
            )
        if written is None:
            raise Conflict(f"customer {customer.organization_id} was changed by another transaction")
        message = customer_to_wire(
            customer, change.members, change.entitlements, revision=revision, effective_at=change.effective_at
        )
        await self._outbox.add(
            self._transaction, [Outgoing(topics.CUSTOMERS.name, customer.organization_id, message.to_bytes())]
        )
        await self.updates.mark([customer.organization_id], at_once=True, now=change.now)
        return CustomerRecord(
            customer,
            stream_version,
            revision,
            change.members,
            change.effective_at,
            change.refresh_at,
            change.entitlements.changes,
        )

    async def due_for_refresh(self, *, now: datetime, catalog_version: int, count_max: int) -> list[str]:
        rows = await self._connection.execute(
            select(customers.c.organization_id)
            .where(or_(customers.c.refresh_at <= now, customers.c.catalog_version < catalog_version))
            .order_by(customers.c.organization_id)
            .limit(count_max)
            .with_for_update(skip_locked=True)
        )
        return [row.organization_id for row in rows]

    async def customers_after(self, organization_id: str, *, count_max: int) -> list[CustomerRecord]:
        rows = await self._connection.execute(
            select(customers)
            .where(customers.c.organization_id > organization_id)
            .order_by(customers.c.organization_id)
            .limit(count_max)
        )
        return [_record(row) for row in rows]

    async def history(self, organization_id: str, *, after: int, count_max: int) -> list[NumberedEvent]:
        rows = await self._connection.execute(
            select(events_table)
            .where(events_table.c.stream == stream_of(organization_id), events_table.c.version > after)
            .order_by(events_table.c.version)
            .limit(count_max)
        )
        return [
            NumberedEvent(
                row.version,
                RecordedEvent(stored.from_stored_event(row.type, row.data), row.actor, row.occurred_at),
            )
            for row in rows
        ]

    async def usage(self, organization_id: str) -> UsageSnapshot | None:
        snapshot = await self._connection.scalar(
            select(period_usage.c.snapshot).where(period_usage.c.organization_id == organization_id)
        )
        return None if snapshot is None else stored.from_stored_usage(snapshot)

    async def keep_usage(self, snapshots: Sequence[UsageSnapshot], *, now: datetime) -> None:
        newest: dict[str, UsageSnapshot] = {}
        for snapshot in snapshots:
            known = newest.get(snapshot.organization_id)
            if known is None or snapshot.revision > known.revision:
                newest[snapshot.organization_id] = snapshot
        if not newest:
            return
        # One order for everybody, so that two batches never wait for each other in a circle.
        statement = insert(period_usage).values(
            [
                {
                    "organization_id": organization_id,
                    "revision": snapshot.revision,
                    "snapshot": stored.to_stored_usage(snapshot),
                }
                for organization_id, snapshot in sorted(newest.items())
            ]
        )
        kept = await self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=[period_usage.c.organization_id],
                set_={"revision": statement.excluded.revision, "snapshot": statement.excluded.snapshot},
                where=period_usage.c.revision < statement.excluded.revision,
            ).returning(period_usage.c.organization_id)
        )
        await self.updates.mark([row.organization_id for row in kept], at_once=False, now=now)


def _record(row: Row[Any]) -> CustomerRecord:
    return CustomerRecord(
        customer=stored.from_stored_customer(row.state),
        stream_version=row.stream_version,
        revision=row.revision,
        members=stored.from_stored_members(row.members),
        effective_at=row.effective_at,
        refresh_at=row.refresh_at,
        changes=stored.from_stored_changes(row.item_changes),
    )

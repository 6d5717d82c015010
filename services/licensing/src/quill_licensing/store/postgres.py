"""Licenses in Postgres: facts in the event store, a projection beside them, all in one transaction."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final, TypeVar

from quill_contracts import topics
from quill_runtime import inbox, operations
from quill_runtime.database import Database, Transaction, sqlstate
from quill_runtime.event_store import UNIQUE_VIOLATION, NewEvent, PostgresEventStream
from quill_runtime.outbox import Outbox
from quill_runtime.publisher import Outgoing
from sqlalchemy import ColumnElement, Row, delete, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from quill_licensing.domain.activation import Activation
from quill_licensing.domain.license import License, LicenseEvent, evolve, replay
from quill_licensing.domain.license_mail import MailState, mail_key
from quill_licensing.ports import (
    PAGE_MAX,
    Claim,
    ClaimConflict,
    LicenseFilter,
    LicenseTransaction,
    SourceTaken,
)
from quill_licensing.store.tables import activations, licenses, signup_buckets
from quill_licensing.wire import from_stored_event, to_stored_event, to_wire_published

T = TypeVar("T")

MAIL_OPERATION: Final = "send_license_mail"
SOURCE_CONSTRAINT: Final = "licenses_active_source_key"
BUCKETS_DROPPED_MAX: Final = 10_000


def stream_of(license_id: str) -> str:
    """The name of a license's stream of facts."""
    return f"license/{license_id}"


class PostgresLicenseTransaction:
    """A `LicenseTransaction` on an open database transaction."""

    def __init__(self, transaction: Transaction, *, outbox: Outbox) -> None:
        self._transaction = transaction
        self._connection = transaction.connection
        self._stream = PostgresEventStream(transaction)
        self._outbox = outbox

    async def load(self, license_id: str, *, as_of: datetime | None = None) -> License | None:
        stored = await self._stream.read(stream_of(license_id), as_of=as_of)
        return replay(from_stored_event(e.type, e.data, actor=e.actor, at=e.occurred_at) for e in stored)

    async def history(self, license_id: str) -> Sequence[LicenseEvent]:
        stored = await self._stream.read(stream_of(license_id))
        return [from_stored_event(e.type, e.data, actor=e.actor, at=e.occurred_at) for e in stored]

    async def save(self, license_before: License | None, events: Sequence[LicenseEvent]) -> License:
        license_ = license_before
        for event in events:
            license_ = evolve(license_, event)
        if license_ is None:
            raise ValueError("saving needs a license or a first fact")
        await self._stream.append(
            stream_of(license_.license_id),
            expected_version=license_before.revision if license_before else 0,
            events=[_new_event(event) for event in events],
        )
        row = asdict(license_)
        statement = insert(licenses).values(row)
        try:
            await self._connection.execute(
                statement.on_conflict_do_update(
                    index_elements=[licenses.c.license_id],
                    set_={name: statement.excluded[name] for name in row if name != "license_id"},
                )
            )
        except IntegrityError as error:
            if sqlstate(error) == UNIQUE_VIOLATION and SOURCE_CONSTRAINT in str(error.orig):
                raise SourceTaken(f"an active license stands for the source {license_.source!r}") from error
            raise
        return license_

    async def find(self, wanted: LicenseFilter, *, after_id: str, limit: int) -> Sequence[License]:
        conditions: list[ColumnElement[bool]] = [licenses.c.license_id > after_id]
        if wanted.status is not None:
            conditions.append(licenses.c.status == wanted.status)
        if wanted.type is not None:
            conditions.append(licenses.c.type == wanted.type)
        if wanted.email is not None:
            conditions.append(licenses.c.email == wanted.email)
        rows = await self._connection.execute(
            select(licenses).where(*conditions).order_by(licenses.c.license_id).limit(min(limit, PAGE_MAX))
        )
        return [_license(row) for row in rows]

    async def publish(self, license_: License) -> None:
        value = to_wire_published(license_).to_bytes()
        await self._outbox.add(self._transaction, [Outgoing(topics.LICENSES.name, license_.license_id, value)])

    async def claim(self, claim: Claim, *, content: bytes, license_id: str, now: datetime) -> str:
        scope = f"signup:{claim.claimant}"
        intake = await inbox.take_in(
            self._transaction, scope=scope, message_id=claim.idempotency_key, content=content, now=now
        )
        if intake.verdict == "conflict":
            raise ClaimConflict("this idempotency key was used for another signup")
        if intake.verdict == "repeat":
            return str(intake.response["license_id"])
        await inbox.keep_response(
            self._transaction, scope=scope, message_id=claim.idempotency_key, response={"license_id": license_id}
        )
        return license_id

    async def plan_mail(self, license_: License, *, now: datetime) -> None:
        await operations.plan(
            self._transaction,
            operation_id=mail_key(license_.license_id),
            kind=MAIL_OPERATION,
            subject=license_.license_id,
            request={"license_id": license_.license_id},
            now=now,
        )

    async def mail_state(self, license_id: str) -> MailState | None:
        operation = await operations.find(self._transaction, mail_key(license_id))
        return None if operation is None else MailState(operation.status, operation.attempts, operation.error)

    async def unknown_activations(self, activations_: Sequence[Activation]) -> Sequence[Activation]:
        pairs = {(a.license_id, a.organization_id): a for a in activations_}
        if not pairs:
            return []
        rows = await self._connection.execute(
            select(activations.c.license_id, activations.c.organization_id).where(
                tuple_(activations.c.license_id, activations.c.organization_id).in_(list(pairs))
            )
        )
        known = {(row.license_id, row.organization_id) for row in rows}
        return [activation for pair, activation in pairs.items() if pair not in known]

    async def add_activation(self, activation: Activation, *, is_exclusive: bool) -> None:
        await self._connection.execute(
            insert(activations)
            .values(**asdict(activation), is_exclusive=is_exclusive)
            .on_conflict_do_nothing(index_elements=[activations.c.license_id, activations.c.organization_id])
        )

    async def activations(self, license_id: str, *, limit: int) -> Sequence[Activation]:
        rows = await self._connection.execute(
            select(activations)
            .where(activations.c.license_id == license_id)
            .order_by(activations.c.first_seen_at, activations.c.organization_id)
            .limit(limit)
        )
        return [Activation(r.license_id, r.organization_id, r.organization_name, r.first_seen_at) for r in rows]

    async def signup_bucket(self, bucket: str, *, now: datetime) -> datetime:
        # The row is made first so that there is something to lock: two first signups must not both see an empty table.
        await self._connection.execute(
            insert(signup_buckets).values(bucket=bucket, full_at=now).on_conflict_do_nothing()
        )
        full_at: datetime = (
            await self._connection.execute(
                select(signup_buckets.c.full_at).where(signup_buckets.c.bucket == bucket).with_for_update()
            )
        ).scalar_one()
        return full_at

    async def save_signup_bucket(self, bucket: str, *, full_at: datetime) -> None:
        await self._connection.execute(
            signup_buckets.update().where(signup_buckets.c.bucket == bucket).values(full_at=full_at)
        )

    async def forget_full_buckets(self, *, now: datetime) -> int:
        doomed = (
            select(signup_buckets.c.bucket)
            .where(signup_buckets.c.full_at <= now)
            .limit(BUCKETS_DROPPED_MAX)
            .with_for_update(skip_locked=True)
        )
        result = await self._connection.execute(
            delete(signup_buckets).where(signup_buckets.c.bucket.in_(doomed)).returning(signup_buckets.c.bucket)
        )
        return len(result.all())


class PostgresLicenseStore:
    """A `LicenseStore` on one database."""

    def __init__(self, database: Database, *, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    def within(self, transaction: Transaction) -> LicenseTransaction:
        """Licenses inside a transaction that somebody else opened, such as a consumer's batch."""
        return PostgresLicenseTransaction(transaction, outbox=self._outbox)

    async def run(self, work: Callable[[LicenseTransaction], Awaitable[T]]) -> T:
        async def in_transaction(transaction: Transaction) -> T:
            return await work(self.within(transaction))

        return await self._database.run(in_transaction)


def _new_event(event: LicenseEvent) -> NewEvent:
    name, content = to_stored_event(event)
    return NewEvent(name, content, event.actor, event.at)


def _license(row: Row[Any]) -> License:
    fields = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's documented accessor
    return License(**fields)

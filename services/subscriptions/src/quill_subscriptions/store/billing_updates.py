"""Which regions are to be told of which customers, on Postgres: a row per organization, marked with what changed.

Rows are locked in the order of organization ids, and after customers and usage, so that nobody waits in a circle.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from quill_runtime.database import Transaction
from sqlalchemy import BigInteger, ColumnElement, Row, case, func, literal, null, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from quill_subscriptions.domain.billing_update import (
    IN_FLIGHT,
    ClaimedUpdate,
    UpdatePolicy,
    UpdateStanding,
    UpdateStatus,
)
from quill_subscriptions.store.tables import billing_updates, customers, period_usage


class PostgresBillingUpdates:
    """`BillingUpdates` on one open transaction."""

    def __init__(self, transaction: Transaction, policy: UpdatePolicy) -> None:
        self._connection = transaction.connection
        self._policy = policy

    async def mark(self, organization_ids: Collection[str], *, at_once: bool, now: datetime) -> None:
        if not organization_ids or not self._policy.license_ids:
            return
        row = billing_updates.c
        told_at = func.greatest(row.sent_at, row.failed_at)
        usage_due = func.coalesce(row.due_at, func.greatest(now, told_at + self._policy.spacing))
        await self._upsert(
            organization_ids,
            {"due_at": literal(now, row.due_at.type), "is_urgent": literal(at_once)},
            changed={
                "due_at": func.least(row.due_at, now) if at_once else usage_due,
                "is_urgent": row.is_urgent | literal(at_once),
                "generation": row.generation + 1,
            },
        )
        await self._hasten(organization_ids, now=now)

    async def expect_usage(self, revisions: Mapping[str, int], *, now: datetime) -> None:
        if not revisions or not self._policy.license_ids:
            return
        awaited = case(
            {name: literal(revision, BigInteger) for name, revision in revisions.items()},
            value=customers.c.organization_id,
        )
        kept = billing_updates.c.awaits_usage
        await self._upsert(
            revisions,
            {"awaits_usage": awaited},
            changed={"awaits_usage": lambda new: func.greatest(kept, new.awaits_usage)},
        )
        # Read only now: a batch of usage that was first has committed by the time its row could be locked.
        await self._hasten(revisions, now=now)

    async def claim(self, license_ids: Collection[str], *, now: datetime, count_max: int) -> list[ClaimedUpdate]:
        row = billing_updates.c
        found = await self._connection.execute(
            select(row.organization_id, row.license_id, row.generation, row.attempts)
            .where(row.license_id.in_(license_ids), row.due_at <= now)
            .where(or_(row.held_until.is_(None), row.held_until <= now))
            .order_by(row.due_at, row.organization_id)
            .limit(count_max)
            .with_for_update(skip_locked=True)
        )
        held_until = now + IN_FLIGHT
        claimed = [ClaimedUpdate(*each[:3], each.attempts + 1, held_until) for each in found]
        if claimed:
            await self._connection.execute(
                update(billing_updates)
                .where(row.organization_id.in_([each.organization_id for each in claimed]))
                .values(held_until=held_until, attempts=row.attempts + 1, is_urgent=False)
            )
        return claimed

    async def conclude(self, claimed: ClaimedUpdate, *, now: datetime) -> None:
        await self._settle(
            claimed,
            due_at=self._next_due(claimed, now),
            sent_at=now,
            failed_at=None,
            error=None,
            attempts=0,
            held_until=None,
        )

    async def postpone(self, claimed: ClaimedUpdate, error: str, *, until: datetime) -> None:
        await self._settle(claimed, error=error, held_until=until)

    async def give_up(self, claimed: ClaimedUpdate, error: str, *, now: datetime) -> None:
        await self._settle(
            claimed,
            due_at=self._next_due(claimed, now),
            failed_at=now,
            error=error,
            attempts=0,
            held_until=None,
        )

    async def standing(self, status: UpdateStatus, *, after: str, count_max: int) -> list[UpdateStanding]:
        row = billing_updates.c
        shown = row.failed_at.is_not(None) if status == "failed" else row.due_at.is_not(None)
        found = await self._connection.execute(
            select(billing_updates)
            .where(shown, row.organization_id > after)
            .order_by(row.organization_id)
            .limit(count_max)
        )
        return [_standing(each) for each in found]

    async def _upsert(
        self,
        organization_ids: Collection[str],
        values: Mapping[str, ColumnElement[Any]],
        *,
        changed: Mapping[str, Any],
    ) -> None:
        """A row for each of the organizations whose license stands for a region that is told; for the others none."""
        chosen = (
            select(customers.c.organization_id, customers.c.license_id, literal(1), *values.values())
            .where(customers.c.organization_id.in_(organization_ids))
            .where(customers.c.license_id.in_(self._policy.license_ids))
            .order_by(customers.c.organization_id)
        )
        statement = insert(billing_updates).from_select(
            ["organization_id", "license_id", "generation", *values], chosen
        )
        new = statement.excluded
        await self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=[billing_updates.c.organization_id],
                set_={
                    "license_id": new.license_id,
                    **{name: value(new) if callable(value) else value for name, value in changed.items()},
                },
            )
        )

    async def _hasten(self, organization_ids: Collection[str], *, now: datetime) -> None:
        """Due at once is what waited for usage that is here by now."""
        row = billing_updates.c
        await self._connection.execute(
            update(billing_updates)
            .where(row.organization_id.in_(organization_ids), row.awaits_usage.is_not(None))
            .where(
                or_(
                    row.awaits_usage <= 0,
                    select(period_usage.c.revision)
                    .where(period_usage.c.organization_id == row.organization_id)
                    .scalar_subquery()
                    >= row.awaits_usage,
                )
            )
            .values(
                due_at=func.least(row.due_at, now),
                is_urgent=True,
                awaits_usage=None,
                generation=row.generation + 1,
            )
        )

    def _next_due(self, claimed: ClaimedUpdate, now: datetime) -> ColumnElement[Any]:
        """Nothing, unless it was marked again since it was claimed."""
        row = billing_updates.c
        later = case((row.is_urgent, row.due_at), else_=now + self._policy.spacing)
        return case((row.generation == claimed.generation, null()), else_=later)

    async def _settle(self, claimed: ClaimedUpdate, **values: Any) -> None:
        """Change the row if it is still held by this claim; one whose time ran out is somebody else's by now."""
        row = billing_updates.c
        await self._connection.execute(
            update(billing_updates)
            .where(row.organization_id == claimed.organization_id, row.held_until == claimed.held_until)
            .values(**values)
        )


def _standing(row: Row[Any]) -> UpdateStanding:
    return UpdateStanding(
        row.organization_id, row.license_id, row.due_at, row.sent_at, row.failed_at, row.attempts, row.error
    )

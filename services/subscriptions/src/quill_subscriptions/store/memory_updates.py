"""Which regions are to be told of which customers, in memory: the same behaviour as on Postgres."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from quill_subscriptions.domain.billing_update import (
    IN_FLIGHT,
    ClaimedUpdate,
    UpdatePolicy,
    UpdateStanding,
    UpdateStatus,
    usage_due_at,
)


@dataclass(slots=True)
class UpdateRow:
    """What Postgres keeps in a row of ``billing_updates``."""

    license_id: str
    generation: int = 0
    due_at: datetime | None = None
    is_urgent: bool = False
    awaits_usage: int | None = None
    held_until: datetime | None = None
    attempts: int = 0
    sent_at: datetime | None = None
    failed_at: datetime | None = None
    error: str | None = None


class MemoryBillingUpdates:
    """`BillingUpdates` on the rows of an open transaction; customers and usage are asked of its store."""

    def __init__(
        self,
        rows: dict[str, UpdateRow],
        policy: UpdatePolicy,
        *,
        license_of: Callable[[str], str | None],
        usage_revision_of: Callable[[str], int],
    ) -> None:
        self._rows = rows
        self._policy = policy
        self._license_of = license_of
        self._usage_revision_of = usage_revision_of

    async def mark(self, organization_ids: Collection[str], *, at_once: bool, now: datetime) -> None:
        for organization_id, row in self._told(organization_ids):
            told_at = max(filter(None, (row.sent_at, row.failed_at)), default=None)
            row.generation += 1
            row.is_urgent |= at_once
            if at_once:
                row.due_at = min(row.due_at or now, now)
            elif row.due_at is None:
                row.due_at = usage_due_at(now=now, told_at=told_at, spacing=self._policy.spacing)
            self._hasten(organization_id, row, now=now)

    async def expect_usage(self, revisions: Mapping[str, int], *, now: datetime) -> None:
        for organization_id, row in self._told(revisions):
            row.awaits_usage = max(row.awaits_usage or 0, revisions[organization_id])
            self._hasten(organization_id, row, now=now)

    async def claim(self, license_ids: Collection[str], *, now: datetime, count_max: int) -> list[ClaimedUpdate]:
        due = sorted(
            (row.due_at, organization_id)
            for organization_id, row in self._rows.items()
            if row.license_id in license_ids
            and row.due_at is not None
            and row.due_at <= now
            and (row.held_until is None or row.held_until <= now)
        )
        claimed: list[ClaimedUpdate] = []
        for _, organization_id in due[:count_max]:
            row = self._rows[organization_id]
            row.held_until, row.attempts, row.is_urgent = now + IN_FLIGHT, row.attempts + 1, False
            claimed.append(ClaimedUpdate(organization_id, row.license_id, row.generation, row.attempts, row.held_until))
        return claimed

    async def conclude(self, claimed: ClaimedUpdate, *, now: datetime) -> None:
        if self._still_held(claimed):
            row = self._rows[claimed.organization_id]
            self._rows[claimed.organization_id] = replace(
                row, due_at=self._next(row, claimed, now), sent_at=now, failed_at=None, error=None, attempts=0
            )
            self._rows[claimed.organization_id].held_until = None

    async def postpone(self, claimed: ClaimedUpdate, error: str, *, until: datetime) -> None:
        if self._still_held(claimed):
            row = self._rows[claimed.organization_id]
            row.error, row.held_until = error, until

    async def give_up(self, claimed: ClaimedUpdate, error: str, *, now: datetime) -> None:
        if self._still_held(claimed):
            row = self._rows[claimed.organization_id]
            row.due_at = self._next(row, claimed, now)
            row.failed_at, row.error, row.attempts, row.held_until = now, error, 0, None

    async def standing(self, status: UpdateStatus, *, after: str, count_max: int) -> list[UpdateStanding]:
        shown = [
            UpdateStanding(name, row.license_id, row.due_at, row.sent_at, row.failed_at, row.attempts, row.error)
            for name, row in sorted(self._rows.items())
            if name > after and (row.failed_at if status == "failed" else row.due_at) is not None
        ]
        return shown[:count_max]

    def _told(self, organization_ids: Collection[str]) -> list[tuple[str, UpdateRow]]:
        found: list[tuple[str, UpdateRow]] = []
        for organization_id in sorted(organization_ids):
            license_id = self._license_of(organization_id)
            if license_id is not None and license_id in self._policy.license_ids:
                found.append((organization_id, self._rows.setdefault(organization_id, UpdateRow(license_id))))
        return found

    def _hasten(self, organization_id: str, row: UpdateRow, *, now: datetime) -> None:
        if row.awaits_usage is not None and self._usage_revision_of(organization_id) >= row.awaits_usage:
            row.due_at, row.is_urgent, row.awaits_usage = min(row.due_at or now, now), True, None
            row.generation += 1

    def _still_held(self, claimed: ClaimedUpdate) -> bool:
        return self._rows[claimed.organization_id].held_until == claimed.held_until

    def _next(self, row: UpdateRow, claimed: ClaimedUpdate, now: datetime) -> datetime | None:
        if row.generation == claimed.generation:
            return None
        return row.due_at if row.is_urgent else now + self._policy.spacing

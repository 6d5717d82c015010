"""Usage in Postgres: named queries that take and return domain values."""

import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from quill_pricing.period import BillingPeriod
from quill_runtime.database import Transaction
from sqlalchemy import Row, Select, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from quill_usage_ingest.domain.counter_layout import CounterLayout
from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.organization import Organization, UsageStanding
from quill_usage_ingest.domain.packed_cells import PackedCells
from quill_usage_ingest.domain.packed_counters import PackedCounters
from quill_usage_ingest.domain.period_usage import PeriodUsage
from quill_usage_ingest.domain.usage_book import PeriodKey
from quill_usage_ingest.domain.usage_cells import WindowCells
from quill_usage_ingest.domain.usage_report import DayKey, WindowKey, window_of
from quill_usage_ingest.ports import TooManyWindows
from quill_usage_ingest.store import statements
from quill_usage_ingest.store.array_text import (
    array_text,
    column_of_instants,
    column_of_numbers,
    column_of_texts,
)
from quill_usage_ingest.store.carried_values import CarriedValues
from quill_usage_ingest.store.claims import PostgresClaims
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.customer_json import facts_from_json, facts_to_json
from quill_usage_ingest.store.cut_rows import PostgresCuts
from quill_usage_ingest.store.event_usage import event_usage
from quill_usage_ingest.store.further_licenses import PostgresFurtherLicenses
from quill_usage_ingest.store.kept_reports import PostgresKeptReports
from quill_usage_ingest.store.late_usage import PostgresLateUsage
from quill_usage_ingest.store.meter_places import EventUsage
from quill_usage_ingest.store.metered_product_rows import PostgresMeteredProducts
from quill_usage_ingest.store.months import of_months
from quill_usage_ingest.store.organization_sources import PostgresOrganizationSources, Published
from quill_usage_ingest.store.schedules import documents_of, ended_schedules_of, schedule_of, schedules_of
from quill_usage_ingest.store.short_vectors import maximum_text, partial_text, ranks_text, whole_period, whole_ranks
from quill_usage_ingest.store.stored_period import StoredPeriod
from quill_usage_ingest.store.tables import organizations, period_usage, usage_windows

ROWS_MAX = 100_000
"""Windows or periods of one organization that one read may return: ten years of thirty sources."""

_PUBLISHED = ("organization_id", "usage_revision", "sources", "customer_revision", "cuts")


class PostgresUsage(
    PostgresFurtherLicenses,
    PostgresOrganizationSources,
    PostgresMeteredProducts,
    PostgresClaims,
    PostgresKeptReports,
    PostgresCuts,
    PostgresLateUsage,
):
    """`UsageTransaction` on one open transaction."""

    def __init__(self, transaction: Transaction, slots: CounterSlots) -> None:
        self._connection = transaction.connection
        self._slots = slots.of(transaction)

    # -- organizations ---------------------------------------------------------------------------------------------

    async def lock_organizations(self, organization_ids: Collection[str]) -> dict[str, Organization]:
        if not organization_ids:
            return {}
        return await self._organizations(
            select(organizations)
            .where(organizations.c.organization_id == func.any(sorted(organization_ids)))
            .order_by(organizations.c.organization_id)
            .with_for_update()
        )

    async def lock_standings(self, organization_ids: Collection[str]) -> dict[str, UsageStanding]:
        if not organization_ids:
            return {}
        parameters = {"organization_id": column_of_texts(sorted(organization_ids))}
        rows = await self._connection.execute(statements.LOCK_STANDINGS, parameters)
        return {
            organization_id: UsageStanding(schedules_of(anchor, interval, ended), usage_revision, sources, cuts)
            for organization_id, anchor, interval, ended, usage_revision, sources, cuts in rows
        }

    async def organization(self, organization_id: str) -> Organization | None:
        found = await self._organizations(
            select(organizations).where(organizations.c.organization_id == organization_id)
        )
        return found.get(organization_id)

    async def organizations_after(self, organization_id: str, *, limit: int) -> list[str]:
        rows = await self._connection.execute(
            select(organizations.c.organization_id)
            .where(organizations.c.organization_id > organization_id)
            .order_by(organizations.c.organization_id)
            .limit(limit)
        )
        return [row.organization_id for row in rows]

    async def save_customer(self, organization: Organization) -> None:
        projected = {
            "license_id": organization.license_id,
            "customer_revision": organization.customer_revision,
            "schedule_anchor": organization.schedule.anchor,
            "schedule_interval": str(organization.schedule.interval),
            "ended_schedules": documents_of(organization.ended_schedules),
            "cuts": list(organization.cuts),
            "customer": facts_to_json(organization.customer),
        }
        await self._connection.execute(
            insert(organizations)
            .values(organization_id=organization.organization_id, **projected)
            .on_conflict_do_update(index_elements=["organization_id"], set_=projected)
        )

    async def save_revisions(self, revisions: Mapping[str, int], *, is_publication_due: bool) -> None:
        if revisions:
            parameters = {
                "organization_id": column_of_texts(list(revisions)),
                "revision": column_of_numbers(list(revisions.values())),
                "is_publication_due": is_publication_due,
            }
            await self._connection.execute(statements.SAVE_REVISIONS, parameters)

    async def raise_all_revisions(self) -> int:
        result = await self._connection.execute(
            update(organizations)
            .where(organizations.c.usage_revision > 0)
            .values(usage_revision=organizations.c.usage_revision + 1, is_publication_due=True)
        )
        return result.rowcount

    async def _organizations(self, query: Select[Any]) -> dict[str, Organization]:
        rows = await self._connection.execute(query)
        return {row.organization_id: _organization(row) for row in rows}

    # -- windows ---------------------------------------------------------------------------------------------------

    async def windows_of_days(self, days: Collection[DayKey]) -> dict[WindowKey, WindowCells]:
        if not days:
            return {}
        starts = [day.day for day in days]
        parameters = {
            "organization_id": column_of_texts([day.organization_id for day in days]),
            "day": column_of_instants(starts),
            "source": column_of_texts([day.source for day in days]),
        }
        of_days = of_months(statements.WINDOWS_OF_DAYS, starts)
        rows = (await self._connection.execute(of_days, parameters)).all()
        return dict(await self._windows(rows))

    async def windows_between(
        self, organization_id: str, start: datetime, end: datetime
    ) -> list[tuple[WindowKey, WindowCells]]:
        await self._refuse_archived(start, end)
        query = (
            select(usage_windows)
            .where(
                usage_windows.c.organization_id == organization_id,
                usage_windows.c.window_start >= start,
                usage_windows.c.window_start < end,
            )
            .order_by(usage_windows.c.window_start, usage_windows.c.source)
        )
        rows = (await self._connection.execute(query.limit(ROWS_MAX + 1))).all()
        if len(rows) > ROWS_MAX:
            raise TooManyWindows(f"more than {ROWS_MAX:,} windows; ask for a shorter span")
        return await self._windows(rows)

    async def windows_after(
        self, organization_id: str, after: WindowKey | None, *, limit: int
    ) -> list[tuple[WindowKey, WindowCells]]:
        query = select(usage_windows).where(usage_windows.c.organization_id == organization_id)
        if after is not None:
            query = query.where(
                usage_windows.c.window_start >= after.start,
                tuple_(usage_windows.c.window_start, usage_windows.c.source) > tuple_(after.start, after.source),
            )
        ordered = query.order_by(usage_windows.c.window_start, usage_windows.c.source).limit(limit)
        return await self._windows((await self._connection.execute(ordered)).all())

    async def save_windows(self, windows: Mapping[WindowKey, WindowCells]) -> None:
        if not windows:
            return
        ordered = sorted(windows.items())
        await self._have_slots(window.cells for _, window in ordered)
        packed = [PackedCells.of(window.cells, self._slots.layout) for _, window in ordered]
        parameters = {
            "organization_id": column_of_texts([key.organization_id for key, _ in ordered]),
            "window_start": column_of_instants([key.start for key, _ in ordered]),
            "source": column_of_texts([key.source for key, _ in ordered]),
            "window_end": column_of_instants([window.window.end for _, window in ordered]),
            "quantities": column_of_texts([array_text(cells.quantities) for cells in packed]),
            "ranks": column_of_texts([ranks_text(cells.ranks) for cells in packed]),
        }
        await self._connection.execute(statements.SAVE_WINDOWS, parameters)

    async def delete_windows(self, keys: Collection[WindowKey]) -> None:
        if keys:
            starts = [key.start for key in keys]
            parameters = {
                "organization_id": column_of_texts([key.organization_id for key in keys]),
                "window_start": column_of_instants(starts),
                "source": column_of_texts([key.source for key in keys]),
            }
            await self._connection.execute(of_months(statements.DELETE_WINDOWS, starts), parameters)

    async def _windows(self, rows: Sequence[Row[Any]]) -> list[tuple[WindowKey, WindowCells]]:
        layout = await self._slots.reaching(max((len(row.quantities) for row in rows), default=0))
        return [
            (
                WindowKey(row.organization_id, row.window_start, row.source),
                WindowCells(
                    window_of(row.window_start, row.window_end),
                    PackedCells(layout, row.quantities, whole_ranks(row.ranks, row.quantities)),
                ),
            )
            for row in rows
        ]

    # -- periods ---------------------------------------------------------------------------------------------------

    async def periods(self, keys: Collection[PeriodKey]) -> dict[PeriodKey, PeriodUsage]:
        if not keys:
            return {}
        asked = list(keys)
        parameters = {
            "organization_id": column_of_texts([key.organization_id for key in asked]),
            "period_start": column_of_instants([key.period.start for key in asked]),
            "period_end": column_of_instants([key.period.end for key in asked]),
            "place": column_of_numbers(range(len(asked))),
        }
        rows = (await self._connection.execute(statements.PERIODS, parameters)).all()
        layout = await self._slots.reaching(max((len(row.complete) for row in rows), default=0))
        return {
            asked[place]: PeriodUsage(
                period=asked[place].period,
                as_of=as_of,
                revision=revision,
                counters=PackedCounters(layout, *whole_period(complete, partial, maximum)),
            )
            for place, as_of, revision, complete, partial, maximum in rows
        }

    async def periods_in_force(self, organization_id: str, *, newest: int | None) -> list[PeriodUsage]:
        held = await self.newest_periods([organization_id], newest=newest or ROWS_MAX)
        return held.get(organization_id, [])

    async def newest_periods(self, organization_ids: Sequence[str], *, newest: int) -> dict[str, list[PeriodUsage]]:
        """The newest periods in force of many organizations at once, oldest first."""
        parameters = {"organization_id": column_of_texts(organization_ids), "newest": newest}
        rows = (await self._connection.execute(statements.NEWEST_PERIODS, parameters)).all()
        found: dict[str, list[PeriodUsage]] = {}
        for key, usage in await self._period_usages(rows):
            found.setdefault(key.organization_id, []).append(usage)
        return found

    async def save_periods(self, periods: Mapping[PeriodKey, PeriodUsage]) -> None:
        if not periods:
            return
        ordered = sorted(periods.items(), key=lambda item: (item[0].organization_id, item[0].period.start))
        await self._have_slots(usage.counters for _, usage in ordered)
        packed = [PackedCounters.of(usage.counters, self._slots.layout) for _, usage in ordered]
        parameters = {
            "organization_id": column_of_texts([key.organization_id for key, _ in ordered]),
            "period_start": column_of_instants([key.period.start for key, _ in ordered]),
            "period_end": column_of_instants([key.period.end for key, _ in ordered]),
            "as_of": column_of_texts([usage.as_of.isoformat() for _, usage in ordered]),
            "revision": column_of_numbers([usage.revision for _, usage in ordered]),
            "complete": column_of_texts([array_text(counters.complete) for counters in packed]),
            "partial": column_of_texts([partial_text(counters.partial) for counters in packed]),
            "maximum": column_of_texts(
                [maximum_text(counters.complete, counters.partial, counters.maximum) for counters in packed]
            ),
        }
        await self._connection.execute(statements.SAVE_PERIODS, parameters)

    async def retire_periods_except(self, organization_id: str, in_force: Collection[PeriodKey]) -> int:
        kept = {key.period for key in in_force}
        rows = await self._connection.execute(
            select(period_usage.c.period_start, period_usage.c.period_end)
            .where(period_usage.c.organization_id == organization_id, period_usage.c.is_in_force)
            .limit(ROWS_MAX)
        )
        leaving = [row for row in rows if BillingPeriod(row.period_start, row.period_end) not in kept]
        for row in leaving:
            await self._connection.execute(
                update(period_usage)
                .where(
                    period_usage.c.organization_id == organization_id,
                    period_usage.c.period_start == row.period_start,
                    period_usage.c.period_end == row.period_end,
                )
                .values(is_in_force=False)
            )
        return len(leaving)

    async def _period_usages(self, rows: Sequence[Row[Any]]) -> list[tuple[PeriodKey, PeriodUsage]]:
        layout = await self._slots.reaching(max((len(row.complete) for row in rows), default=0))
        return [
            (
                PeriodKey(row.organization_id, _period(row.period_start, row.period_end)),
                PeriodUsage(
                    period=_period(row.period_start, row.period_end),
                    as_of=row.as_of,
                    revision=row.revision,
                    counters=PackedCounters(layout, *whole_period(row.complete, row.partial, row.maximum)),
                ),
            )
            for row in rows
        ]

    # -- counters ----------------------------------------------------------------------------------------------------

    async def counter_layout(self, counters: Collection[str]) -> CounterLayout:
        return await self._slots.ensure(counters)

    async def _have_slots(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Rows packed in this transaction have their slots; rows put together otherwise may name new counters."""
        await self._slots.ensure(
            {counter for row in rows if not isinstance(row, PackedCells | PackedCounters) for counter in row}
        )

    # -- publication -----------------------------------------------------------------------------------------------

    async def lock_due_for_publication(self, *, limit: int) -> dict[str, Published]:
        """Organizations that nobody has promised to publish, locked until they are."""
        return await self._published(
            select(*(organizations.c[name] for name in _PUBLISHED))
            .where(organizations.c.is_publication_due)
            .order_by(organizations.c.organization_id)
            .limit(limit)
            .with_for_update()
        )

    async def publication_done(self, organization_ids: Collection[str]) -> None:
        await self._connection.execute(
            update(organizations)
            .where(organizations.c.organization_id == func.any(sorted(organization_ids)))
            .values(is_publication_due=False)
        )

    async def make_publication_due(self, organization_ids: Collection[str]) -> None:
        """Have their present state published again."""
        await self._connection.execute(
            update(organizations)
            .where(organizations.c.organization_id == func.any(sorted(organization_ids)))
            .values(is_publication_due=True)
        )

    async def share_lock_revisions(self, organization_ids: Collection[str]) -> dict[str, Published]:
        """Read revisions and hold writers off until the end of the transaction."""
        parameters = {"organization_id": column_of_texts(sorted(organization_ids))}
        rows = await self._connection.execute(statements.SHARE_LOCK_REVISIONS, parameters)
        return {name: Published(*published) for name, *published in rows}

    async def _published(self, query: Select[Any]) -> dict[str, Published]:
        rows = await self._connection.execute(query)
        return {name: Published(*published) for name, *published in rows}

    async def packed_newest_periods(self, organization_ids: Sequence[str], *, newest: int) -> list[StoredPeriod]:
        """The newest periods in force, oldest first, for publishing without unpacking them."""
        parameters = {"organization_id": column_of_texts(organization_ids), "newest": newest}
        rows = await self._connection.execute(statements.NEWEST_PERIODS, parameters)
        return [
            StoredPeriod(name, start, end, as_of, *whole_period(complete, partial, maximum))
            for name, start, end, as_of, _revision, complete, partial, maximum in rows
        ]

    async def slots_of(self, counters: Collection[str]) -> dict[str, int]:
        """Where these counters stand in packed rows; those without a place were never reported."""
        return await self._slots.places(counters)

    async def event_usage(self, meters: MeterMap, organization_ids: Collection[str], *, since: datetime) -> EventUsage:
        """What meters that events feed, or that are counted anew, used since then; asks nothing when none can be."""
        return await event_usage(self._connection, meters, organization_ids, since=since)

    async def carried_values(self, meters: MeterMap, organization_ids: Collection[str]) -> CarriedValues:
        """With which values carried gauges begin their periods."""
        return await CarriedValues.read(self._connection, meters, organization_ids)


@functools.lru_cache(maxsize=4_096)
def _period(start: datetime, end: datetime) -> BillingPeriod:
    return BillingPeriod(start, end)


def _organization(row: Row[Any]) -> Organization:
    return Organization(
        organization_id=row.organization_id,
        license_id=row.license_id,
        customer_revision=row.customer_revision,
        schedule=schedule_of(row.schedule_anchor, row.schedule_interval),
        ended_schedules=ended_schedules_of(row.ended_schedules),
        cuts=tuple(row.cuts),
        customer=facts_from_json(row.customer),
        usage_revision=row.usage_revision,
    )

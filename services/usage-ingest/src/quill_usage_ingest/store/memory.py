"""Usage in memory: the same behaviour as Postgres, for unit tests and simulation."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta

from quill_usage_ingest.domain.archived_month import refuse_archived
from quill_usage_ingest.domain.counter_layout import CounterLayout
from quill_usage_ingest.domain.cut_usage import CutKey, CutUsage
from quill_usage_ingest.domain.meters import MeteredProduct
from quill_usage_ingest.domain.organization import Organization, UsageStanding
from quill_usage_ingest.domain.period_usage import PeriodUsage
from quill_usage_ingest.domain.usage_book import PeriodKey, Verdict
from quill_usage_ingest.domain.usage_cells import WindowCells
from quill_usage_ingest.domain.usage_month import month_of
from quill_usage_ingest.domain.usage_report import DayKey, ReportName, WindowKey
from quill_usage_ingest.ports import ArrivedReport, KeptClaim, KeptReport, TooManyCounters


@dataclass(slots=True)
class MemoryUsage:
    """`UsageTransaction` on dictionaries. One task at a time; `begin` undoes everything when its block fails."""

    counters_max: int = 512
    held_organizations: dict[str, Organization] = field(default_factory=dict)
    held_windows: dict[WindowKey, WindowCells] = field(default_factory=dict)
    held_periods: dict[PeriodKey, PeriodUsage] = field(default_factory=dict)
    retired: set[PeriodKey] = field(default_factory=set)
    due: set[str] = field(default_factory=set)
    claims: dict[int, KeptClaim] = field(default_factory=dict)
    reports: list[tuple[KeptReport, ReportName, bytes]] = field(default_factory=list)
    products: dict[str, MeteredProduct] = field(default_factory=dict)
    layout: CounterLayout = field(default_factory=CounterLayout)
    further_licenses: dict[str, frozenset[str]] = field(default_factory=dict)
    months_out_of_reach: frozenset[datetime] = frozenset()
    held_sources: dict[str, frozenset[str]] = field(default_factory=dict)
    late: set[PeriodKey] = field(default_factory=set)
    held_cuts: dict[CutKey, CutUsage] = field(default_factory=dict)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator["MemoryUsage"]:
        """A transaction: nothing of the block stays when it raises."""
        before = {held.name: copy(getattr(self, held.name)) for held in fields(self)}
        try:
            yield self
        except BaseException:
            for name, content in before.items():
                setattr(self, name, content)
            raise

    async def lock_organizations(self, organization_ids: Collection[str]) -> dict[str, Organization]:
        return {key: self.held_organizations[key] for key in sorted(organization_ids) if key in self.held_organizations}

    async def lock_standings(self, organization_ids: Collection[str]) -> dict[str, UsageStanding]:
        locked = await self.lock_organizations(organization_ids)
        return {
            key: UsageStanding(held.schedules, held.usage_revision, self.held_sources.get(key, frozenset()), held.cuts)
            for key, held in locked.items()
        }

    async def add_sources(self, sources: Mapping[str, Collection[str]]) -> None:
        for organization_id, added in sources.items():
            self.held_sources[organization_id] = await self.sources_of(organization_id) | set(added)

    async def sources_of(self, organization_id: str) -> frozenset[str]:
        return self.held_sources.get(organization_id, frozenset())

    async def organization(self, organization_id: str) -> Organization | None:
        return self.held_organizations.get(organization_id)

    async def organizations_after(self, organization_id: str, *, limit: int) -> list[str]:
        return sorted(key for key in self.held_organizations if key > organization_id)[:limit]

    async def save_customer(self, organization: Organization) -> None:
        known = self.held_organizations.get(organization.organization_id)
        revision = known.usage_revision if known else 0
        self.held_organizations[organization.organization_id] = replace(organization, usage_revision=revision)

    async def archived_months(self) -> frozenset[datetime]:
        return self.months_out_of_reach

    async def windows_of_days(self, days: Collection[DayKey]) -> dict[WindowKey, WindowCells]:
        return {
            key: held
            for key, held in self.held_windows.items()
            if DayKey(key.organization_id, held.window.day, key.source) in days
        }

    async def windows_between(
        self, organization_id: str, start: datetime, end: datetime
    ) -> list[tuple[WindowKey, WindowCells]]:
        refuse_archived(self.months_out_of_reach, start, end)
        return [(key, held) for key, held in self._windows_of(organization_id) if start <= key.start < end]

    async def windows_after(
        self, organization_id: str, after: WindowKey | None, *, limit: int
    ) -> list[tuple[WindowKey, WindowCells]]:
        return [
            (key, held)
            for key, held in self._windows_of(organization_id)
            if month_of(key.start) not in self.months_out_of_reach and (after is None or key > after)
        ][:limit]

    def _windows_of(self, organization_id: str) -> list[tuple[WindowKey, WindowCells]]:
        of_organization = [item for item in self.held_windows.items() if item[0].organization_id == organization_id]
        return sorted(of_organization, key=lambda item: item[0])

    async def periods(self, keys: Collection[PeriodKey]) -> dict[PeriodKey, PeriodUsage]:
        return {key: self.held_periods[key] for key in keys if key in self.held_periods}

    async def periods_in_force(self, organization_id: str, *, newest: int | None) -> list[PeriodUsage]:
        found = sorted(
            (
                usage
                for key, usage in self.held_periods.items()
                if key.organization_id == organization_id and key not in self.retired
            ),
            key=lambda usage: usage.period.start,
        )
        return found if newest is None else found[-newest:]

    async def known_contents(self, names: Collection[ReportName]) -> dict[ReportName, set[bytes]]:
        known: dict[ReportName, set[bytes]] = {}
        for _, name, content_hash in self.reports:
            if name in names:
                known.setdefault(name, set()).add(content_hash)
        return known

    async def save_windows(self, windows: Mapping[WindowKey, WindowCells]) -> None:
        await self.counter_layout({counter for held in windows.values() for counter in held.cells})
        self.held_windows |= windows

    async def counter_layout(self, counters: Collection[str]) -> CounterLayout:
        new = self.layout.missing(counters)
        free = self.counters_max - len(self.layout)
        if len(new) > free:
            raise TooManyCounters(new[max(0, free)], self.counters_max)
        self.layout = self.layout.extended(new)
        return self.layout

    async def delete_windows(self, keys: Collection[WindowKey]) -> None:
        self.held_windows = {key: held for key, held in self.held_windows.items() if key not in set(keys)}

    async def save_periods(self, periods: Mapping[PeriodKey, PeriodUsage]) -> None:
        self.held_periods |= periods
        self.retired -= periods.keys()

    async def retire_periods_except(self, organization_id: str, in_force: Collection[PeriodKey]) -> int:
        leaving = {
            key
            for key in self.held_periods
            if key.organization_id == organization_id and key not in in_force and key not in self.retired
        }
        self.retired |= leaving
        return len(leaving)

    async def mark_late_usage(self, keys: Collection[PeriodKey]) -> None:
        self.late |= set(keys)
        self.due |= {key.organization_id for key in keys}

    async def cuts(self, keys: Collection[CutKey]) -> dict[CutKey, CutUsage]:
        return {key: self.held_cuts[key] for key in keys if key in self.held_cuts}

    async def save_cuts(self, cuts: Mapping[CutKey, CutUsage]) -> None:
        self.held_cuts |= cuts

    async def save_revisions(self, revisions: Mapping[str, int], *, is_publication_due: bool) -> None:
        for organization_id, revision in revisions.items():
            known = self.held_organizations[organization_id]
            self.held_organizations[organization_id] = replace(known, usage_revision=revision)
            if is_publication_due:
                self.due.add(organization_id)

    async def keep_reports(self, reports: Sequence[tuple[ArrivedReport, Verdict]], *, now: datetime) -> None:
        for item, verdict in reports:
            report, arrival = item.report, item.arrival
            if any((name, content) == (report.name, report.content_hash) for _, name, content in self.reports):
                continue
            kept = KeptReport(
                id=len(self.reports) + 1,
                report_id=report.report_id,
                source=report.source,
                window_start=report.window.start,
                window_end=report.window.end,
                completeness=report.completeness.value,
                as_of=report.as_of,
                received_at=now,
                intake=arrival.intake,
                topic=arrival.topic,
                partition=arrival.partition,
                offset=arrival.offset,
                verdict=verdict.value,
                correction_actor=report.correction.actor if report.correction else None,
                correction_reason=report.correction.reason if report.correction else None,
                note=arrival.note,
            )
            self.reports.append((kept, report.name, report.content_hash))
            self.claims[kept.id] = KeptClaim(kept, report, arrival.body)

    async def kept_reports(
        self, organization_id: str, *, window_start: datetime | None, after_id: int, limit: int
    ) -> list[KeptReport]:
        if window_start is not None:
            refuse_archived(self.months_out_of_reach, window_start, window_start + timedelta(microseconds=1))
        return [
            kept
            for kept, name, _ in self.reports
            if name.organization_id == organization_id
            and name.month not in self.months_out_of_reach
            and kept.id > after_id
            and window_start in (None, kept.window_start)
        ][:limit]

    async def kept_reports_of_ids(self, organization_id: str, kept_ids: Collection[int]) -> dict[int, KeptReport]:
        found = await self.kept_reports(organization_id, window_start=None, after_id=0, limit=len(self.reports))
        return {kept.id: kept for kept in found if kept.id in kept_ids}

    async def kept_claims(
        self, organization_id: str, start: datetime, end: datetime, *, source: str | None = None
    ) -> list[KeptClaim]:
        refuse_archived(self.months_out_of_reach, start, end)
        return [
            claim
            for _, claim in sorted(self.claims.items())
            if claim.report.organization_id == organization_id
            and start <= claim.report.window.start < end
            and source in (None, claim.report.source)
        ]

    async def kept_claims_after(
        self, organization_id: str, start: datetime, end: datetime, *, after_id: int, limit: int
    ) -> list[KeptClaim]:
        claims = await self.kept_claims(organization_id, start, end)
        return [claim for claim in claims if claim.kept.id > after_id][:limit]

    async def set_verdict(self, kept_ids: Collection[int], verdict: Verdict) -> None:
        for kept_id in kept_ids:
            claim = self.claims[kept_id]
            self.claims[kept_id] = replace(claim, kept=replace(claim.kept, verdict=verdict.value))
        self.reports = [(self.claims[kept.id].kept, name, content) for kept, name, content in self.reports]

    async def has_organization(self, license_id: str) -> bool:
        return any(each.license_id == license_id for each in self.held_organizations.values())

    async def accounts_of_further_license(self, license_id: str) -> list[str]:
        return sorted(key for key, held in self.further_licenses.items() if license_id in held)

    async def save_further_licenses(self, organization_id: str, license_ids: Collection[str]) -> None:
        self.further_licenses[organization_id] = frozenset(license_ids)

    async def metered_products(self) -> list[MeteredProduct]:
        return [self.products[key] for key in sorted(self.products)]

    async def save_metered_products(self, products: Collection[MeteredProduct]) -> None:
        self.products |= {product.product_key: product for product in products}

    async def raise_all_revisions(self) -> int:
        counted = {key: held for key, held in self.held_organizations.items() if held.usage_revision > 0}
        await self.save_revisions(
            {key: held.usage_revision + 1 for key, held in counted.items()}, is_publication_due=True
        )
        return len(counted)

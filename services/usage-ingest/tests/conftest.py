"""Builders of claims and customers, as fixtures."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from quill_pricing.period import BillingSchedule, Interval
from quill_pricing.schedule_history import ScheduleChange
from quill_usage_ingest.domain.completeness import Completeness
from quill_usage_ingest.domain.organization import CustomerFacts, Organization
from quill_usage_ingest.domain.usage_report import Correction, UsageReport, UsageWindow
from quill_usage_ingest.ports import Arrival, ArrivedReport

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)


@pytest.fixture
def claim() -> Callable[..., UsageReport]:
    """``claim(day=5, at=1, events=100)``: 100 events on 5 October, counted one hour into the day after."""

    def build(
        organization_id: str = "acme",
        *,
        day: int = 1,
        at: float = 0,
        source: str = "us",
        complete: bool = True,
        report_id: str | None = None,
        hours: tuple[int, int] = (0, 24),
        correction: bool = False,
        **counters: int,
    ) -> UsageReport:
        start = OCTOBER + timedelta(days=day - 1)
        content = repr((organization_id, day, at, source, complete, hours, correction, sorted(counters.items())))
        return UsageReport(
            report_id=report_id or hashlib.sha256(content.encode()).hexdigest(),
            organization_id=organization_id,
            source=source,
            window=UsageWindow(start + timedelta(hours=hours[0]), start + timedelta(hours=hours[1])),
            completeness=Completeness.COMPLETE if complete else Completeness.PARTIAL,
            as_of=start + timedelta(days=1, hours=at),
            counters=counters,
            content_hash=hashlib.sha256(content.encode()).digest(),
            correction=Correction("ada@example.org", "counted twice") if correction else None,
        )

    return build


@pytest.fixture
def arrived(claim: Callable[..., UsageReport]) -> Callable[..., ArrivedReport]:
    """A claim as it came from Kafka."""

    def build(organization_id: str = "acme", **given) -> ArrivedReport:
        report = claim(organization_id, **given)
        body = msgspec.json.encode({"counters": report.counters})
        return ArrivedReport(report, Arrival("kafka", body, "usage.reports.v1", 0, 1))

    return build


@pytest.fixture
def organization() -> Callable[..., Organization]:
    """``organization(revision=2, anchor=…)``: a customer billed by the month, who agreed to it on its anchor."""

    def build(
        organization_id: str = "acme",
        *,
        revision: int = 1,
        anchor: datetime = OCTOBER,
        interval: str = "month",
        license_id: str = "license-1",
        quotas: dict[str, int | None] | None = None,
        agreed: datetime | None = None,
    ) -> Organization:
        schedule = BillingSchedule(anchor, Interval.parse(interval))
        begins = ScheduleChange(schedule, schedule.period_containing(agreed).start, agreed) if agreed else None
        return Organization(
            organization_id=organization_id,
            license_id=license_id,
            customer_revision=revision,
            schedule=schedule,
            begins=begins,
            customer=CustomerFacts(
                customer_id=f"customer-of-{organization_id}", license_type="cloud", quotas=quotas or {}
            ),
        )

    return build

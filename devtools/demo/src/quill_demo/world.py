"""Everything the demo knows: who takes part, when, with which licenses, and what must come out."""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from quill_contracts.catalog_file import CatalogDocument, load_catalog
from quill_regions.misbehaviour import Delivery, Faults, deliveries
from quill_regions.organizations import QUEUE_REGION, REGIONS, Organization, draw_organizations
from quill_regions.queue_region import QueuePlan, plan_queues
from quill_regions.truth import Expected, expectations, month_totals

MONTH_START = datetime(2026, 10, 1, tzinfo=UTC)
MONTH_END = datetime(2026, 11, 1, tzinfo=UTC)
DAYS_MAX = 30
"""The month's last day is for what comes late, so that its limits can be looked at before the next period begins."""
SILENT_DAY = 12
SETTLE_HOURS = 12
"""Everything late has arrived this long after the last day that is played."""
LATECOMERS = 3


@dataclass(slots=True)
class World:
    """One month of several hundred organizations."""

    seed: int
    organizations: tuple[Organization, ...]
    days: list[date]
    catalog: CatalogDocument
    deliveries: list[Delivery]
    queues: QueuePlan
    expected: dict[str, Expected]
    license_keys: dict[str, str] = field(default_factory=dict)
    """Source → license key, filled as the licenses are issued."""

    @property
    def start(self) -> datetime:
        return MONTH_START

    @property
    def end(self) -> datetime:
        """The midnight after the last day that anybody uses anything."""
        return MONTH_START + timedelta(days=len(self.days))

    @property
    def period_end(self) -> datetime:
        """The end of everybody's billing period, also when fewer days are played."""
        return MONTH_END

    @property
    def instances(self) -> list[Organization]:
        return [organization for organization in self.organizations if organization.self_hosted]

    @property
    def subscribers(self) -> list[Organization]:
        return [organization for organization in self.organizations if organization.plan != "free"]

    def latecomers(self) -> list[Organization]:
        """Organizations whose first report reaches billing before billing has ever heard of them."""
        first = {
            d.report.organization_id for d in self.deliveries if d.report.window_start == self.start and d.at < self.end
        }
        noon = {
            d.report.organization_id
            for d in self.deliveries
            if d.report.window_start == self.start and d.report.completeness == "partial"
        }
        return [o for o in self.organizations if o.organization_id in first & noon and o.plan == "free"][:LATECOMERS]


def make_world(*, seed: int, organizations: int, days: int, misbehave: bool) -> World:
    """Draw everybody, live through the month, and work out the truth."""
    drawn = draw_organizations(seed=seed, count=organizations)
    dates = [MONTH_START.date() + timedelta(days=n) for n in range(days)]
    catalog = load_catalog()
    faults = Faults(silent=(REGIONS[1], dates[min(SILENT_DAY, days - 1)])) if misbehave else Faults.none()
    end = MONTH_START + timedelta(days=days)
    deadline = end + timedelta(hours=SETTLE_HOURS)
    elsewhere = [organization for organization in drawn if organization.source != QUEUE_REGION]
    sent = deliveries(elsewhere, dates, seed=seed, faults=faults, deadline=deadline)
    queues = plan_queues(drawn, dates, seed=seed, misbehave=misbehave, deadline=deadline)
    totals = month_totals(drawn, dates, seed=seed, catalog=catalog)
    first_day = month_totals(drawn, dates[:1], seed=seed, catalog=catalog)
    expected = expectations(drawn, totals, catalog=catalog, unpaid=first_day)
    return World(seed, drawn, dates, catalog, sent, queues, expected)

"""Invented customers and what their regions report: the same for everybody who runs this, from no seed at all."""

from datetime import UTC, datetime, timedelta
from typing import Final

from quill_contracts.catalog_file import CatalogDocument, ProductDocument, load_catalog
from quill_contracts.subscriptions import (
    CatalogProduct,
    CustomerSnapshot,
    Project,
    Schedule,
    ServicePeriod,
    SubscriptionItem,
)
from quill_contracts.topics import CATALOG, CUSTOMERS, PERIOD_USAGE
from quill_contracts.usage import MeterUsage, PeriodUsage, PeriodUsageSnapshot, UsageReport
from quill_runtime.publisher import Outgoing

LICENSE_ID: Final = "bench"
SOURCE: Final = "US"
ANCHOR: Final = datetime(2025, 1, 1, tzinfo=UTC)
DAY: Final = timedelta(days=1)
COUNTERS_PER_REPORT: Final = 25
COUNTERS_OF_A_REAL_REPORT: Final = 150
"""About what PostHog counts of an organization (wire contract 5)."""
TEAMS_PER_REPORT: Final = 3
COUNTERS_PER_TEAM: Final = 12
GROWING: Final = 3
"""Every third counter of a re-sent day has grown."""


def organization_id(number: int) -> str:
    """An id as long as a real one."""
    return f"0190b5a0-0000-7000-8000-{number:012d}"


def counter_names(catalog: CatalogDocument, count: int = COUNTERS_PER_REPORT) -> list[str]:
    """The catalog's counters first; the others are stored but feed no meter, as most of PostHog's do."""
    metered = [product.counter for product in catalog.products if product.counter is not None]
    others = [f"extra_{number:03d}_count_in_period" for number in range(count - len(metered))]
    return metered + others


def catalog_messages(catalog: CatalogDocument) -> list[Outgoing]:
    """What subscriptions publishes when the example catalog comes into force."""
    return [
        Outgoing(
            CATALOG.name,
            product.key,
            CatalogProduct(
                product_key=product.key,
                revision=1,
                effective_at=catalog.effective_at,
                name=product.name,
                unit=product.unit,
                usage_key=product.usage_key,
                counter=product.counter,
                price_id=product.price_id,
                price=product.price,
                allowance=product.allowance,
            ).to_bytes(),
        )
        for product in catalog.products
    ]


def customer_message(number: int, catalog: CatalogDocument, *, period: ServicePeriod) -> Outgoing:
    """A customer without a subscription: free allowances are the quotas."""
    name = organization_id(number)
    snapshot = CustomerSnapshot(
        organization_id=name,
        organization_name=f"Organization {number}",
        customer_id=f"cus_bench{number}",
        revision=1,
        effective_at=ANCHOR,
        license_id=LICENSE_ID,
        license_type="cloud",
        schedule=Schedule(anchor=ANCHOR, interval="month"),
        period=period,
        has_active_subscription=False,
        items=[_item(product) for product in catalog.products if product.usage_key is not None],
        projects=[Project(team_id=str(number), api_token=f"phc_bench{number:08d}")],
    )
    return Outgoing(CUSTOMERS.name, name, snapshot.to_bytes())


def usage_message(number: int, catalog: CatalogDocument, *, period: ServicePeriod, now: datetime) -> Outgoing:
    """Period usage of one organization; every tenth is over its allowances."""
    meters = {
        product.usage_key: _used(product.allowance * 2 if number % 10 == 0 else product.allowance // 2)
        for product in catalog.products
        if product.usage_key is not None
    }
    usage = PeriodUsage(period_start=period.start, period_end=period.end, as_of=now, meters=meters)
    snapshot = PeriodUsageSnapshot(organization_id=organization_id(number), revision=1, periods=[usage])
    return Outgoing(PERIOD_USAGE.name, snapshot.organization_id, snapshot.to_bytes())


def month_of(now: datetime) -> ServicePeriod:
    """The calendar month around an instant, which is the billing period under ``ANCHOR``."""
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return ServicePeriod(start=start, end=(start + 31 * DAY).replace(day=1))


class Regions:
    """Reports of whole days, and the totals that must come out of them."""

    def __init__(self, *, organizations: int, first_day: datetime, counters: int = COUNTERS_PER_REPORT) -> None:
        self.organizations = organizations
        self.catalog = load_catalog()
        self.names = counter_names(self.catalog, counters)
        self.totals = dict.fromkeys(self.names, 0)
        """Sum over all organizations and days of the largest claim made so far."""
        self.windows = 0
        self._first_day = first_day
        self._days = 0

    def next_day(self) -> list[UsageReport]:
        """One report of every organization for a day nobody has reported yet."""
        start = self._first_day + self._days * DAY
        self._days += 1
        self.windows += self.organizations
        reports = [self._report(number, start) for number in range(self.organizations)]
        for report in reports:
            for name, quantity in report.counters.items():
                self.totals[name] += quantity
        return reports

    def grown(self, report: UsageReport) -> UsageReport:
        """The same day reported again a little later: a third of the counters are higher."""
        counters = {
            name: quantity + (position % GROWING == 0)
            for position, (name, quantity) in enumerate(report.counters.items())
        }
        for name, quantity in counters.items():
            self.totals[name] += quantity - report.counters[name]
        return report.model_copy(
            update={
                "report_id": f"{report.report_id}-later",
                "as_of": report.as_of + timedelta(hours=1),
                "counters": counters,
            }
        )

    def _report(self, number: int, start: datetime) -> UsageReport:
        base = 1 + (number * 7_919 + self._days * 104_729) % 900_000
        counters = {name: base + position for position, name in enumerate(self.names)}
        team = dict(list(counters.items())[-(len(counters) * COUNTERS_PER_TEAM // COUNTERS_PER_REPORT) :])
        # Built without validation: the service validates, which is what is being measured.
        return UsageReport.model_construct(
            report_id=f"{SOURCE}-{start:%Y%m%d}-{number}",
            source=SOURCE,
            organization_id=organization_id(number),
            window_start=start,
            window_end=start + DAY,
            completeness="complete",
            as_of=start + DAY,
            counters=counters,
            teams={str(number * TEAMS_PER_REPORT + team_number): team for team_number in range(TEAMS_PER_REPORT)},
            correction=None,
            license_id=None,
        )


def _item(product: ProductDocument) -> SubscriptionItem:
    return SubscriptionItem(
        product_key=product.key,
        usage_key=product.usage_key,
        counter=product.counter,
        price_id=product.price_id,
        price=product.price,
        subscribed=False,
        allowance=product.allowance,
        quota=product.allowance,
    )


def _used(quantity: int) -> MeterUsage:
    return MeterUsage(complete=quantity, partial=0, maximum=quantity)

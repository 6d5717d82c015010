"""Read how fresh an organization's usage is."""

from collections.abc import Collection, Sequence
from datetime import datetime

from quill_pricing.period import BillingPeriod

from quill_usage_ingest.domain.freshness import Freshness, freshness_of
from quill_usage_ingest.ports import SourceViews, UsageTransaction


async def read_freshness(
    organization_id: str,
    periods: Sequence[BillingPeriod],
    *,
    license_sources: Collection[str],
    usage: UsageTransaction,
    sources: SourceViews,
    at: datetime | None = None,
) -> list[Freshness]:
    """The freshness of each period, now or as it was known at an instant.

    The sources of an organization are those that ever reported for it and those its licenses report under: one that
    was silent for a whole period is named all the same.
    """
    names = await usage.sources_of(organization_id) | set(license_sources)
    known = await sources.sources(names) if at is None else await sources.sources_as_of(names, at)
    parked = await sources.parked_groups(organization_id, names, at=at)
    return [freshness_of(period, names, known=known, parked=parked) for period in periods]

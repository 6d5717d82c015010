"""Sources that report for an organization for the first time."""

from collections.abc import Iterable, Mapping

from quill_usage_ingest.domain.organization import UsageStanding
from quill_usage_ingest.domain.usage_source import is_source_name


def new_sources(named: Iterable[tuple[str, str]], standings: Mapping[str, UsageStanding]) -> dict[str, set[str]]:
    """By organization, of these pairs of organization and source: a write once per pair, not per report."""
    new: dict[str, set[str]] = {}
    for organization_id, source in named:
        if source not in standings[organization_id].sources and is_source_name(source):
            new.setdefault(organization_id, set()).add(source)
    return new

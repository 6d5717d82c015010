"""A day in the shape of PostHog's daily usage report (wire contract 5), as a self-hosted instance posts it."""

from datetime import timedelta
from typing import Any

from quill_regions.days import Day


def usage_report(day: Day) -> dict[str, Any]:
    """The body of ``POST /api/usage``."""
    organization = day.organization
    last = day.end - timedelta(microseconds=1)
    return {
        "date": day.date.isoformat(),
        "period": {"start_inclusive": day.start.isoformat(), "end_inclusive": last.isoformat()},
        "organization_id": organization.organization_id,
        "organization_name": organization.name,
        "organization_created_at": "2026-01-15T09:30:00+00:00",
        "organization_user_count": 7,
        "team_count": len(day.teams),
        "has_non_zero_usage": any(day.totals.values()),
        "deployment_infrastructure": "docker",
        "realm": "hosted-clickhouse",
        "site_url": f"https://{organization.source}.example.test",
        "product": "open source",
        "instance_tag": "none",
        "helm": {},
        "clickhouse_version": "25.8",
        "users_who_logged_in_count": 3,
        "plugins_installed": {},
        "plugins_enabled": {},
        "dashboard_count": 12,
        "ff_count": 5,
        "dwh_total_storage_in_s3_in_mib": 12.5,
        **day.totals,
        "teams": day.teams,
    }

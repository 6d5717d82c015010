"""Which counter answers which usage type of PostHog's usage query (wire contract 1.3): data, not code."""

from collections.abc import Mapping
from typing import Final

COUNTER_BY_USAGE_TYPE: Final[Mapping[str, str | None]] = {
    **{
        name: name
        for name in (
            "event_count_in_period",
            "enhanced_persons_event_count_in_period",
            "recording_count_in_period",
            "mobile_recording_count_in_period",
            "billable_feature_flag_requests_count_in_period",
            "exceptions_captured_in_period",
            "survey_responses_count_in_period",
            "ai_event_count_in_period",
            "rows_synced_in_period",
            "free_historical_rows_synced_in_period",
            "cdp_billable_invocations_in_period",
            "rows_exported_in_period",
            "ai_credits_used_in_period",
            "signals_credits_used_in_period",
            "posthog_code_credits_used_in_period",
            "replay_vision_credits_used_in_period",
            "workflow_emails_sent_in_period",
            "workflow_billable_invocations_in_period",
            "logs_mb_in_period",
            "logs_retention_30d_mb_in_period",
            "posthog_code_token_credits_used_in_period",
            "sandbox_compute_credits_used_in_period",
            "sandbox_compute_cpu_millicore_seconds_in_period",
            "sandbox_compute_memory_mib_seconds_in_period",
        )
    },
    "group_analytics": "event_count_with_groups_in_period",
    "data_pipelines": None,
}
"""A type without a counter is known and answers zeros: no report counts it."""

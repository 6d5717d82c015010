"""Where the log of a limit is kept in the event store."""

from quill_runtime.event_store import Append

from quill_quota_limiter.domain.evaluation import Evaluation
from quill_quota_limiter.domain.limit_state import LogEntry
from quill_quota_limiter.wire.limit_log import to_event


def stream_of(organization_id: str, usage_key: str, scope: str | None = None) -> str:
    """The event stream of one limit; a team's id may hold anything, so it comes last."""
    if scope is None:
        return f"limit/{organization_id}/{usage_key}"
    return f"limit-of-scope/{organization_id}/{usage_key}/{scope}"


def appends_of(evaluation: Evaluation) -> list[Append]:
    """What an evaluation adds to the logs; of one limit one entry at most."""
    entries: list[LogEntry] = [*evaluation.transitions, *evaluation.reason_changes]
    return [
        Append(
            stream=stream_of(entry.organization_id, entry.usage_key, entry.scope),
            expected_version=evaluation.limits.limit_of(entry.usage_key, entry.scope).log_length - 1,
            events=[to_event(entry)],
        )
        for entry in entries
    ]

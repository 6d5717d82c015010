"""The log of a limit in the event store: transitions, and changes of reason that move no state."""

from typing import Any, Final

from quill_contracts.identifiers import Instant, OrganizationId, UsageKey
from quill_contracts.limits import LimitEvidence, LimitStateName, LimitTransition, ScopeId
from quill_contracts.message import WireModel
from quill_runtime.event_store import NewEvent, StoredEvent

from quill_quota_limiter import wire
from quill_quota_limiter.domain.limit_state import LogEntry, ReasonChange, Transition

TRANSITION: Final = "limit_changed"
REASON: Final = "reason_changed"
ACTOR: Final = "quota-limiter"


class LimitReasonChange(WireModel):
    """Another rule decides about a limit, and its state stays as it is. In the history only, on no topic."""

    organization_id: OrganizationId
    usage_key: UsageKey
    sequence: int
    """Transitions so far."""
    number: int
    """Changes of reason so far, this one included."""
    state: LimitStateName
    at: Instant
    from_rule: str
    rule: str
    rule_version: int
    sentence: str
    evidence: LimitEvidence
    scope: ScopeId | None = None


def to_wire_reason(change: ReasonChange) -> LimitReasonChange:
    """A change of reason as it is shown and stored."""
    return LimitReasonChange(
        organization_id=change.organization_id,
        usage_key=change.usage_key,
        sequence=change.sequence,
        number=change.number,
        state=change.state,
        at=change.at,
        from_rule=change.from_rule,
        rule=change.rule,
        rule_version=change.rule_version,
        sentence=change.sentence,
        evidence=wire.to_wire_evidence(change.evidence),
        scope=change.scope,
    )


def to_event(entry: LogEntry) -> NewEvent:
    """The stored form of a transition is its message, so the log reads the same inside and outside."""
    is_transition = isinstance(entry, Transition)
    document = wire.to_wire_transition(entry) if isinstance(entry, Transition) else to_wire_reason(entry)
    data: dict[str, Any] = document.model_dump(mode="json")
    return NewEvent(type=TRANSITION if is_transition else REASON, data=data, actor=ACTOR, occurred_at=entry.at)


def from_event(event: StoredEvent) -> LogEntry:
    """The entry that a stored event holds."""
    if event.type == TRANSITION:
        return wire.from_wire_transition(LimitTransition.model_validate(event.data))
    message = LimitReasonChange.model_validate(event.data)
    return ReasonChange(**message.model_dump(exclude={"evidence"}), evidence=wire.from_wire_evidence(message.evidence))

"""Rule tables as documents: what operators write, what is stored, and what is refused by field."""

from datetime import datetime
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from quill_contracts.identifiers import QUANTITY_MAX, UsageKey

from quill_quota_limiter.domain.rule_table import TRUST_SCORES, ResourceRules, RuleTable
from quill_quota_limiter.domain.rulebook import RulesStanding, RuleVersion

GRACE_DAYS_MAX: Final = 366
RESOURCES_MAX: Final = 1_000

Actor = Annotated[str, Field(min_length=1, max_length=200)]
Reason = Annotated[str, Field(min_length=1, max_length=1_000)]
GraceDays = Annotated[int, Field(ge=0, le=GRACE_DAYS_MAX)]
GraceByTrust = dict[int, GraceDays]


class ResourceDocument(BaseModel):
    """What is peculiar about one meter; see `ResourceRules`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    buffer: Annotated[int, Field(ge=0, le=QUANTITY_MAX)] = 0
    minimum_grace_days: GraceDays = 0
    is_exempt: bool = False
    is_paid_by_credits: bool = False
    grace_days_by_trust: GraceByTrust | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.grace_days_by_trust is not None:
            _check_grace(self.grace_days_by_trust)
            if self.is_exempt:
                raise ValueError("grace_days_by_trust: an exempt meter gets no grace by trust; leave one of them out")
        return self


class RuleDocument(BaseModel):
    """A whole rule table; see `RuleTable`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    near_percent: Annotated[int, Field(ge=1, le=100)]
    grace_days_by_trust: GraceByTrust
    resources: Annotated[dict[UsageKey, ResourceDocument], Field(max_length=RESOURCES_MAX)]

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        _check_grace(self.grace_days_by_trust)
        return self


class RulesAsked(BaseModel):
    """A new rule version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    document: RuleDocument
    actor: Actor
    reason: Reason


class RuleCommand(BaseModel):
    """Who starts, stops or activates a version, and why (L20)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    actor: Actor
    reason: Reason


class UnreadableRules(ValueError):
    """A stored rule document cannot be read; the text names the field."""


def to_document(document: RuleDocument) -> dict[str, object]:
    """The stored form: what differs from plain, so that equal tables are equal documents."""
    return document.model_dump(mode="json", exclude_defaults=True)


def to_table(version: int, document: object) -> RuleTable:
    """The table a stored document means.

    Raises:
        UnreadableRules: naming version and field.
    """
    try:
        read = RuleDocument.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        field = "__".join(map(str, first["loc"])) or "document"
        raise UnreadableRules(f"rule version {version}: {field}: {first['msg']}") from error
    return RuleTable(
        version=version,
        near_percent=read.near_percent,
        grace_days_by_trust=read.grace_days_by_trust,
        resources={
            usage_key: ResourceRules(
                buffer=each.buffer,
                minimum_grace_days=each.minimum_grace_days,
                is_exempt=each.is_exempt,
                is_paid_by_credits=each.is_paid_by_credits,
                grace_days_by_trust=each.grace_days_by_trust,
            )
            for usage_key, each in read.resources.items()
        },
    )


def to_wire_version(version: RuleVersion, standing: RulesStanding) -> dict[str, Any]:
    """A version for people, with what it does now."""
    return {
        "version": version.version,
        "status": _status(version.version, standing),
        "created_at": _instant(version.created_at),
        "created_by": version.created_by,
        "reason": version.reason,
        "document": version.document,
    }


def to_wire_standing(standing: RulesStanding) -> dict[str, Any]:
    """Where the rules stand; ``walked_to`` is set while organizations are still being decided anew."""
    return {
        "in_force": standing.in_force,
        "shadow": standing.shadow,
        "shadow_since": None if standing.shadow_since is None else _instant(standing.shadow_since),
        "is_settled": standing.walked_to is None,
        "walked_to": standing.walked_to,
    }


def _status(version: int, standing: RulesStanding) -> str:
    if version == standing.in_force:
        return "in_force"
    if version == standing.shadow:
        return "shadow"
    return "retired" if version in standing.retired else "added"


def _check_grace(days: GraceByTrust) -> None:
    if sorted(days) != sorted(TRUST_SCORES):
        scores = ", ".join(map(str, TRUST_SCORES))
        raise ValueError(f"grace_days_by_trust: give days for exactly the trust scores {scores}")
    given = [days[score] for score in TRUST_SCORES]
    if given != sorted(given):
        raise ValueError("grace_days_by_trust: more trust must never give less grace")


def _instant(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")


FIRST_RULES: Final[dict[str, object]] = {
    "near_percent": 80,
    "grace_days_by_trust": {"0": 0, "3": 0, "7": 1, "10": 3, "15": 5},
    "resources": {
        "ai_credits": {"is_exempt": True},
        "api_queries_read_bytes": {},
        "cdp_trigger_events": {},
        "events": {},
        "exceptions": {},
        "feature_flag_requests": {"minimum_grace_days": 2},
        "llm_events": {},
        "logs_mb_ingested": {},
        "posthog_code_credits": {"is_exempt": True},
        "recordings": {"buffer": 1_000},
        "replay_vision_credits": {},
        "rows_exported": {},
        "rows_synced": {},
        "signals_credits": {"is_exempt": True},
        "survey_responses": {},
        "workflow_destinations_dispatched": {},
        "workflow_emails": {},
    },
}
"""Version 1, as the first migration of rules seeds it: PostHog's numbers (wire contract 4)."""

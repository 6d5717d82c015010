"""Which project tokens are limited on which meter until when: the shape PostHog's own consumers read."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from quill_quota_limiter.domain.evaluation import OrganizationLimits
from quill_quota_limiter.domain.limit_state import LimitState
from quill_quota_limiter.domain.organization_scopes import OrganizationScopes


@dataclass(frozen=True, slots=True)
class ProjectTokens:
    """API tokens that carry an organization's marks, and tokens it once had, whose marks must go.

    ``teams``: the team of each active token that is known to have one.
    """

    active: tuple[str, ...] = ()
    retired: tuple[str, ...] = ()
    teams: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProjectMarks:
    """When limits and graces end, in epoch seconds, by meter.

    Attributes:
        limited: meters on which the organization is limited: every project is.
        suspended: meters whose grace runs.
        token_limited: meters on which a scope is limited, and the tokens of its teams.
        tokens_revision: of the organization's tokens.
    """

    limited: Mapping[str, int]
    suspended: Mapping[str, int]
    tokens_revision: int
    token_limited: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def digest(self) -> str:
        """Equal for equal marks on the same tokens, so that marks are written only when they change."""
        content: tuple[object, ...] = (
            self.tokens_revision,
            sorted(self.limited.items()),
            sorted(self.suspended.items()),
        )
        if self.token_limited:
            content = (*content, sorted((key, sorted(ends.items())) for key, ends in self.token_limited.items()))
        return hashlib.blake2b(repr(content).encode(), digest_size=8).hexdigest()

    def limited_tokens(self, tokens: ProjectTokens) -> dict[str, dict[str, int]]:
        """``token_limited`` on tokens in use, without meters on which every project is limited anyway.

        Tokens are read after the limits were: one that moved to another organization since carries that one's marks.
        """
        active = set(tokens.active)
        return {
            usage_key: found
            for usage_key, ends in self.token_limited.items()
            if usage_key not in self.limited
            and (found := {token: end for token, end in ends.items() if token in active})
        }


def marks_of(limits: OrganizationLimits) -> ProjectMarks:
    """The marks that follow from an organization's limits and its scopes'."""
    states: dict[str, LimitState] = {usage_key: meter.state for usage_key, meter in limits.meters.items()}
    return ProjectMarks(
        limited={key: _epoch_seconds(state.limited_until) for key, state in states.items() if state.limited_until},
        suspended={
            key: _epoch_seconds(state.suspended_until) for key, state in states.items() if state.suspended_until
        },
        tokens_revision=limits.tokens_revision,
        token_limited={} if limits.scopes is None else _token_limited(limits.scopes),
    )


def _token_limited(scopes: OrganizationScopes) -> dict[str, dict[str, int]]:
    ends: dict[str, list[tuple[str, int]]] = {}
    for scope, meters in scopes.in_force().items():
        ends[scope] = [
            (usage_key, _epoch_seconds(meter.state.limited_until))
            for usage_key, meter in meters.items()
            if meter.state.limited_until
        ]
    found: dict[str, dict[str, int]] = {}
    for token, team in scopes.tokens.items():
        for scope in scopes.teams.get(team, ()):
            for usage_key, end in ends.get(scope, ()):
                tokens = found.setdefault(usage_key, {})
                tokens[token] = max(end, tokens.get(token, 0))
    return found


def _epoch_seconds(instant: datetime) -> int:
    return int(instant.timestamp())

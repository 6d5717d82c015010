"""Which project tokens are limited on which meter until when: the shape PostHog's own consumers read."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from quill_quota_limiter.domain.evaluation import OrganizationLimits
from quill_quota_limiter.domain.limit_state import LimitState


@dataclass(frozen=True, slots=True)
class ProjectTokens:
    """API tokens that carry an organization's marks, and tokens it once had, whose marks must go."""

    active: tuple[str, ...] = ()
    retired: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProjectMarks:
    """For each meter that is limited or suspended, the epoch second at which that ends; every project shares them."""

    limited: Mapping[str, int]
    suspended: Mapping[str, int]
    tokens_revision: int

    def digest(self) -> str:
        """Equal for equal marks on the same tokens, so that marks are written only when they change."""
        content = (self.tokens_revision, sorted(self.limited.items()), sorted(self.suspended.items()))
        return hashlib.blake2b(repr(content).encode(), digest_size=8).hexdigest()


def marks_of(limits: OrganizationLimits) -> ProjectMarks:
    """The marks that follow from an organization's limits."""
    states: dict[str, LimitState] = {usage_key: meter.state for usage_key, meter in limits.meters.items()}
    return ProjectMarks(
        limited={key: _epoch_seconds(state.limited_until) for key, state in states.items() if state.limited_until},
        suspended={
            key: _epoch_seconds(state.suspended_until) for key, state in states.items() if state.suspended_until
        },
        tokens_revision=limits.tokens_revision,
    )


def _epoch_seconds(instant: datetime) -> int:
    return int(instant.timestamp())

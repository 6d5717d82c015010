"""What the use cases need from a store and from the board that answers quota checks."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from quill_quota_limiter.domain.entitlement import Customer
from quill_quota_limiter.domain.evaluation import Evaluation, OrganizationLimits
from quill_quota_limiter.domain.limit_state import Transition
from quill_quota_limiter.domain.period_usage import OrganizationUsage
from quill_quota_limiter.domain.project_marks import ProjectTokens
from quill_quota_limiter.domain.quota_answer import OrganizationStanding

TokensOf = Callable[[Sequence[str]], Awaitable[Mapping[str, ProjectTokens]]]


class LimitsTransaction(Protocol):
    """One transaction on the limiter's own tables."""

    async def lock_organizations(self, organization_ids: Collection[str]) -> dict[str, OrganizationLimits]:
        """The rows of these organizations, made if missing and held until the end: evaluations take turns."""
        ...

    async def keep_customers(self, customers: Collection[Customer]) -> frozenset[str]:
        """Keep each customer that is newer than what is stored; returns the organizations whose tokens changed.

        A token belongs to the organization that named it last; a token no longer named is remembered as retired.
        """
        ...

    async def keep_usage(self, usages: Collection[OrganizationUsage]) -> None:
        """Keep each organization's usage that is newer than what is stored."""
        ...

    async def customers(self, organization_ids: Collection[str]) -> dict[str, Customer]:
        """What is known of these customers, without their tokens: a decision does not depend on them."""
        ...

    async def usages(self, organization_ids: Collection[str]) -> dict[str, OrganizationUsage]: ...

    async def save(self, evaluations: Sequence[Evaluation]) -> None:
        """Save limits, append transitions to their streams, and announce both, all or nothing."""
        ...

    async def due_organizations(self, now: datetime, *, at_most: int) -> list[str]:
        """Organizations whose next evaluation has come; those another replica holds are left out."""
        ...

    async def schedule_evaluations(self, limits: Collection[OrganizationLimits]) -> None:
        """Set when each organization is evaluated next, unless somebody has evaluated it since."""
        ...

    async def limits(self, organization_ids: Collection[str]) -> dict[str, OrganizationLimits]:
        """What is decided about these organizations, of those that have a row."""
        ...

    async def known_limits_after(self, organization_id: str, *, at_most: int) -> list[OrganizationLimits]:
        """A page of all known organizations by id; start with an empty string."""
        ...

    async def tokens(self, organization_ids: Collection[str]) -> dict[str, ProjectTokens]: ...

    async def token_owners(self, tokens: Collection[str]) -> dict[str, str]:
        """The organization of each token that has one, retired tokens included."""
        ...

    async def transitions(
        self, organization_id: str, usage_key: str, *, as_of: datetime | None = None
    ) -> list[Transition]:
        """One limit's whole log, oldest first; with ``as_of``, what had happened by then, inclusive."""
        ...


class LimitsStore(Protocol):
    """Where transactions come from."""

    def begin(self) -> AbstractAsyncContextManager[LimitsTransaction]: ...


@dataclass(frozen=True, slots=True)
class BoardReading:
    """Standings found on the board. Unless ``is_complete``, an organization missing here may still be known."""

    is_complete: bool
    standings: Mapping[str, OrganizationStanding]


class BoardUnavailable(ConnectionError):
    """The board did not answer in time; ask the store instead."""


class AnswerBoard(Protocol):
    """The fast copy of what is decided. It holds nothing that the store cannot give again (L8).

    Every method raises `BoardUnavailable` when the board does not answer.
    """

    async def read(self, organization_ids: Collection[str]) -> BoardReading: ...

    async def publish(
        self, limits: Sequence[OrganizationLimits], *, tokens_of: TokensOf, rewrite: bool = False
    ) -> None:
        """Put up each organization unless the board has a newer revision (L9).

        ``rewrite`` puts up an equal revision again, marks included; otherwise marks are touched only when they change.
        """
        ...

    async def is_complete(self) -> bool:
        """Whether the board has been filled since it was last emptied."""
        ...

    async def begin_rebuild(self) -> str:
        """A mark that is lost if the board is emptied before `finish_rebuild`."""
        ...

    async def finish_rebuild(self, mark: str) -> bool:
        """Declare the board complete; false when it was emptied, or another rebuild began, since ``mark``."""
        ...

    def organization_pages(self) -> AsyncIterator[list[str]]:
        """All organizations on the board."""
        ...

    def token_pages(self) -> AsyncIterator[list[str]]:
        """All project tokens that carry a mark."""
        ...

    async def remove_organizations(self, organization_ids: Collection[str]) -> None: ...

    async def remove_tokens(self, tokens: Collection[str]) -> None: ...

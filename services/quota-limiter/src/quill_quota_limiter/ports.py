"""What the use cases need from a store and from the board that answers quota checks."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, Protocol

from quill_runtime.event_store import NewEvent, StoredEvent

from quill_quota_limiter.domain.credit_balance import CreditBalance
from quill_quota_limiter.domain.drop_report import DropReport, DropTotals
from quill_quota_limiter.domain.entitlement import Customer
from quill_quota_limiter.domain.evaluation import Evaluation, OrganizationLimits
from quill_quota_limiter.domain.limit_state import LogEntry
from quill_quota_limiter.domain.period_usage import OrganizationUsage
from quill_quota_limiter.domain.project_marks import ProjectTokens
from quill_quota_limiter.domain.quota_answer import OrganizationStanding
from quill_quota_limiter.domain.rule_table import RuleTable
from quill_quota_limiter.domain.rulebook import RulesStanding, RuleVersion
from quill_quota_limiter.domain.shadow import ShadowEvaluation, ShadowLimits
from quill_quota_limiter.domain.team_usage import TeamUsage
from quill_quota_limiter.domain.webhook_delivery import DeliveryOutcome, DeliveryStatus, WebhookDelivery
from quill_quota_limiter.domain.webhook_endpoint import WebhookEndpoint
from quill_quota_limiter.domain.webhook_rooms import Rooms

RULES_STREAM: Final = "limit-rules"
SHADOW_DIFFERENCES_MAX: Final = 100_000
"""Differences kept per shadow run; further ones are counted and left out."""
SHADOW_RUNS_KEPT: Final = 2
WEBHOOK_ENDPOINTS_MAX: Final = 200
"""Endpoints there can be: each transaction that announces something looks at all of them."""

TokensOf = Callable[[Sequence[str]], Awaitable[Mapping[str, ProjectTokens]]]


@dataclass(frozen=True, slots=True)
class ActiveRules:
    """The table that decides, and the one in the shadow with the number of its run."""

    in_force: RuleTable
    shadow: RuleTable | None = None
    shadow_run: int = 0


ShadowPlace = tuple[str, str, int, int]
"""Organization, meter, and the two states' sequences: names a difference within its run, and orders it."""


@dataclass(frozen=True, slots=True)
class ShadowRow:
    """A recorded difference; ``ended_at`` is when the tables agreed again, or differed otherwise."""

    place: ShadowPlace
    version: int
    at: datetime
    ended_at: datetime | None
    live: Mapping[str, Any]
    shadow: Mapping[str, Any]
    evidence: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ShadowTally:
    """A shadow run in numbers; ``groups``: meter, state in force, shadow state, how many now, how many ever."""

    organizations: int
    groups: tuple[tuple[str, str, str, int, int], ...]
    is_full: bool


class Rulebook(Protocol):
    """Rule versions, where they stand, and what the shadow run found, inside a transaction."""

    async def active(self) -> ActiveRules:
        """The tables to decide with. Read after the organizations are locked: then no walk can overtake a decision."""
        ...

    async def standing(self) -> RulesStanding: ...

    async def lock_standing(self, *, wait: bool = True) -> RulesStanding | None:
        """Where the rules stand, held until the end; without ``wait``, ``None`` while somebody else holds it."""
        ...

    async def save_standing(self, standing: RulesStanding) -> None: ...

    async def versions(self) -> list[RuleVersion]:
        """Every version, oldest first, at most 1,000."""
        ...

    async def add(self, version: RuleVersion) -> None: ...

    async def record(self, event: NewEvent) -> None:
        """Append to the rules' own stream (L20); the standing must be locked."""
        ...

    async def events(self) -> list[StoredEvent]: ...

    async def shadow_limits(self, organization_ids: Collection[str], *, run: int) -> dict[str, ShadowLimits]: ...

    async def save_shadow(self, evaluations: Sequence[ShadowEvaluation], *, now: datetime) -> None:
        """Keep shadow states; record each difference once, and that differences which hold no more have ended."""
        ...

    async def shadow_tally(self, run: int) -> ShadowTally: ...

    async def shadow_page(self, run: int, *, after: ShadowPlace | None, at_most: int) -> list[ShadowRow]:
        """A page of a run's differences by place."""
        ...

    async def forget_shadow_runs(self, newest: int) -> None:
        """Remove differences of all but the newest two runs."""
        ...


class WebhookBook(Protocol):
    """Endpoints and what is on its way to them, inside a transaction. Deliveries are never made twice by id (L15)."""

    async def endpoints(self) -> list[WebhookEndpoint]:
        """All of them, oldest first; at most `WEBHOOK_ENDPOINTS_MAX`."""
        ...

    async def find_endpoint(self, endpoint_id: str, *, lock: bool = False) -> WebhookEndpoint | None:
        """One endpoint; with ``lock`` nobody else changes it until the end."""
        ...

    async def save_endpoint(self, endpoint: WebhookEndpoint) -> None:
        """Add it or replace it."""
        ...

    async def remove_endpoint(self, endpoint_id: str) -> None: ...

    async def plan(self, deliveries: Sequence[WebhookDelivery]) -> int:
        """Write deliveries down unless their ids are there; returns how many were new."""
        ...

    async def lease(self, now: datetime, *, until: datetime, rooms: Rooms) -> list[WebhookDelivery]:
        """Take due deliveries of enabled endpoints, oldest first; what another replica holds is left out."""
        ...

    async def settle(self, delivery: WebhookDelivery, *, lease: datetime) -> bool:
        """Save what became of a leased delivery; false when the lease was lost, and then nothing is changed."""
        ...

    async def replace(self, deliveries: Sequence[WebhookDelivery]) -> None:
        """Save deliveries that were found ``failed`` and locked."""
        ...

    async def deliveries(
        self,
        *,
        status: DeliveryStatus | None = None,
        endpoint_id: str | None = None,
        delivery_id: str | None = None,
        lock: bool = False,
        at_most: int,
    ) -> list[WebhookDelivery]:
        """Deliveries, newest first."""
        ...

    async def pending_count(self) -> int:
        """Deliveries on their way; counted no further than 100,000."""
        ...

    async def give_up(self, now: datetime, *, endpoint_id: str | None, error: str) -> int:
        """Fail pending ones: of one endpoint, or everybody's whose time is over; at most 1,000, returns how many."""
        ...

    async def forget(self, before: datetime) -> int:
        """Remove deliveries finished before; at most 1,000, returns how many."""
        ...


class WebhookSender(Protocol):
    """Sends over HTTP, once, to an address that was checked in the very call."""

    async def check(self, url: str) -> None:
        """Refuse a URL that nothing would be sent to.

        Raises:
            RefusedUrl: naming what is wrong.
        """
        ...

    async def send(self, url: str, *, headers: Mapping[str, str], body: bytes) -> DeliveryOutcome:
        """Try once; whatever goes wrong is an outcome, never an exception."""
        ...


class LimitsTransaction(Protocol):
    """One transaction on the limiter's own tables."""

    @property
    def rulebook(self) -> Rulebook: ...

    @property
    def webhooks(self) -> WebhookBook: ...

    async def lock_organizations(self, organization_ids: Collection[str]) -> dict[str, OrganizationLimits]:
        """The rows of these organizations, made if missing and held until the end: evaluations take turns."""
        ...

    async def keep_customers(self, customers: Collection[Customer]) -> frozenset[str]:
        """Keep each customer that is newer than what is stored; returns the organizations whose tokens changed.

        A token belongs to the organization that named it last; a token no longer named is remembered as retired. One
        that another team has now has changed.
        """
        ...

    async def keep_usage(self, usages: Collection[OrganizationUsage]) -> dict[str, OrganizationUsage]:
        """Keep each organization's usage that is newer than what is stored; returns the newest there is of each.

        The organizations are locked.
        """
        ...

    async def keep_team_usage(self, usages: Collection[TeamUsage]) -> None:
        """Keep each team's usage that is newer than what is stored."""
        ...

    async def team_usages(self, organization_id: str) -> dict[str, TeamUsage]:
        """What is known of each team of an organization."""
        ...

    async def keep_credits(self, balances: Collection[CreditBalance]) -> None:
        """Keep each organization's credit balance that is newer than what is stored."""
        ...

    async def credits(self, organization_ids: Collection[str]) -> dict[str, CreditBalance]: ...

    async def customers(self, organization_ids: Collection[str]) -> dict[str, Customer]:
        """What is known of these customers, without tokens and prices: a decision does not depend on them."""
        ...

    async def prices(self, organization_id: str) -> Mapping[str, Mapping[str, object]]:
        """The price document of each meter of one customer."""
        ...

    async def prices_of(self, organization_ids: Collection[str]) -> dict[str, Mapping[str, Mapping[str, object]]]:
        """The same for several customers, in one read."""
        ...

    async def usages(self, organization_ids: Collection[str]) -> dict[str, OrganizationUsage]: ...

    async def save(self, evaluations: Sequence[Evaluation]) -> None:
        """Save limits, append to their logs, announce states and transitions, plan webhooks: all or nothing.

        A change of reason is appended, and told by the rule of the limit's state; it is no transition for anybody.
        A threshold is announced unless its ``reached_id`` was announced before.
        """
        ...

    async def record(self, stream: str, event: NewEvent) -> None:
        """Append what a person changed (L20); the organization or endpoint must be locked."""
        ...

    async def recorded(self, stream: str) -> list[StoredEvent]:
        """What was appended to a stream, oldest first."""
        ...

    async def forget_reached(self, before: datetime) -> int:
        """Forget thresholds told in billing periods that ended before; at most 1,000 at once, returns how many."""
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

    async def known_among(self, organization_ids: Collection[str]) -> frozenset[str]:
        """Those of these organizations whose customer is known."""
        ...

    async def known_limits_after(self, organization_id: str, *, at_most: int) -> list[OrganizationLimits]:
        """A page of all known organizations by id; start with an empty string."""
        ...

    async def tokens(self, organization_ids: Collection[str]) -> dict[str, ProjectTokens]: ...

    async def token_owners(self, tokens: Collection[str]) -> dict[str, str]:
        """The organization of each token that has one, retired tokens included."""
        ...

    async def active_token_owners(self, tokens: Collection[str]) -> dict[str, str]:
        """The organization of each token that is in use."""
        ...

    async def log(
        self, organization_id: str, usage_key: str, *, scope: str | None = None, as_of: datetime | None = None
    ) -> list[LogEntry]:
        """One limit's whole log, oldest first; with ``as_of``, what had happened by then, inclusive.

        ``scope`` names a team's or project's limit; ``None`` is the organization's own.
        """
        ...

    async def log_page(
        self,
        organization_id: str,
        usage_key: str,
        *,
        scope: str | None = None,
        after: int,
        start: datetime | None,
        end: datetime | None,
        at_most: int,
    ) -> list[tuple[int, LogEntry]]:
        """A page of one limit's log with each entry's place in it, from 1, behind ``after``.

        Only what happened in ``[start, end)``.
        """
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


AnswerSource = Literal["mirror", "redis", "store"]


@dataclass(frozen=True, slots=True)
class LimitIndex:
    """By meter: which organizations have it, and until when which of them are limited.

    ``scoped``: organizations with limits of teams or projects; of their tokens the index does not say all.
    """

    holders: Mapping[str, set[str]]
    limited: Mapping[str, Mapping[str, datetime]]
    scoped: AbstractSet[str] = frozenset()


class Reading(NamedTuple):
    """What answers are made from, where it was read, and how long ago it was certainly the newest.

    An organization or token that is missing is not known. ``limits`` says the same of all standings, by meter.
    """

    standings: Mapping[str, OrganizationStanding]
    owners: Mapping[str, str]
    source: AnswerSource
    age_ms: int
    limits: LimitIndex | None = None


class AnswersUnavailable(ConnectionError):
    """Neither mirror nor board nor store can say anything: nothing may be allowed by accident."""


class BoardReader(Protocol):
    """The board, read fast. Raises `BoardUnavailable`."""

    async def read(self, organization_ids: Collection[str]) -> BoardReading: ...

    async def token_owners(self, tokens: Collection[str]) -> Mapping[str, str] | None:
        """The organization of each token that is in use; ``None`` while the board is not complete."""
        ...


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

    async def marks(self, tokens: Collection[str]) -> Mapping[tuple[str, str], Mapping[str, int]]:
        """For ("limited" or "suspended", meter), the score of each of these tokens that has one."""
        ...

    async def remove_organizations(self, organization_ids: Collection[str]) -> None: ...

    async def remove_tokens(self, tokens: Collection[str]) -> None: ...


class DropReportStore(Protocol):
    """What capture services let through and dropped, as they report it."""

    async def keep(self, report: DropReport, *, now: datetime) -> Literal["new", "repeat", "conflict"]:
        """Keep a report unless its id was used: by the same content, or by another."""
        ...

    async def totals(self, organization_id: str, *, start: datetime, end: datetime) -> dict[str, DropTotals]:
        """Sums by meter over reports whose window starts in the half-open span."""
        ...

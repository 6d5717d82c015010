"""Compare what is decided with what the board shows, page by page, and put right what differs if asked to (L8)."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from logging import INFO, WARNING
from typing import Final

import structlog
from prometheus_client import Gauge

from quill_quota_limiter.domain.drift import Drift, answer_drift, mark_drifts
from quill_quota_limiter.domain.evaluation import OrganizationLimits
from quill_quota_limiter.domain.project_marks import marks_of
from quill_quota_limiter.domain.quota_answer import standing_of
from quill_quota_limiter.ports import AnswerBoard, LimitsStore
from quill_quota_limiter.usecases.answers import TokensReader, remove_unknown_organizations, remove_unknown_tokens

DRIFT_PAGE: Final = 500
LISTED_MAX: Final = 1_000
SETTLE_SECONDS: Final = 1.0
"""What is decided is put up after its commit; what differs only for that moment is looked at once more."""

DRIFTS = Gauge("quill_limit_drifts", "Differences between Redis and Postgres that the newest comparison found")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DriftReport:
    """What a comparison found: counts by kind of all, and the first thousand by name."""

    organizations: int
    counts: dict[str, int]
    drifts: tuple[Drift, ...]
    is_repaired: bool

    @property
    def is_clean(self) -> bool:
        return not self.counts


async def find_drift(
    *, store: LimitsStore, board: AnswerBoard, repair: bool = False, settle_seconds: float = SETTLE_SECONDS
) -> DriftReport:
    """Compare every answer and every mark. With ``repair`` whatever differs is put up again, or removed.

    Safe beside running consumers: what differs is looked at twice, and a repair overwrites nothing newer (L9).

    Raises:
        BoardUnavailable: Redis did not answer.
    """
    found: list[Drift] = []
    counts: Counter[str] = Counter()
    organizations = 0
    last = ""
    while True:
        async with store.begin() as tx:
            page = await tx.known_limits_after(last, at_most=DRIFT_PAGE)
        if not page:
            break
        drifts, drifted = await _settled(page, store=store, board=board, settle_seconds=settle_seconds)
        if repair and drifted:
            await board.publish(drifted, tokens_of=TokensReader(store), rewrite=True)
        counts.update(drift.kind for drift in drifts)
        found.extend(drifts[: LISTED_MAX - len(found)])
        organizations += len(page)
        last = page[-1].organization_id
    for drift in await _unknown(store=store, board=board):
        counts[drift.kind] += 1
        if len(found) < LISTED_MAX:
            found.append(drift)
    if repair and counts["unknown_organization"]:
        await remove_unknown_organizations(store=store, board=board)
    if repair and counts["foreign_mark"]:
        await remove_unknown_tokens(store=store, board=board)
    DRIFTS.set(counts.total())
    log.log(WARNING if counts else INFO, "answers.compared", organizations=organizations, **counts, repaired=repair)
    return DriftReport(organizations, dict(counts), tuple(found), is_repaired=repair)


async def _settled(
    page: Sequence[OrganizationLimits], *, store: LimitsStore, board: AnswerBoard, settle_seconds: float
) -> tuple[list[Drift], list[OrganizationLimits]]:
    """Differences that are still there at a second look, and whose they are."""
    suspects = [limits for limits, drifts in await _compare(page, store=store, board=board) if drifts]
    if not suspects:
        return [], []
    await asyncio.sleep(settle_seconds)
    async with store.begin() as tx:
        newest = await tx.limits([limits.organization_id for limits in suspects])
    compared = [pair for pair in await _compare(list(newest.values()), store=store, board=board) if pair[1]]
    return [drift for _, drifts in compared for drift in drifts], [limits for limits, _ in compared]


async def _compare(
    page: Sequence[OrganizationLimits], *, store: LimitsStore, board: AnswerBoard
) -> list[tuple[OrganizationLimits, list[Drift]]]:
    names = [limits.organization_id for limits in page]
    shown = (await board.read(names)).standings
    async with store.begin() as tx:
        tokens = await tx.tokens(names)
    marks = await board.marks([token for named in tokens.values() for token in (*named.active, *named.retired)])
    usage_keys = sorted({usage_key for _, usage_key in marks} | {key for limits in page for key in limits.meters})
    compared = []
    for limits in page:
        decided = standing_of(limits)
        assert decided is not None, "only known organizations are compared"
        drift = answer_drift(limits.organization_id, decided, shown.get(limits.organization_id))
        drifts = [drift] if drift is not None else []
        drifts += mark_drifts(
            limits.organization_id, marks_of(limits), tokens[limits.organization_id], marks, usage_keys=usage_keys
        )
        compared.append((limits, drifts))
    return compared


async def _unknown(*, store: LimitsStore, board: AnswerBoard) -> list[Drift]:
    drifts: dict[str, Drift] = {}
    async for names in board.organization_pages():
        async with store.begin() as tx:
            limits = await tx.limits(names)
        for name in names:
            if name not in limits or not limits[name].is_known:
                drifts[name] = Drift("unknown_organization", name, "is on the board, and no customer is known")
    async for tokens in board.token_pages():
        async with store.begin() as tx:
            owners = await tx.token_owners(tokens)
        for token in tokens:
            if token not in owners:
                drifts[token] = Drift("foreign_mark", token, "carries a mark, and no organization ever named it")
    return list(drifts.values())

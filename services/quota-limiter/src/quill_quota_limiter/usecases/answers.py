"""Put up what was decided, put it up again when it was lost, and read it."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from quill_quota_limiter.domain.evaluation import OrganizationLimits
from quill_quota_limiter.domain.project_marks import ProjectTokens
from quill_quota_limiter.ports import AnswerBoard, LimitsStore

REBUILD_PAGE: Final = 500
REBUILD_WRITERS: Final = 3
"""Pages under way at once: one is read, one is put together, one is with the board."""
OTHER_REBUILD_LOOKS: Final = 30
OTHER_REBUILD_SECONDS: Final = 0.1
"""Between looks whether the rebuild that took this one's place has ended; three seconds in all."""

log = structlog.get_logger(__name__)


async def publish_answers(organization_ids: Collection[str], *, store: LimitsStore, board: AnswerBoard) -> None:
    """Put up current answers. Reads after the commit, so repeating it can only bring newer ones."""
    async with store.begin() as tx:
        limits = await tx.limits(organization_ids)
    await put_up([limits[organization_id] for organization_id in sorted(limits)], store=store, board=board)


async def put_up(limits: Sequence[OrganizationLimits], *, store: LimitsStore, board: AnswerBoard) -> None:
    """Put up what was decided and committed; the board refuses what is older than it has."""
    await board.publish([found for found in limits if found.is_known], tokens_of=TokensReader(store))


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What a rebuild did. ``is_complete`` false: the board was emptied meanwhile, and the rebuild must be repeated."""

    organizations: int
    removed_organizations: int
    removed_tokens: int
    is_complete: bool


async def rebuild_answers(*, store: LimitsStore, board: AnswerBoard) -> RebuildReport:
    """Put up every answer from the store and remove what the store does not know (L8).

    Safe beside running consumers: nothing overwrites a newer revision, and what is removed is looked up once more.
    """
    mark = await board.begin_rebuild()
    written = await _put_up_all(store=store, board=board)
    removed_organizations = await remove_unknown_organizations(store=store, board=board)
    removed_tokens = await remove_unknown_tokens(store=store, board=board)
    is_complete = await board.finish_rebuild(mark) or await _is_finished_by_another(board)
    report = RebuildReport(written, removed_organizations, removed_tokens, is_complete)
    log.info("answers.rebuilt", organizations=written, is_complete=report.is_complete)
    return report


async def _is_finished_by_another(board: AnswerBoard) -> bool:
    """Whether a rebuild that began later took this one's place and has ended.

    An operator's and the job's meet when Redis was emptied. Without another one the board was emptied meanwhile.
    """
    for _ in range(OTHER_REBUILD_LOOKS):
        if await board.is_complete():
            return True
        await asyncio.sleep(OTHER_REBUILD_SECONDS)
    return False


async def _put_up_all(*, store: LimitsStore, board: AnswerBoard) -> int:
    """Put up every known organization; returns how many."""
    pages, tokens_of = _KnownPages(store), TokensReader(store)

    async def write() -> int:
        written = 0
        while page := await pages.next():
            await board.publish(page, tokens_of=tokens_of, rewrite=True)
            written += len(page)
        return written

    writers = [asyncio.create_task(write()) for _ in range(REBUILD_WRITERS)]
    try:
        return sum(await asyncio.gather(*writers))
    finally:
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)


class _KnownPages:
    """All known organizations in pages, each handed to whoever asks next; empty when there are no more."""

    def __init__(self, store: LimitsStore) -> None:
        self._store = store
        self._last = ""
        self._reading = asyncio.Lock()

    async def next(self) -> list[OrganizationLimits]:
        async with self._reading, self._store.begin() as tx:
            page = await tx.known_limits_after(self._last, at_most=REBUILD_PAGE)
            if page:
                self._last = page[-1].organization_id
            return page


async def rebuild_if_lost(*, store: LimitsStore, board: AnswerBoard) -> RebuildReport | None:
    """Rebuild when the board has been emptied, at start-up or under a running service."""
    if await board.is_complete():
        return None
    return await rebuild_answers(store=store, board=board)


@dataclass(frozen=True, slots=True)
class TokensReader:
    """Reads project tokens only for organizations whose marks are about to be written: some have 100,000."""

    store: LimitsStore

    async def __call__(self, organization_ids: Sequence[str]) -> Mapping[str, ProjectTokens]:
        async with self.store.begin() as tx:
            return await tx.tokens(organization_ids)


async def remove_unknown_organizations(*, store: LimitsStore, board: AnswerBoard) -> int:
    """Remove answers of organizations that no customer is known of; returns how many."""
    removed = 0
    async for page in board.organization_pages():
        async with store.begin() as tx:
            known = await tx.known_among(page)
        unknown = [name for name in page if name not in known]
        if unknown:
            await board.remove_organizations(unknown)
            # A customer may have arrived between the look-up and the removal; then its answer goes up again.
            await publish_answers(unknown, store=store, board=board)
            removed += len(unknown)
    return removed


async def remove_unknown_tokens(*, store: LimitsStore, board: AnswerBoard) -> int:
    """Remove marks of tokens that no organization ever named; tokens of known ones were settled with their answers."""
    removed = 0
    async for page in board.token_pages():
        async with store.begin() as tx:
            owners = await tx.token_owners(page)
        unknown = [token for token in page if token not in owners]
        if unknown:
            await board.remove_tokens(unknown)
            async with store.begin() as tx:
                claimed = await tx.token_owners(unknown)
                limits = await tx.limits(set(claimed.values()))
            await board.publish(
                [found for found in limits.values() if found.is_known], tokens_of=TokensReader(store), rewrite=True
            )
            removed += len(unknown)
    return removed

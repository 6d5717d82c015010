"""Reports that wait for their organization to become known, or for their month to come back (L4)."""

from datetime import datetime
from typing import Final

from quill_runtime import dead_letters
from quill_runtime.database import Transaction
from quill_runtime.outbox import Outbox
from sqlalchemy import text

from quill_usage_ingest.domain.usage_book import MONTH_ARCHIVED
from quill_usage_ingest.domain.usage_month import month_name

UNKNOWN_ORGANIZATION: Final = "unknown_organization"
LETTERS_PER_PAGE: Final = 500
PAGES_MAX: Final = 10
"""One transaction replays 5,000 reports at most; the job that looks again soon takes the rest."""


async def replay_parked_reports(
    transaction: Transaction, *, outbox: Outbox, organization_id: str, now: datetime
) -> int:
    """Send an organization's waiting reports to their topic again; returns how many."""
    replayed = 0
    for _ in range(PAGES_MAX):
        letters = await dead_letters.waiting(
            transaction, reason_code=UNKNOWN_ORGANIZATION, subject=organization_id, limit=LETTERS_PER_PAGE
        )
        await dead_letters.replay(transaction, outbox=outbox, letters=letters, now=now)
        replayed += len(letters)
        if len(letters) < LETTERS_PER_PAGE:
            break
    return replayed


async def replay_archived_reports(
    transaction: Transaction, *, outbox: Outbox, month: datetime, after_id: int, now: datetime
) -> tuple[int, int | None]:
    """Send reports to their topic again that were parked because this month was archived, a page at a time.

    Returns:
        How many, and the id to go on after; None at the end.
    """
    letters = await dead_letters.waiting(
        transaction, reason_code=MONTH_ARCHIVED, after_id=after_id, limit=LETTERS_PER_PAGE
    )
    of_month = [letter for letter in letters if letter.detail.startswith(f"window_start: {month_name(month)} ")]
    await dead_letters.replay(transaction, outbox=outbox, letters=of_month, now=now)
    return len(of_month), letters[-1].id if len(letters) == LETTERS_PER_PAGE else None


async def known_among_parked(transaction: Transaction, *, limit: int) -> list[str]:
    """Organizations that parked reports wait for and that are known by now."""
    rows = await transaction.connection.execute(
        text(
            "select distinct d.subject from dead_letters as d"
            " join organizations as o on o.organization_id = d.subject"
            " where d.replayed_at is null and d.reason_code = 'unknown_organization' limit :limit"
        ),
        {"limit": limit},
    )
    return [row.subject for row in rows]

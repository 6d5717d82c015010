"""Reports that wait for their organization to become known (L4)."""

from datetime import datetime
from typing import Final

from quill_runtime import dead_letters
from quill_runtime.database import Transaction
from quill_runtime.outbox import Outbox

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

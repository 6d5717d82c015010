"""Make period maxima again from the kept reports that count, in the order in which they arrived (L3)."""

from collections.abc import Sequence
from typing import Final

from quill_usage_ingest.domain.period_maximum import PeriodMaximum
from quill_usage_ingest.domain.usage_book import PeriodKey, Verdict
from quill_usage_ingest.ports import KeptClaim, UsageTransaction

CLAIMS_PER_PAGE: Final = 2_000
WITHOUT_EFFECT: Final = frozenset({Verdict.VOIDED.value, Verdict.SHADOWED.value})


async def replay(key: PeriodKey, maxima: Sequence[PeriodMaximum], *, tx: UsageTransaction) -> None:
    """Enter every counting report of the period into each of ``maxima``; holds one page of reports at a time.

    Raises:
        MonthArchived: a part of the period is not here.
    """
    after = 0
    while maxima:
        page = await tx.kept_claims_after(
            key.organization_id, key.period.start, key.period.end, after_id=after, limit=CLAIMS_PER_PAGE
        )
        for claim in page:
            if counts(claim):
                for maximum in maxima:
                    maximum.enter(claim.report)
        if len(page) < CLAIMS_PER_PAGE:
            return
        after = page[-1].kept.id


def counts(claim: KeptClaim) -> bool:
    """Whether a kept report has a say: neither voided nor only compared."""
    return claim.kept.verdict not in WITHOUT_EFFECT

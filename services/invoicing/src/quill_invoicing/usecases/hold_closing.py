"""Before a closing: is all usage in? If not, it waits, and it is said for what (L13, L20)."""

from datetime import datetime, timedelta
from typing import Final

import structlog
from quill_pricing.period import BillingPeriod

from quill_invoicing.domain.completeness_gate import ExpectedSources, HeldClosing, SourceStanding, Waiver
from quill_invoicing.domain.period_usage import KnownUsage
from quill_invoicing.domain.terms import TermsHistory
from quill_invoicing.ports import InvoicingTransaction, PersonsChange

USAGE_INGEST: Final = "usage-ingest"
LOOK_AGAIN_AT_USAGE: Final = timedelta(seconds=1)
LOOK_AGAIN: Final = timedelta(minutes=5)
"""A change of a source is looked at when it arrives; this is for what changes without a word, like a license's name."""

log = structlog.get_logger(__name__)


async def keep_standing(standing: SourceStanding, *, tx: InvoicingTransaction, now: datetime) -> None:
    """A source's snapshot arrives: keep the newest, and look again at what waits for it."""
    if await tx.save_standing(standing):
        await tx.look_at_held_again(standing.source, now=now)


async def waivers_to_close_by(
    organization_id: str,
    period: BillingPeriod,
    *,
    expected: ExpectedSources,
    license_id: str | None,
    tx: InvoicingTransaction,
    now: datetime,
) -> tuple[Waiver, ...] | None:
    """The waivers that this closing goes on by, mostly none; None when it has to wait, which is noted."""
    names = await tx.sources_of(organization_id)
    judgement = expected.judge(organization_id, period, names=names, license_id=license_id)
    if not judgement.missing:
        return judgement.waived
    held = HeldClosing(organization_id, period, judgement.missing, since=now)
    if await tx.hold_closing(held, look_again_at=now + LOOK_AGAIN):
        log.warning(
            "close.held",
            organization=organization_id,
            period_start=period.start.isoformat(),
            period_end=period.end.isoformat(),
            missing=list(judgement.missing),
        )
    return None


async def usage_follows_terms(
    organization_id: str,
    period: BillingPeriod,
    usage: KnownUsage,
    *,
    history: TermsHistory,
    tx: InvoicingTransaction,
    now: datetime,
) -> bool:
    """Whether usage is of this very period and says what was used before each cut of the terms (D3).

    Else the closing waits, which is noted. Usage that follows every customer revision of the period has said all it
    ever will, and a period in which nothing was reported has no usage to say it.
    """
    if usage.current is None:
        # A period as another schedule has it may be one that usage has left behind without a word.
        needed, has = history.schedule_revision, usage.followed_revision
        follows = usage.other is None or has >= needed
    else:
        needed, has = history.revision_before(period.end), usage.current.customer_revision
        follows = has >= needed or history.cuts_in(period) <= usage.current.cuts.keys()
    if follows:
        return True
    missing = f"{USAGE_INGEST}:customer-revision-{needed}"
    held = HeldClosing(organization_id, period, (missing,), since=now)
    if await tx.hold_closing(held, look_again_at=now + LOOK_AGAIN_AT_USAGE):
        log.warning("close.waits_for_usage", organization=organization_id, needed=needed, has=has)
    return False


async def record_waivers_used(
    organization_id: str,
    period: BillingPeriod,
    waivers: tuple[Waiver, ...],
    *,
    tx: InvoicingTransaction,
    now: datetime,
) -> None:
    """By whose word the period was closed without a source that had not told everything (L20)."""
    for waiver in waivers:
        await tx.record_change(
            PersonsChange(
                stream=f"closing:{organization_id}:{period.start.isoformat()}",
                type="invoicing.closed-by-waiver",
                actor=waiver.actor,
                occurred_at=now,
                before={"missing": waiver.source},
                after={
                    "waiver_id": waiver.waiver_id,
                    "reason": waiver.reason,
                    "through": waiver.through.isoformat(),
                    "waived_at": waiver.at.isoformat(),
                },
            )
        )

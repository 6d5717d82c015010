"""Count dated counters anew after the catalog named other dates: all organizations, a few per transaction (L2)."""

from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.ports import CounterRecount, MeterRecounts, UsageTransaction
from quill_usage_ingest.usecases.recompute import recompute_organization


async def begin_counter_recount(*, tx: UsageTransaction, recounts: MeterRecounts) -> bool:
    """Start from the first organization if the dates are other ones; in the transaction that changed the catalog."""
    dated = MeterMap.of(await tx.metered_products()).dated.text
    if (await recounts.counter_recount()).dated == dated:
        return False
    await recounts.save_counter_recount(CounterRecount(dated, after=""))
    return True


async def recount_counters(*, tx: UsageTransaction, recounts: MeterRecounts, limit: int) -> int | None:
    """Add up the next organizations' cells, which makes what is missing and drops what no meter counts any more.

    Returns:
        How many changed; None when nothing is left to do.
    """
    await recounts.share_meters()
    recount = await recounts.counter_recount()
    if recount.after is None:
        return None
    organization_ids = await tx.organizations_after(recount.after, limit=limit)
    results = [await recompute_organization(organization_id, tx=tx) for organization_id in organization_ids]
    after = organization_ids[-1] if len(organization_ids) == limit else None
    await recounts.save_counter_recount(CounterRecount(recount.dated, after))
    return sum(1 for result in results if result.repaired)

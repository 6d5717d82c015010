"""Read everything behind a number: the kept claims, when each counted, and what they add up to (L5)."""

from collections.abc import Collection, Mapping
from datetime import datetime

from quill_pricing.period import BillingPeriod

from quill_usage_ingest.domain.dated_counters import UNDATED, DatedCounters, dated_name
from quill_usage_ingest.domain.evidence import Evidence, OutOfCount
from quill_usage_ingest.domain.explained_usage import UsageAsOf, UsageExplanation
from quill_usage_ingest.domain.explanation import explain, known_at, usage_at
from quill_usage_ingest.domain.organization import Organization
from quill_usage_ingest.domain.period_usage import NOTHING_USED, CounterUsage
from quill_usage_ingest.domain.usage_book import PeriodKey, Verdict
from quill_usage_ingest.ports import Corrections, KeptClaim, UsageTransaction


async def explain_usage(
    organization: Organization,
    period: BillingPeriod,
    counter: str,
    *,
    tx: UsageTransaction,
    corrections: Corrections,
    counts_from: datetime | None = None,
) -> UsageExplanation:
    """Explain one counter in one period; windows before ``counts_from`` do not count for its meter."""
    start = max(period.start, counts_from) if counts_from else period.start
    evidence = await read_evidence(organization.organization_id, start, period.end, tx=tx, corrections=corrections)
    stored = await _stored(organization.organization_id, period, tx)
    name = counter if start == period.start else dated_name(counter, start)
    usage = stored.get(name, NOTHING_USED) if start < period.end else NOTHING_USED
    return UsageExplanation(organization, period, explain(counter, evidence), usage, counts_from)


async def usage_as_of(
    organization: Organization,
    period: BillingPeriod,
    at: datetime,
    *,
    counters: Collection[str],
    tx: UsageTransaction,
    corrections: Corrections,
    dated: DatedCounters = UNDATED,
) -> UsageAsOf:
    """What was known of these counters at ``at``: reports that had arrived by then and were not out of count then.

    Counters that count from a date inside the period are told once more from there, under their dated names.
    """
    evidence = await read_evidence(
        organization.organization_id, period.start, period.end, tx=tx, corrections=corrections
    )
    then = {
        counter: usage._replace(maximum=usage_at(explain(counter, evidence), at).maximum)
        for counter, usage in known_at(at, evidence).items()
        if counter in counters
    }
    for counter in then.copy():
        for start in dated.inside(counter, period):
            later = [held for held in evidence if held.report.window.start >= start]
            known = known_at(at, later).get(counter, NOTHING_USED)
            maximum = usage_at(explain(counter, later), at).maximum
            then[dated_name(counter, start)] = known._replace(maximum=maximum)
    return UsageAsOf(organization, period, at, then, await _stored(organization.organization_id, period, tx))


async def read_evidence(
    organization_id: str, start: datetime, end: datetime, *, tx: UsageTransaction, corrections: Corrections
) -> list[Evidence]:
    """Every report ever kept for windows that start in [``start``, ``end``), oldest arrival first."""
    spans: dict[int, list[OutOfCount]] = {}
    entered_by: dict[int, str] = {}
    for correction in await corrections.of_organization(organization_id):
        for kept_id, span in correction.spans_out_of_count().items():
            spans.setdefault(kept_id, []).append(span)
        entered_by |= dict.fromkeys(correction.entered_ids, correction.order.correction_id)
    return [
        _evidence(claim, tuple(spans.get(claim.kept.id, ())), entered_by.get(claim.kept.id))
        for claim in await tx.kept_claims(organization_id, start, end)
    ]


def _evidence(claim: KeptClaim, spans: tuple[OutOfCount, ...], correction_id: str | None) -> Evidence:
    kept = claim.kept
    return Evidence(
        kept_id=kept.id,
        report=claim.report,
        received_at=kept.received_at,
        intake=kept.intake,
        verdict=Verdict(kept.verdict),
        topic=kept.topic,
        partition=kept.partition,
        offset=kept.offset,
        note=kept.note,
        correction_id=correction_id,
        out_of_count=spans,
    )


async def _stored(organization_id: str, period: BillingPeriod, tx: UsageTransaction) -> Mapping[str, CounterUsage]:
    key = PeriodKey(organization_id, period)
    stored = (await tx.periods({key})).get(key)
    return stored.counters if stored else {}

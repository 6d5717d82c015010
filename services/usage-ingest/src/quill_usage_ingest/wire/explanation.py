"""Explanations for people and tools: one sentence, then the evidence (L5)."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from quill_usage_ingest.domain.evidence import Evidence, OutOfCount
from quill_usage_ingest.domain.explained_events import EventExplanation
from quill_usage_ingest.domain.explained_usage import UsageAsOf, UsageExplanation
from quill_usage_ingest.domain.explanation import CellClaim, ExplainedCell, Standing, Step, usage_at
from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.period_usage import NOTHING_USED, CounterUsage
from quill_usage_ingest.domain.usage_cells import as_of_rank, is_complete


def to_wire_explanation(
    explained: UsageExplanation, *, meter: str, at: datetime | None, parked: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The whole explanation of a meter in a period; with ``at`` also what was known then."""
    explanation, period = explained.explanation, explained.period
    reports = {claim.evidence.kept_id: claim.evidence for cell in explanation.cells for claim in cell.claims}
    return {
        "organization_id": explained.organization.organization_id,
        "meter": meter,
        "counter": explanation.counter,
        "counts_from": explained.counts_from.isoformat() if explained.counts_from else None,
        "period_start": period.start.isoformat(),
        "period_end": period.end.isoformat(),
        "at": at.isoformat() if at else None,
        "known_at": to_wire_totals(usage_at(explanation, at)) if at else None,
        "sentence": _sentence(explained, meter=meter, parked=len(parked)),
        "usage": to_wire_totals(explanation.usage),
        "stored": to_wire_totals(explained.stored),
        "is_equal": explained.is_equal,
        "cells": [_cell(cell) for cell in explanation.cells],
        "reports": [_report(reports[kept_id]) for kept_id in sorted(reports)],
        "timeline": [_step(step) for step in explanation.timeline],
        "parked": list(parked),
    }


def to_wire_as_of(answer: UsageAsOf, *, meters: MeterMap, events: Sequence[EventExplanation] = ()) -> dict[str, Any]:
    """Each meter's total as it was known, and as it is known now."""
    found = {}
    for meter in sorted(meters.counter_by_meter):
        counter = meters.counter_in(meter, answer.period)
        if counter is not None and (counter in answer.then or counter in answer.now):
            then, now = answer.then.get(counter, NOTHING_USED), answer.now.get(counter, NOTHING_USED)
            found[meter] = {
                **to_wire_totals(then),
                "now": to_wire_totals(now),
                "moved_since": now.to_date - then.to_date,
            }
    for explained in events:
        then = explained.known_at or NOTHING_USED
        if explained.total is not None:
            found[explained.meter.usage_key] = {
                **to_wire_totals(then),
                "now": to_wire_totals(explained.usage),
                "moved_since": explained.usage.to_date - then.to_date,
            }
    return {
        "organization_id": answer.organization.organization_id,
        "at": answer.at.isoformat(),
        "period_start": answer.period.start.isoformat(),
        "period_end": answer.period.end.isoformat(),
        "meters": found,
    }


def to_wire_totals(usage: CounterUsage) -> dict[str, int]:
    """The four numbers of a counter in a period."""
    return {
        "complete": usage.complete,
        "partial": usage.partial,
        "to_date": usage.to_date,
        "maximum": usage.maximum,
    }


_STANDINGS = {
    Standing.OLDER: "{} behind a later count",
    Standing.PARTIAL: "{} partial behind a complete one",
    Standing.BEHIND_CORRECTION: "{} behind a correction",
    Standing.SMALLER: "{} with a smaller quantity of the same rank",
    Standing.EQUAL: "{} saying the same again",
    Standing.VOIDED: "{} voided",
    Standing.SHADOWED: "{} of a generation that is only compared",
}


def _sentence(explained: UsageExplanation, *, meter: str, parked: int) -> str:
    explanation = explained.explanation
    usage = explanation.usage
    held = [cell for cell in explanation.cells if cell.holder is not None]
    sources = sorted({cell.source for cell in held})
    where = f"from {explained.period.start.date()} to {explained.period.end.date()} (exclusive)"
    if not explanation.cells:
        said = [f"No report names {explanation.counter} {where}, so no {meter} are counted."]
    else:
        made_of = f"{_many(len(held), 'window')} of {_many(len(sources), 'source')} ({', '.join(sources) or 'none'})"
        said = [f"{usage.to_date:,} {meter} {where}: {made_of}; {usage.partial:,} of them on days still counted."]
    if explained.counts_from is not None and explained.counts_from > explained.period.start:
        said.append(f"Windows before {explained.counts_from.isoformat()} do not count for this meter.")
    if usage.maximum != usage.to_date:
        said.append(f"The most ever counted is {usage.maximum:,}.")
    others = [claim.standing for cell in explanation.cells for claim in cell.claims if claim.standing in _STANDINGS]
    if others:
        reasons = [
            text.format(f"{others.count(standing):,}") for standing, text in _STANDINGS.items() if standing in others
        ]
        said.append(f"{_many(len(others), 'claim')} of a window not counted: {', '.join(reasons)}.")
    corrections = {step.correction.correction_id: step.correction for step in explanation.timeline if step.correction}
    said.extend(f"Corrected by {by.actor} ({by.correction_id}): {by.reason}." for _, by in sorted(corrections.items()))
    if parked:
        said.append(f"{_many(parked, 'report')} of this organization cannot be entered and wait as dead letters.")
    if not explained.is_equal:
        said.append(f"The stored total is {explained.stored.to_date:,}: not equal, recompute it and look at the log.")
    return " ".join(said)


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _cell(cell: ExplainedCell) -> dict[str, Any]:
    holder = cell.holder
    return {
        "window_start": cell.window.start.isoformat(),
        "window_end": cell.window.end.isoformat(),
        "source": cell.source,
        "quantity": cell.cell.quantity if holder else None,
        "completeness": ("complete" if is_complete(cell.cell.rank) else "partial") if holder else None,
        "as_of": as_of_rank(cell.cell.rank).isoformat() if holder else None,
        "held_by": holder.evidence.kept_id if holder else None,
        "others": [_claim(claim) for claim in cell.claims if claim.standing is not Standing.HOLDS],
    }


def _claim(claim: CellClaim) -> dict[str, Any]:
    return {
        "report": claim.evidence.kept_id,
        "quantity": claim.cell.quantity,
        "why_not": claim.standing.value,
        "voided_by": _by(claim.voided_by),
    }


def _report(evidence: Evidence) -> dict[str, Any]:
    report = evidence.report
    return {
        "id": evidence.kept_id,
        "report_id": report.report_id,
        "source": report.source,
        "window_start": report.window.start.isoformat(),
        "completeness": report.completeness.value,
        "as_of": report.as_of.isoformat(),
        "received_at": evidence.received_at.isoformat(),
        "intake": evidence.intake,
        "topic": evidence.topic,
        "partition": evidence.partition,
        "offset": evidence.offset,
        "note": evidence.note,
        "verdict": evidence.verdict.value,
        "out_of_count": [_by(span) for span in evidence.out_of_count],
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "at": step.at.isoformat(),
        "kind": step.kind.value,
        "reports": list(step.kept_ids),
        "sources": list(step.sources),
        "before": to_wire_totals(step.before),
        "after": to_wire_totals(step.after),
        "correction": _by(step.correction),
    }


def _by(span: OutOfCount | None) -> dict[str, Any] | None:
    if span is None:
        return None
    return {
        "correction_id": span.correction_id,
        "actor": span.actor,
        "reason": span.reason,
        "since": span.since.isoformat(),
        "until": span.until.isoformat() if span.until else None,
    }

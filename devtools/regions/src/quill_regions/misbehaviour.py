"""How reports reach billing in real life: twice, late, out of order, corrected, or a day after everybody else's."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta

from quill_contracts.usage import Correction, UsageReport

from quill_regions.days import NOON_PERCENT, Day, live_through
from quill_regions.organizations import Organization

REPORT_HOUR = time(3, 45)
"""PostHog's daily run starts at 03:45 UTC on the next day."""
LAST_WORD = timedelta(hours=2)
"""What corrects a report still comes this long after it, however near the deadline is."""
FAR_AWAY = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Faults:
    """How often each thing goes wrong, as shares of reports; ``silent`` names a source and the day it says nothing."""

    partial: float = 0.35
    repeat: float = 0.12
    late: float = 0.05
    resent: float = 0.06
    correction: float = 0.02
    reorder: bool = True
    silent: tuple[str, date] | None = None

    @classmethod
    def none(cls) -> "Faults":
        """A world in which every report arrives once and in time."""
        return cls(partial=0, repeat=0, late=0, resent=0, correction=0, reorder=False)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One report and the instant it is handed to billing."""

    at: datetime
    day: Day
    report: UsageReport


def deliveries(
    organizations: Sequence[Organization],
    days: Sequence[date],
    *,
    seed: int,
    faults: Faults,
    deadline: datetime | None = None,
) -> list[Delivery]:
    """Everything that all sources send for these days, in the order in which it is handed over.

    However it misbehaves, each day's last complete report carries what really happened, so the truth is known without
    looking at the order. Nothing is handed over after ``deadline``: what would be, comes just before it.
    """
    sent: list[Delivery] = []
    for organization in organizations:
        for on in days:
            day = live_through(organization, on, seed=seed)
            randomness = random.Random(f"faults:{seed}:{organization.organization_id}:{on.isoformat()}")
            sent.extend(_deliver(day, randomness, faults, deadline or FAR_AWAY))
    order = random.Random(f"order:{seed}")
    jitter = {id(delivery): order.random() if faults.reorder else 0.0 for delivery in sent}
    return sorted(sent, key=lambda delivery: (delivery.at, jitter[id(delivery)]))


def _deliver(day: Day, randomness: random.Random, faults: Faults, deadline: datetime) -> Iterable[Delivery]:
    source = day.organization.source
    due = datetime.combine(day.date + timedelta(days=1), REPORT_HOUR, day.start.tzinfo)
    silent = faults.silent == (source, day.date)
    if silent:
        due += timedelta(days=1)
    elif randomness.random() < faults.late:
        due += timedelta(days=randomness.choice((2, 3)))
    due = min(due, deadline - LAST_WORD)
    if not day.organization.self_hosted and not silent and randomness.random() < faults.partial:
        noon = day.start + timedelta(hours=12)
        yield _report(day.scaled(NOON_PERCENT), at=noon, as_of=noon, label="noon", complete=False)
    corrected = not day.organization.self_hosted and randomness.random() < faults.correction
    first = day.scaled(130) if corrected else day
    complete = _report(first, at=due, as_of=due, label="final", complete=True)
    yield complete
    if randomness.random() < faults.repeat:
        again = due + timedelta(minutes=randomness.choice((0, 20, 600, 1_500)))
        yield replace(complete, at=min(again, deadline))
    if corrected:
        later = min(due + timedelta(hours=randomness.choice((7, 31))), deadline)
        why = Correction(actor="ops@example.test", reason="events were counted twice by a broken importer")
        yield _report(day, at=later, as_of=later, label="correction", complete=True, correction=why)
    elif randomness.random() < faults.resent:
        later = min(due + timedelta(hours=randomness.choice((6, 30))), deadline)
        yield _report(day, at=later, as_of=later, label="resent", complete=True)


def _report(
    day: Day, *, at: datetime, as_of: datetime, label: str, complete: bool, correction: Correction | None = None
) -> Delivery:
    organization = day.organization
    report = UsageReport(
        report_id=f"{organization.source}:{organization.organization_id}:{day.date.isoformat()}:{label}",
        source=organization.source,
        organization_id=organization.organization_id,
        window_start=day.start,
        window_end=day.end,
        completeness="complete" if complete else "partial",
        as_of=as_of,
        counters=day.totals,
        teams=day.teams,
        correction=correction,
    )
    return Delivery(at, day, report)

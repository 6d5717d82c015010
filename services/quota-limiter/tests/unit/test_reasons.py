"""Why a limit stands as it does: by the facts of now, and with every change of reason in the log (L7)."""

from datetime import UTC, datetime

import pytest
from quill_contracts import topics
from quill_quota_limiter import wire
from quill_quota_limiter.domain.limit_state import BrokenSequence, ReasonChange, replay
from quill_quota_limiter.store.memory import MemoryLimits
from quill_quota_limiter.usecases.evaluate import take_in_customers, take_in_usage
from quill_quota_limiter.usecases.explain import present_reason

NOW = datetime(2026, 10, 10, 12, tzinfo=UTC)
LATER = datetime(2026, 10, 11, tzinfo=UTC)
MILLION = 1_000_000


class Limiter:
    """The store in memory, fed as the consumers feed it."""

    def __init__(self):
        self.store = MemoryLimits()

    async def customer(self, snapshot, now=NOW):
        async with self.store.begin() as tx:
            await take_in_customers([wire.from_wire_customer(snapshot)], tx=tx, now=now)

    async def usage(self, snapshot, now=NOW):
        async with self.store.begin() as tx:
            await take_in_usage([wire.from_wire_usage(snapshot)], tx=tx, now=now)

    async def meter(self):
        async with self.store.begin() as tx:
            return (await tx.limits(["acme"]))["acme"].meters["events"]

    async def log(self):
        async with self.store.begin() as tx:
            return await tx.log("acme", "events")

    async def reason(self, now):
        async with self.store.begin() as tx:
            limits = (await tx.limits(["acme"]))["acme"]
            return await present_reason(limits, "events", scope=None, tx=tx, now=now)


@pytest.fixture
def limiter():
    return Limiter()


async def test_seven_million_events_are_explained_as_seven_million(limiter, customer_snapshot, usage_snapshot):
    """The first decision was taken before any usage, and the state has never changed since."""
    await limiter.customer(customer_snapshot(events=100 * MILLION))
    await limiter.usage(usage_snapshot(revision=1, events=3 * MILLION))
    await limiter.usage(usage_snapshot(revision=2, events=7 * MILLION), LATER)
    reason = await limiter.reason(LATER)
    assert reason.decision.sentence == "events not limited: 7,000,000 of 100,000,000 used, below the quota."
    assert (reason.evidence.usage, reason.evidence.usage_revision) == (7 * MILLION, 2)


async def test_a_change_of_reason_is_history_and_no_transition(limiter, customer_snapshot, usage_snapshot):
    await limiter.customer(customer_snapshot(events=100))
    await limiter.usage(usage_snapshot(revision=1, events=5))
    await limiter.usage(usage_snapshot(revision=2, events=6), LATER)
    await limiter.customer(customer_snapshot(revision=2, events=None), LATER)
    log = await limiter.log()
    assert [(type(entry).__name__, entry.rule) for entry in log] == [
        ("Transition", "no_usage"),
        ("ReasonChange", "under_quota"),
        ("ReasonChange", "no_quota"),
    ]
    assert [(e.sequence, e.number, e.from_rule) for e in log[1:]] == [(1, 1, "no_usage"), (1, 2, "under_quota")]
    meter = await limiter.meter()
    assert replay(log) == meter.state
    assert (meter.rule, meter.reasons, meter.log_length) == ("no_quota", 2, 3)
    sent = [message.topic for message in limiter.store.published]
    assert sent.count(topics.LIMIT_TRANSITIONS.name) == 1
    assert sent.count(topics.LIMIT_STATES.name) == 4


async def test_transitions_stay_numbered_without_gaps_around_reasons(limiter, customer_snapshot, usage_snapshot):
    await limiter.customer(customer_snapshot(events=100))
    await limiter.usage(usage_snapshot(revision=1, events=5))
    await limiter.usage(usage_snapshot(revision=2, events=100))
    await limiter.customer(customer_snapshot(revision=2, events=None))
    log = await limiter.log()
    assert [entry.sequence for entry in log if not isinstance(entry, ReasonChange)] == [1, 2, 3]
    assert replay(log) == (await limiter.meter()).state


async def test_what_only_keeps_up_a_limit_is_no_new_reason(limiter, customer_snapshot, usage_snapshot):
    await limiter.customer(customer_snapshot(events=100))
    await limiter.usage(usage_snapshot(revision=1, events=100))
    await limiter.usage(usage_snapshot(revision=2, events=150), LATER)
    assert [entry.rule for entry in await limiter.log()] == ["no_usage", "no_grace"]
    reason = await limiter.reason(LATER)
    assert reason.decision.sentence.endswith(
        "150 of 100 used; already limited in this billing period, which a better trust score does not undo."
    )


async def test_a_reason_that_belongs_to_another_state_breaks_the_log(limiter, customer_snapshot, usage_snapshot):
    await limiter.customer(customer_snapshot(events=100))
    await limiter.usage(usage_snapshot(revision=1, events=5))
    transition, reason = await limiter.log()
    for wrong in ([reason], [transition, transition, reason]):
        with pytest.raises(BrokenSequence):
            replay(wrong)

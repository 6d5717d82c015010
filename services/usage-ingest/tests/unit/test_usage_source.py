"""A source's life: silence with a moving clock, what people say of it, waivers (L20)."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_usage_ingest.domain.usage_source import (
    CLOCKWORK,
    SILENT_AFTER_HOURS,
    NotBack,
    SourceState,
    UsageSource,
    Waiver,
    WaiverRefused,
)
from quill_usage_ingest.domain.watermark import WatermarkClaim, is_passed
from quill_usage_ingest.store.source_events import event_from, kind_of, state_document

NOON = datetime(2026, 10, 5, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ADA = {"actor": "ada@example.org", "reason": "asked the region"}


def done(source: UsageSource, events) -> UsageSource:
    for event in events:
        source = source.evolved(event)
    return source


def expected(source: UsageSource | None = None, *, now=NOON, **said) -> UsageSource:
    source = source or UsageSource(source="us")
    declared = {"is_expected": True, "silent_after_hours": SILENT_AFTER_HOURS, "is_retired": False, **said}
    return done(source, source.declare(**declared, **ADA, now=now))


def claim(day: int, *, as_of=NOON, start: int | None = None, actor="source:us") -> WatermarkClaim:
    first = datetime(2026, 10, 1, tzinfo=UTC)
    return WatermarkClaim(
        "us",
        first + timedelta(days=day - 1),
        as_of=as_of,
        origin="usage.watermarks.v1",
        actor=actor,
        start=None if start is None else first + timedelta(days=start - 1),
    )


@pytest.mark.parametrize(
    ("heard_hours", "now_hours", "since_hours"),
    [
        (0, 25, None),
        (0, 26, 26),
        (0, 99, 26),
        (None, 25, None),
        (None, 26, 26),
        (10, 35, None),
        (10, 36, 36),
    ],
)
def test_an_expected_source_falls_silent_when_it_is_overdue(heard_hours, now_hours, since_hours):
    source = expected()
    if heard_hours is not None:
        source = done(source, source.hear(NOON + heard_hours * HOUR))
    source = done(source, source.watch(NOON + now_hours * HOUR))
    assert source.silent_since == (None if since_hours is None else NOON + since_hours * HOUR)
    assert source.state is (SourceState.REPORTING if since_hours is None else SourceState.SILENT)


def test_a_silent_source_is_said_to_be_so_once_and_comes_back_when_it_is_heard():
    source = done(expected(), expected().hear(NOON))
    silent = done(source, source.watch(NOON + 26 * HOUR))
    assert silent.watch(NOON + 50 * HOUR) == []
    assert silent.hear(NOON) == [], "that was before it fell silent"
    back = done(silent, silent.hear(NOON + 60 * HOUR))
    assert (back.state, back.heard_at) == (SourceState.REPORTING, NOON + 60 * HOUR)
    assert done(back, back.watch(NOON + 86 * HOUR)).state is SourceState.SILENT


def test_nobody_waits_for_a_source_that_is_not_expected_or_has_retired():
    for source in (UsageSource(source="us"), expected(is_retired=True), expected(expected(), is_expected=False)):
        assert source.watch(NOON + 1_000 * HOUR) == []
        assert not source.is_expected


def test_saying_the_same_again_is_no_event():
    source = expected()
    said = {"is_expected": True, "silent_after_hours": SILENT_AFTER_HOURS, "is_retired": False}
    assert source.declare(**said, actor="bob", reason="again", now=NOON + HOUR) == []


@pytest.mark.parametrize(("hours", "is_silent"), [(26, True), (48, False)])
def test_more_patience_ends_a_silence_that_it_covers(hours, is_silent):
    silent = done(expected(), expected().watch(NOON + 26 * HOUR))
    patient = expected(silent, silent_after_hours=hours, is_retired=False, now=NOON + 27 * HOUR)
    assert (patient.state is SourceState.SILENT) == is_silent


def test_a_watermark_moves_up_only_and_falls_by_a_reset_with_a_reason():
    source = UsageSource(source="us")
    for day in (3, 5, 4):
        source = done(source, source.advance(claim(day), now=NOON))
    assert source.complete.through == claim(5).through
    with pytest.raises(NotBack):
        source.set_back(claim(6).through, **ADA, now=NOON)
    back = done(source, source.set_back(claim(2).through, **ADA, now=NOON + HOUR))
    assert back.complete.through == claim(2).through
    assert back.set_back(claim(2).through, **ADA, now=NOON + 2 * HOUR) == []
    assert back.advance(claim(5), now=NOON + 2 * HOUR) == [], "said before the reset: taken back"
    again = done(back, back.advance(claim(5, as_of=NOON + 2 * HOUR), now=NOON + 3 * HOUR))
    assert again.complete.through == claim(5).through


def waiver(**changed) -> Waiver:
    return Waiver(**{"waiver_id": "w1", "through": NOON, "at": NOON, **ADA, **changed})


def test_a_waiver_is_made_once_and_may_be_taken_back():
    source = done(UsageSource(source="us"), UsageSource(source="us").waive(waiver()))
    assert source.waivers_in_force == (waiver(),)
    assert source.waive(waiver(at=NOON + HOUR)) == []
    with pytest.raises(WaiverRefused) as conflict:
        source.waive(waiver(reason="another"))
    assert conflict.value.code == "waiver_conflict"
    taken = done(source, source.take_back("w1", actor="bob", reason="found the data", now=NOON + HOUR))
    assert (taken.waivers_in_force, taken.waivers[0].taken_back_by) == ((), "bob")
    assert taken.take_back("w1", actor="bob", reason="again", now=NOON + 2 * HOUR) == []
    with pytest.raises(WaiverRefused) as gone:
        taken.waive(waiver())
    assert gone.value.code == "waiver_taken_back"
    with pytest.raises(WaiverRefused) as unknown:
        taken.take_back("w2", actor="bob", reason="?", now=NOON)
    assert unknown.value.code == "unknown_waiver"


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("hear"), st.integers(0, 200)),
        st.tuples(st.just("watch"), st.integers(0, 200)),
        st.tuples(st.just("expect"), st.booleans()),
        st.tuples(st.just("claim"), st.integers(1, 9)),
        st.tuples(st.just("reset"), st.integers(1, 9)),
        st.tuples(st.just("waive"), st.integers(1, 3)),
        st.tuples(st.just("take back"), st.integers(1, 3)),
    ),
    max_size=30,
)


def decided(source: UsageSource, what: str, how: int | bool, *, now: datetime):  # noqa: PLR0911 - one per command
    match what:
        case "hear":
            return source.hear(NOON + how * HOUR)
        case "watch":
            return source.watch(NOON + how * HOUR)
        case "expect":
            return source.declare(is_expected=how, silent_after_hours=26, is_retired=not how, **ADA, now=now)
        case "claim":
            return source.advance(claim(how, as_of=now, start=how - 1), now=now)
        case "reset":
            return source.set_back(claim(how).through, **ADA, now=now)
        case "waive":
            return source.waive(waiver(waiver_id=str(how)))
        case _:
            return source.take_back(str(how), **ADA, now=now)


@given(STEPS)
def test_the_state_is_the_fold_of_its_events_also_through_json(steps):
    live = UsageSource(source="us")
    written = []
    for number, (what, how) in enumerate(steps):
        try:
            events = decided(live, what, how, now=NOON + number * HOUR)
        except (NotBack, WaiverRefused):
            continue
        for event in events:
            type_, actor, _ = kind_of(event, otherwise=CLOCKWORK)
            assert actor
            written.append((type_, msgspec.json.decode(msgspec.json.encode(event))))
        live = done(live, events)
    folded = UsageSource(source="us")
    for type_, document in written:
        folded = folded.evolved(event_from(type_, document))
    assert folded == live
    assert folded.version == len(written)
    restored = msgspec.convert(
        {**msgspec.json.decode(msgspec.json.encode(state_document(live))), "source": "us", "version": live.version},
        UsageSource,
    )
    assert restored == live


FENCES = st.dictionaries(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 2)), st.integers(1, 9), max_size=6)


@given(FENCES, FENCES)
def test_a_fence_is_passed_when_every_partition_is(fence, settled):
    assert is_passed(fence, settled) == all(settled.get(partition, 0) >= end for partition, end in fence.items())
    assert is_passed(fence, fence)
    for partition in fence:
        assert not is_passed(fence, {**fence, partition: fence[partition] - 1})

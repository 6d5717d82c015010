"""What the clock starts: ends of graces and billing periods, and a board that was emptied."""

from datetime import datetime
from functools import partial

from quill_runtime.clock import Clock
from quill_runtime.jobs import PeriodicJob

from quill_quota_limiter.ports import AnswerBoard, LimitsStore
from quill_quota_limiter.usecases.answers import rebuild_if_lost
from quill_quota_limiter.usecases.deliver_webhooks import sweep_deliveries
from quill_quota_limiter.usecases.drift import find_drift
from quill_quota_limiter.usecases.evaluate import evaluate_due, walk_everybody
from quill_quota_limiter.usecases.set_thresholds import forget_old_thresholds

DUE_EVERY_SECONDS = 0.5
LOST_EVERY_SECONDS = 2.0
WALK_EVERY_SECONDS = 1.0
FORGET_EVERY_SECONDS = 3_600.0
COMPARE_EVERY_SECONDS = 3_600.0


def due_evaluations(store: LimitsStore, board: AnswerBoard, clock: Clock) -> PeriodicJob:
    """Decide again what time alone has changed."""
    return PeriodicJob(
        name="evaluate-due",
        every_seconds=DUE_EVERY_SECONDS,
        run=lambda now: evaluate_due(store=store, board=board, now=now),
        clock=clock,
    )


def walk(store: LimitsStore, board: AnswerBoard, clock: Clock) -> PeriodicJob:
    """Decide everybody anew after the rules changed."""
    return PeriodicJob(
        name="walk-everybody",
        every_seconds=WALK_EVERY_SECONDS,
        run=lambda now: walk_everybody(store=store, board=board, now=now),
        clock=clock,
    )


def old_thresholds(store: LimitsStore, clock: Clock) -> PeriodicJob:
    """Forget what was told in billing periods long over."""
    return PeriodicJob(
        name="forget-old-thresholds",
        every_seconds=FORGET_EVERY_SECONDS,
        run=lambda now: forget_old_thresholds(store=store, now=now),
        clock=clock,
    )


def old_deliveries(store: LimitsStore, clock: Clock) -> PeriodicJob:
    """Give up webhooks that waited in vain, and forget finished ones."""
    return PeriodicJob(
        name="sweep-webhook-deliveries",
        every_seconds=FORGET_EVERY_SECONDS,
        run=lambda now: sweep_deliveries(store=store, now=now),
        clock=clock,
    )


def lost_board(store: LimitsStore, board: AnswerBoard, clock: Clock) -> PeriodicJob:
    """Fill the board again when it was emptied, first of all at the start (L8)."""
    rebuild = partial(rebuild_if_lost, store=store, board=board)
    return PeriodicJob(
        name="rebuild-lost-answers", every_seconds=LOST_EVERY_SECONDS, run=lambda _now: rebuild(), clock=clock
    )


def compare(store: LimitsStore, board: AnswerBoard, clock: Clock) -> PeriodicJob:
    """Compare Redis with Postgres each hour and put right what differs; the gauge and the log say that it did."""

    async def run(_now: datetime) -> None:
        if await board.is_complete():
            await find_drift(store=store, board=board, repair=True)

    return PeriodicJob(name="compare-answers", every_seconds=COMPARE_EVERY_SECONDS, run=run, clock=clock)

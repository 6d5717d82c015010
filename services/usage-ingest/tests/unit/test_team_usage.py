"""A team's snapshot: which periods it holds, and when it is another one."""

from datetime import UTC, datetime, timedelta

import pytest
from quill_pricing.period import BillingPeriod, BillingSchedule, Interval
from quill_pricing.schedule_history import ScheduleChange, ScheduleHistory
from quill_usage_ingest.domain.team_usage import (
    TeamMeterUsage,
    TeamName,
    TeamPeriod,
    TeamUsage,
    is_out_of_reach,
    periods_to_count,
)
from quill_usage_ingest.wire.team_snapshots import to_wire_team_usage


def month(number: int) -> BillingPeriod:
    return BillingPeriod(datetime(2026, number, 1, tzinfo=UTC), datetime(2026, number + 1, 1, tzinfo=UTC))


MONTHLY = BillingSchedule(datetime(2026, 1, 1, tzinfo=UTC), Interval.parse("month"))
USED = {"events": TeamMeterUsage(7, 2)}
MORE = {"events": TeamMeterUsage(8, 2)}


@pytest.mark.parametrize(
    ("now", "months"),
    [
        (datetime(2026, 10, 1, tzinfo=UTC), [10, 9]),
        (datetime(2026, 10, 15, tzinfo=UTC), [10, 9]),
        # Windows may begin two days ahead of our clock, so November may have usage on 30 October.
        (datetime(2026, 10, 29, 23, 59, tzinfo=UTC), [10, 9]),
        (datetime(2026, 10, 30, tzinfo=UTC), [11, 10, 9]),
    ],
)
def test_the_open_and_the_previous_period_are_counted(now: datetime, months: list[int]):
    assert periods_to_count(MONTHLY, now) == [month(number) for number in months]


def test_a_cut_period_is_the_previous_one():
    cut = datetime(2026, 10, 10, tzinfo=UTC)
    yearly = BillingSchedule(cut, Interval.parse("year"))
    schedules = ScheduleHistory(MONTHLY).changed(ScheduleChange(yearly, cut, cut))
    assert periods_to_count(schedules, cut + timedelta(days=5)) == [
        BillingPeriod(cut, datetime(2027, 10, 10, tzinfo=UTC)),
        BillingPeriod(datetime(2026, 10, 1, tzinfo=UTC), cut),
    ]


@pytest.mark.parametrize(
    ("sums", "revision", "periods"),
    [
        ({month(10): USED, month(9): {}}, 5, [(month(10), USED)]),
        ({month(10): MORE, month(9): {}}, 6, [(month(10), MORE)]),
        ({month(10): USED, month(9): MORE}, 6, [(month(10), USED), (month(9), MORE)]),
        ({month(11): MORE, month(10): USED, month(9): MORE}, 6, [(month(11), MORE), (month(10), USED)]),
        ({month(11): {}, month(10): {}}, 6, []),
        (
            {month(10): {"events": TeamMeterUsage(0, 0)}, month(9): {}},
            6,
            [(month(10), {"events": TeamMeterUsage(0, 0)})],
        ),
        # A period of which a part is archived stays as it was told; one never told is left out, not told smaller.
        ({month(10): None, month(9): None}, 5, [(month(10), USED)]),
        ({month(11): MORE, month(10): None}, 6, [(month(11), MORE), (month(10), USED)]),
    ],
)
def test_a_snapshot_has_a_new_revision_exactly_when_something_in_it_is_another(sums, revision, periods):
    held = TeamUsage(5, (TeamPeriod(month(10), USED),))
    counted = held.counted_anew(sums)
    assert (counted.revision, [(each.period, each.meters) for each in counted.periods]) == (revision, periods)
    assert counted.counted_anew(sums) is counted


def test_a_team_without_usage_has_no_snapshot():
    assert TeamUsage().counted_anew({month(10): {}, month(9): {}}) == TeamUsage(0, ())


def test_a_period_that_overlaps_an_archived_month_is_out_of_reach():
    period = BillingPeriod(datetime(2026, 9, 15, tzinfo=UTC), datetime(2026, 10, 15, tzinfo=UTC))
    assert is_out_of_reach(period, {datetime(2026, 9, 1, tzinfo=UTC)})
    assert not is_out_of_reach(period, {datetime(2026, 8, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)})


def test_the_message_says_complete_and_partial_days_apart_newest_period_first():
    usage = TeamUsage(3, (TeamPeriod(month(10), USED), TeamPeriod(month(9), MORE)))
    message = to_wire_team_usage(TeamName("acme", "a/b"), usage)
    assert (message.key, message.revision) == ("acme/a/b", 3)
    assert [(each.period_start.month, each.period_end.month) for each in message.periods] == [(10, 11), (9, 10)]
    assert message.periods[0].meters["events"].model_dump() == {"complete": 7, "partial": 2}

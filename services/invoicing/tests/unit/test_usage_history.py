"""Which observations tell of a period that a changed schedule cut (L12, L21)."""

from datetime import UTC, datetime

import pytest
from quill_invoicing.domain.usage_history import Observation, UsageHistory
from quill_pricing.period import BillingPeriod


def october(day):
    return datetime(2026, 10, day, tzinfo=UTC)


NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
CUT = BillingPeriod(october(1), october(15))


@pytest.mark.parametrize(
    ("as_of", "made_of_period_to", "counts"),
    [
        # Made while October was whole: it counts as long as it cannot hold a day after the cut.
        (october(10), NOVEMBER, True),
        (october(15), NOVEMBER, True),
        (october(16), NOVEMBER, False),
        # Made of the cut period itself: however late it was reported.
        (october(10), october(15), True),
        (october(20), october(15), True),
        (NOVEMBER, october(15), True),
        # Written before the end was kept: of the period as it was.
        (october(20), None, True),
        # Made of a shorter one, which was made longer again.
        (october(9), october(8), True),
    ],
)
def test_an_observation_counts_if_it_holds_no_day_of_another_period(as_of, made_of_period_to, counts):
    usage = UsageHistory.of([Observation(1, as_of, {"events": 5}, made_of_period_to)])
    assert bool(usage.telling_of(CUT).of_meter("events")) is counts


def test_what_was_withdrawn_stays_withdrawn_in_a_cut_period():
    usage = UsageHistory.of(
        [Observation(1, october(3), {"events": 90}, NOVEMBER), Observation(2, october(20), {"events": 4}, october(15))],
        corrected_revision=2,
    )
    assert usage.telling_of(CUT).of_meter("events") == ((october(20), 4),)

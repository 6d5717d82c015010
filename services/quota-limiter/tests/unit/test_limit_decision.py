"""The rules of wire contract 4 as a table: one row per rule and edge (L7)."""

from datetime import UTC, datetime

import pytest
from quill_pricing.period import BillingPeriod
from quill_quota_limiter.domain.entitlement import Entitlement
from quill_quota_limiter.domain.limit_decision import Inputs, decide
from quill_quota_limiter.domain.limit_state import LimitState
from quill_quota_limiter.wire.rules import FIRST_RULES, to_table


def october(day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(2026, 10, day, hour, minute, tzinfo=UTC)


SEPTEMBER_28 = datetime(2026, 9, 28, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
PERIOD = BillingPeriod(october(1), NOVEMBER)
RULES = to_table(1, FIRST_RULES)
CREDIT_RULES = to_table(
    2,
    {
        **FIRST_RULES,
        "resources": {
            "ai_credits": {"is_exempt": True, "is_paid_by_credits": True},
            "rows_exported": {"is_paid_by_credits": True},
            "events": {"grace_days_by_trust": {"0": 0, "3": 1, "7": 2, "10": 2, "15": 9}},
        },
    },
)
NOON_10 = october(10, 12)

NOTHING = None
LIMITED = LimitState("limited", since=october(5), sequence=2, limited_until=NOVEMBER)
LIMITED_IN_SEPTEMBER = LimitState("limited", since=SEPTEMBER_28, sequence=2, limited_until=october(1))
LIMITED_BEFORE_THE_PERIOD_MOVED = LimitState("limited", since=SEPTEMBER_28, sequence=2, limited_until=october(20))
SUSPENDED_TO_12 = LimitState("suspended", since=october(9), sequence=2, suspended_until=october(12))
SUSPENDED_TO_11 = LimitState("suspended", since=october(8), sequence=2, suspended_until=october(11))
SUSPENDED_TO_10 = LimitState("suspended", since=october(8), sequence=2, suspended_until=october(10))
SUSPENDED_IN_SEPTEMBER = LimitState("suspended", since=SEPTEMBER_28, sequence=2, suspended_until=october(3))
NEAR = LimitState("near", since=october(2), sequence=1)

# fmt: off
TABLE = [
    # why                                        meter        usage  quota trust drop?  before      -> rule, state, until
    ("1: no quota is no limit",                  "events",   10**9,   None,  0, False, NOTHING,      "no_quota", "within", None),
    ("1: a removed quota releases",              "events",   10**9,   None,  0, False, LIMITED,      "no_quota", "within", None),
    ("1: no usage was ever reported",            "events",    None,  1_000,  0, False, NOTHING,      "no_usage", "within", None),
    ("1: a quota of nothing is reached by it",   "events",    None,      0,  0, False, NOTHING,      "no_grace", "limited", NOVEMBER),
    ("2: far below",                             "events",       0,  1_000,  0, False, NOTHING,      "under_quota", "within", None),
    ("2: one below near",                        "events",     799,  1_000,  0, False, NOTHING,      "under_quota", "within", None),
    ("2: near from 80 %",                        "events",     800,  1_000,  0, False, NOTHING,      "under_quota", "near", None),
    ("2: one below the quota",                   "events",     999,  1_000,  0, False, NOTHING,      "under_quota", "near", None),
    ("2: usage that fell releases",              "events",     500,  1_000,  0, False, LIMITED,      "under_quota", "within", None),
    ("2: a raised quota ends a suspension",      "events",   1_500,  9_000,  7, False, SUSPENDED_TO_12, "under_quota", "within", None),
    ("2: the last unit of the buffer",           "recordings", 1_099,  100,  0, False, NOTHING,      "under_quota", "near", None),
    ("2: the buffer is full",                    "recordings", 1_100,  100,  0, False, NOTHING,      "no_grace", "limited", NOVEMBER),
    ("2: only recordings have a buffer",         "events",   1_099,    100,  0, False, NOTHING,      "no_grace", "limited", NOVEMBER),
    ("3: data that is never dropped",            "events",   2_000,  1_000,  0, True,  NOTHING,      "never_drop_data", "near", None),
    ("3: releases what is limited",              "events",   2_000,  1_000,  0, True,  LIMITED,      "never_drop_data", "near", None),
    ("3: AI credits are exempt from it",         "ai_credits", 2_000, 1_000, 0, True,  NOTHING,      "no_grace", "limited", NOVEMBER),
    ("4: limited stays limited",                 "events",   2_000,  1_000,  0, False, LIMITED,      "already_limited", "limited", NOVEMBER),
    ("4: a better trust score does not release", "events",   2_000,  1_000, 15, False, LIMITED,      "already_limited", "limited", NOVEMBER),
    ("4: nor does a quota still too small",      "events",   2_000,  1_500, 15, False, LIMITED,      "already_limited", "limited", NOVEMBER),
    ("4: a limit of last period holds nobody",   "events",   2_000,  1_000,  7, False, LIMITED_IN_SEPTEMBER, "grace_started", "suspended", october(12)),
    ("4: not even one that was to last longer",  "events",   2_000,  1_000,  7, False, LIMITED_BEFORE_THE_PERIOD_MOVED, "grace_started", "suspended", october(12)),
    ("4: and without trust it begins anew",      "events",   2_000,  1_000,  0, False, LIMITED_IN_SEPTEMBER, "no_grace", "limited", NOVEMBER),
    ("6: exactly at the quota, never scored",    "events",   1_000,  1_000, None, False, NOTHING,    "no_grace", "limited", NOVEMBER),
    ("6: trust 0",                               "events",   1_000,  1_000,  0, False, NEAR,         "no_grace", "limited", NOVEMBER),
    ("6: trust 3",                               "events",   1_000,  1_000,  3, False, NEAR,         "no_grace", "limited", NOVEMBER),
    ("6: a quota of nothing",                    "events",       0,      0,  0, False, NOTHING,      "no_grace", "limited", NOVEMBER),
    ("6: trust lost during the grace",           "events",   1_000,  1_000,  3, False, SUSPENDED_TO_12, "no_grace", "limited", NOVEMBER),
    ("6: AI credits have no grace",              "ai_credits", 1_000, 1_000, 15, False, NOTHING,     "no_grace", "limited", NOVEMBER),
    ("7: trust 7 gives a day after today",       "events",   1_000,  1_000,  7, False, NEAR,         "grace_started", "suspended", october(12)),
    ("7: trust 10 gives three",                  "events",   1_000,  1_000, 10, False, NEAR,         "grace_started", "suspended", october(14)),
    ("7: trust 15 gives five",                   "events",   1_000,  1_000, 15, False, NEAR,         "grace_started", "suspended", october(16)),
    ("7: flag requests get two at least: none",  "feature_flag_requests", 1_000, 1_000, None, False, NEAR, "grace_started", "suspended", october(13)),
    ("7: flag requests get two at least: 0",     "feature_flag_requests", 1_000, 1_000,  0, False, NEAR, "grace_started", "suspended", october(13)),
    ("7: flag requests get two at least: 3",     "feature_flag_requests", 1_000, 1_000,  3, False, NEAR, "grace_started", "suspended", october(13)),
    ("7: flag requests get two at least: 7",     "feature_flag_requests", 1_000, 1_000,  7, False, NEAR, "grace_started", "suspended", october(13)),
    ("7: flag requests get more with trust 10",  "feature_flag_requests", 1_000, 1_000, 10, False, NEAR, "grace_started", "suspended", october(14)),
    ("7: flag requests get more with trust 15",  "feature_flag_requests", 1_000, 1_000, 15, False, NEAR, "grace_started", "suspended", october(16)),
    ("7: API queries get 1 day with trust 7",    "api_queries_read_bytes", 1_000, 1_000,  7, False, NEAR, "grace_started", "suspended", october(12)),
    ("7: API queries get 3 days with trust 10",  "api_queries_read_bytes", 1_000, 1_000, 10, False, NEAR, "grace_started", "suspended", october(14)),
    ("7: API queries get 5 days with trust 15",  "api_queries_read_bytes", 1_000, 1_000, 15, False, NEAR, "grace_started", "suspended", october(16)),
    ("7: a grace of last period begins anew",    "events",   1_000,  1_000,  7, False, SUSPENDED_IN_SEPTEMBER, "grace_started", "suspended", october(12)),
    ("8: the grace covers the end of today",     "events",   1_000,  1_000,  7, False, SUSPENDED_TO_12, "grace_running", "suspended", october(12)),
    ("8: just covers it",                        "events",   1_000,  1_000,  7, False, SUSPENDED_TO_11, "grace_running", "suspended", october(11)),
    ("8: more trust does not lengthen it",       "events",   1_000,  1_000, 15, False, SUSPENDED_TO_11, "grace_running", "suspended", october(11)),
    ("8: the grace is over",                     "events",   1_000,  1_000,  7, False, SUSPENDED_TO_10, "grace_expired", "limited", NOVEMBER),
]
# fmt: on


@pytest.mark.parametrize("row", [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_on_10_october_at_noon(row):
    meter, usage, quota, trust, never_drop_data, previous, rule, state, until = row
    entitlement = Entitlement(meter, quota=quota, trust_score=trust, never_drop_data=never_drop_data)
    decision = decide(Inputs(entitlement, usage, PERIOD), previous, rules=RULES, now=NOON_10)
    assert (decision.rule, decision.state) == (rule, state)
    assert decision.limited_until == (until if state == "limited" else None)
    assert decision.suspended_until == (until if state == "suspended" else None)
    assert decision.sentence.startswith(meter)


@pytest.mark.parametrize("now", [october(10), october(10, 23, 59)], ids=["first minute", "last minute"])
def test_a_grace_counts_whole_days_after_the_one_it_begins_on(now):
    decision = decide(Inputs(Entitlement("events", quota=1, trust_score=7), 1, PERIOD), None, rules=RULES, now=now)
    assert decision.suspended_until == october(12)


def test_the_whole_way_from_near_over_suspended_to_limited_and_into_the_next_period():
    entitlement = Entitlement("events", quota=1_000, trust_score=7)
    november = BillingPeriod(NOVEMBER, datetime(2026, 12, 1, tzinfo=UTC))
    steps = [
        (october(2), PERIOD, 900, "near"),
        (october(9, 18), PERIOD, 1_200, "suspended"),
        (october(10, 23, 59), PERIOD, 1_900, "suspended"),
        (october(11), PERIOD, 1_900, "limited"),
        (october(31, 23, 59), PERIOD, 1_900, "limited"),
        (NOVEMBER, november, 0, "within"),
    ]
    state = None
    for now, period, usage, expected in steps:
        decision = decide(Inputs(entitlement, usage, period), state, rules=RULES, now=now)
        assert decision.state == expected, now
        state = LimitState(
            decision.state,
            since=now if decision.differs_from(state) else state.since,
            sequence=1,
            limited_until=decision.limited_until,
            suspended_until=decision.suspended_until,
        )


def test_the_sentence_tells_a_person_what_and_why():
    decision = decide(Inputs(Entitlement("events", quota=1_000), 1_200, PERIOD), None, rules=RULES, now=NOON_10)
    assert decision.sentence == (
        "events limited until 2026-11-01 00:00 UTC: 1,200 of 1,000 used; trust score 0 gives no grace."
    )


TRIAL = october(20)
OVER = october(10, 12)

# fmt: off
BEYOND_THE_CONTRACT = [
    # why                                               meter           usage  quota  subscribed drop? trial  credits before -> rule, state, until
    ("trial: the free tier does not limit",             "events",       2_000, 1_000, False, False, TRIAL, None,  NOTHING, "free_trial", "within", None),
    ("trial: releases what is limited",                 "events",       2_000, 1_000, False, False, TRIAL, None,  LIMITED, "free_trial", "within", None),
    ("trial: it ends at its instant",                   "events",       2_000, 1_000, False, False, OVER,  None,  NOTHING, "no_grace", "limited", NOVEMBER),
    ("trial: a billing limit holds all the same",       "events",       2_000, 1_000, True,  False, TRIAL, None,  NOTHING, "no_grace", "limited", NOVEMBER),
    ("trial: the catalog leaves this meter out of it",  "signals_credits", 9,    5, False, False, TRIAL, None,  NOTHING, "no_grace", "limited", NOVEMBER),
    ("credits: some are left",                          "rows_exported",   5, None, True,  False, None,     1,  NOTHING, "no_quota", "within", None),
    ("credits: none are left",                          "rows_exported",   5, None, True,  False, None,     0,  NOTHING, "credits_exhausted", "limited", NOVEMBER),
    ("credits: more than none are spent",               "rows_exported",   5, None, True,  False, None,   -90,  NOTHING, "credits_exhausted", "limited", NOVEMBER),
    ("credits: bought again",                           "rows_exported",   5, None, True,  False, None,   900,  LIMITED, "no_quota", "within", None),
    ("credits: a trial does not replace them",          "rows_exported",   5,  100, False, False, TRIAL,    0,  NOTHING, "credits_exhausted", "limited", NOVEMBER),
    ("credits: nobody ever said how many",              "rows_exported",   5, None, True,  False, None,  None,  NOTHING, "no_quota", "within", None),
    ("credits: no matter for another meter",            "events",          5, None, True,  False, None,     0,  NOTHING, "no_quota", "within", None),
    ("credits: data that is never dropped",             "rows_exported",   5, None, True,  True,  None,     0,  NOTHING, "no_quota", "within", None),
    ("credits: an exempt meter is dropped",             "ai_credits",      5, None, True,  True,  None,     0,  NOTHING, "credits_exhausted", "limited", NOVEMBER),
]
# fmt: on


@pytest.mark.parametrize("row", [row[1:] for row in BEYOND_THE_CONTRACT], ids=[row[0] for row in BEYOND_THE_CONTRACT])
def test_trials_and_credits_on_10_october_at_noon(row):
    meter, usage, quota, subscribed, never_drop_data, trial, balance, previous, rule, state, until = row
    in_trial = meter != "signals_credits"
    entitlement = Entitlement(
        meter, quota=quota, subscribed=subscribed, never_drop_data=never_drop_data, in_trial=in_trial
    )
    inputs = Inputs(entitlement, usage, PERIOD, free_trial_until=trial, credit_balance_minor=balance)
    rules = RULES if meter == "signals_credits" else CREDIT_RULES
    decision = decide(inputs, previous, rules=rules, now=NOON_10)
    assert (decision.rule, decision.state, decision.limited_until) == (rule, state, until)


@pytest.mark.parametrize(("trust", "days"), [(None, 0), (0, 0), (3, 1), (7, 2), (10, 2), (15, 9)])
def test_a_meter_may_have_graces_of_its_own(trust, days):
    inputs = Inputs(Entitlement("events", quota=1, trust_score=trust), 1, PERIOD)
    decision = decide(inputs, None, rules=CREDIT_RULES, now=NOON_10)
    assert (decision.grace_days, decision.rule_version) == (days, 2)
    assert decision.state == ("suspended" if days else "limited")

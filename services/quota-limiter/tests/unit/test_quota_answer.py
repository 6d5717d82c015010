"""Answers to quota checks, from a standing and the instant alone."""

from datetime import UTC, datetime, timedelta

import pytest
from quill_quota_limiter.domain.quota_answer import MeterStanding, OrganizationStanding, answer_check

END = datetime(2026, 11, 1, tzinfo=UTC)
STANDING = OrganizationStanding(
    revision=7,
    license_id="license",
    meters={
        "events": MeterStanding("limited", usage=9, quota=5, limited_until=END),
        "recordings": MeterStanding("suspended", usage=9, quota=5, suspended_until=END),
        "rows_synced": MeterStanding("within", usage=1, quota=None),
    },
)


@pytest.mark.parametrize(
    ("meter", "now", "allowed", "state"),
    [
        ("events", END - timedelta(microseconds=1), False, "limited"),
        ("events", END, True, "within"),
        ("recordings", END - timedelta(days=1), True, "suspended"),
        ("rows_synced", END, True, "within"),
    ],
    ids=["limited", "a limit ends by itself", "a grace still lets through", "unlimited"],
)
def test_a_known_meter_is_answered_from_its_state(meter, now, allowed, state):
    answer = answer_check("acme", meter, STANDING, unknown="deny", now=now)
    assert (answer.allowed, answer.state, answer.revision, answer.known) == (allowed, state, 7, True)


@pytest.mark.parametrize(("policy", "allowed"), [("allow", True), ("deny", False)])
@pytest.mark.parametrize(("standing", "revision"), [(None, None), (STANDING, 7)], ids=["organization", "meter"])
def test_what_is_unknown_follows_the_policy_and_says_so(policy, allowed, standing, revision):
    answer = answer_check("acme", "unheard_of", standing, unknown=policy, now=END)
    assert (answer.allowed, answer.known, answer.state, answer.revision) == (allowed, False, None, revision)

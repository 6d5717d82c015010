"""The mirror ends at the newest revision whatever the order (L9), and its index says what its standings say."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_quota_limiter.domain.quota_answer import MeterStanding, OrganizationStanding
from quill_quota_limiter.store.mirror import Mirror

END = datetime(2026, 11, 1, tzinfo=UTC)


def standing(revision: int, *, limited: tuple[str, ...] = (), meters=("events", "recordings"), usage: int = 0):
    return OrganizationStanding(
        revision,
        "license-1",
        {
            key: MeterStanding("limited" if key in limited else "within", usage, 10, END if key in limited else None)
            for key in meters
        },
    )


def versions():
    """Revision by revision: which meters there are and which are limited."""
    one = st.tuples(st.sets(st.sampled_from(["events", "recordings"])), st.sets(st.sampled_from(["events", "logs"])))
    return st.lists(one, min_size=1, max_size=6)


@given(given_versions=versions(), order=st.randoms(use_true_random=False), times=st.integers(1, 3))
def test_any_order_and_repetition_ends_at_the_newest_revision(given_versions, order, times):
    made = [
        standing(number, limited=tuple(limited), meters=tuple(limited | more))
        for number, (limited, more) in enumerate(given_versions, start=1)
    ]
    arriving = made * times
    order.shuffle(arriving)
    mirror = Mirror(organizations_max=10)
    for each in arriving:
        mirror.put("acme", each)
    newest = made[-1]
    assert mirror.standings == {"acme": newest}
    assert {key for key, names in mirror.holders.items() if names} == set(newest.meters)
    limited = {key for key, meter in newest.meters.items() if meter.limited_until}
    assert {key for key, ends in mirror.limited.items() if ends} == limited


def test_what_came_during_a_load_is_neither_forgotten_nor_undone():
    mirror = Mirror(organizations_max=10)
    mirror.put("gone", standing(1))
    mirror.claim("gone", ["phc_gone"])
    mirror.claim("acme", ["phc_moves", "phc_leaves"])
    mirror.begin_load()
    mirror.put("new", standing(1))
    mirror.claim("new", ["phc_moves", "phc_new"])
    mirror.retire("acme", ["phc_leaves"])
    mirror.put("acme", standing(3))
    mirror.put("acme", standing(2))
    mirror.claim("acme", ["phc_moves", "phc_leaves", "phc_stays"], is_loading=True)
    mirror.end_load({"acme"}, tokens={"phc_moves", "phc_leaves", "phc_stays"}, synced_at=1.0)
    assert {name: found.revision for name, found in mirror.standings.items()} == {"new": 1, "acme": 3}
    assert mirror.owners == {"phc_moves": "new", "phc_new": "new", "phc_stays": "acme"}


def test_beyond_its_bound_the_mirror_says_that_it_is_not_whole():
    mirror = Mirror(organizations_max=2)
    for name in ("a", "b", "c"):
        mirror.put(name, standing(1))
    assert set(mirror.standings) == {"a", "b"}
    assert not mirror.is_whole
    mirror.put("a", standing(2))
    assert mirror.standings["a"].revision == 2


@pytest.mark.parametrize(
    ("second", "is_told"),
    [
        (standing(2, usage=5), False),
        (standing(2, limited=("events",)), True),
        (standing(2, meters=("events",)), True),
        (standing(1, limited=("events",)), False),
    ],
    ids=["only usage", "a limit", "a meter less", "not newer"],
)
def test_who_listens_is_told_of_limits_and_not_of_usage(second, is_told):
    mirror = Mirror(organizations_max=2)
    mirror.put("acme", standing(1))
    told = []
    mirror.listeners.append(told.append)
    mirror.put("acme", second, place="e-7")
    assert [(change.organization_id, change.standing, change.place) for change in told] == (
        [("acme", second, "e-7")] if is_told else []
    )

"""The demo's own parts: every report is handed over once and at its time, and a verdict cannot be green by accident."""

import subprocess
import sys
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from quill_demo.checks import Comparison, dollars
from quill_demo.latency import Latency, probe_organizations
from quill_demo.month import Month
from quill_demo.presentation import Outcome
from quill_demo.sandbox_time import SandboxTime
from quill_demo.stories import PLAYED_DAYS, SUBJECTS, stories
from quill_demo.story_checks import seats_amount
from quill_demo.world import SETTLE_HOURS, make_world
from quill_regions.misbehaviour import Delivery


class RegionThatListens:
    """Notes what it is given, and when in sandbox time."""

    def __init__(self, time: SandboxTime) -> None:
        self.time = time
        self.heard: list[tuple[datetime, Delivery]] = []

    async def send(self, deliveries: list[Delivery]) -> None:
        self.heard += [(self.time.now(), delivery) for delivery in deliveries]


@pytest.fixture
def time(tmp_path: Path) -> SandboxTime:
    made = SandboxTime(tmp_path / "clock")
    made.set(datetime(2026, 10, 1, tzinfo=UTC))
    return made


async def test_every_report_is_handed_over_once_and_never_before_its_time(time: SandboxTime, monkeypatch):
    world = make_world(seed=3, organizations=25, days=6, misbehave=True)
    region = RegionThatListens(time)
    month = Month(world=world, client=None, time=time)
    posted: list[Delivery] = []

    async def post(delivery: Delivery) -> None:
        posted.append(delivery)

    monkeypatch.setattr(month, "_post", post)
    steps: list[int] = []
    for until in (world.start + timedelta(hours=18), world.end, world.end + timedelta(hours=SETTLE_HOURS + 6)):
        await month.live(region, until=until, progress=steps.append)
    heard = [delivery for _, delivery in region.heard]
    assert {id(d) for d in heard + posted} == {id(d) for d in world.deliveries}
    assert len(heard) + len(posted) == len(world.deliveries) == sum(steps)
    assert all(at >= delivery.at for at, delivery in region.heard)


def test_latecomers_report_before_they_are_known_and_pay_nothing():
    world = make_world(seed=1, organizations=60, days=5, misbehave=True)
    assert world.latecomers()
    assert all(organization.plan == "free" for organization in world.latecomers())


def test_sandbox_time_never_goes_back(time: SandboxTime):
    later = datetime(2026, 10, 9, tzinfo=UTC)
    time.reach(later)
    time.reach(later - timedelta(days=3))
    assert timedelta() <= time.now() - later < timedelta(seconds=5)


def test_a_comparison_of_nothing_is_not_equal():
    comparison = Comparison()
    assert not comparison.is_equal
    comparison.expect("x", said=1, true=1)
    assert comparison.is_equal
    comparison.expect("y", said=1, true=2)
    assert not comparison.is_equal
    assert comparison.differences == ["y: billing says 1, the truth is 2"]


def test_cents_are_shown_exactly():
    assert (dollars(39_300), dollars(1)) == (Decimal("393.00"), Decimal("0.01"))


def test_percentiles_lie_within_the_samples():
    latency = Latency(tuple(float(n) for n in range(1, 41)))
    assert 20 <= latency.percentile(50) <= 21
    assert 39 <= latency.percentile(99) <= 40


def test_probes_are_nobody_else():
    world = make_world(seed=1, organizations=60, days=1, misbehave=False)
    probes = {probe.organization_id for probe in probe_organizations(seed=1, count=40)}
    assert len(probes) == 40
    assert probes.isdisjoint(o.organization_id for o in world.organizations)


@pytest.mark.parametrize("arguments", [["--days", "31"], ["--days", "0"], ["--organizations", "0"], ["--seed", "x"]])
def test_an_impossible_demo_is_refused_by_argument(arguments: list[str]):
    done = subprocess.run([sys.executable, "-m", "quill_demo", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert arguments[0] in done.stderr


def test_one_difference_in_one_story_turns_the_verdict():
    equal, different = Comparison(), Comparison()
    equal.expect("a total", said=Decimal("20.00"), true=Decimal("20.00"))
    different.expect("a total", said=Decimal("20.01"), true=Decimal("20.00"))
    fixed = {field.name: equal for field in fields(Outcome)}
    assert Outcome(**fixed | {"stories": {"seats: invoices": equal}}).all_equal
    assert not Outcome(**fixed | {"stories": {"seats: invoices": equal, "trial: invoices": different}}).all_equal
    assert not Outcome(**fixed | {"stories": {"seats: invoices": Comparison()}}).all_equal
    assert not Outcome(**fixed | {"stories": {}, "usage": different}).all_equal


def test_seats_cost_the_time_that_is_left_each_change_by_itself():
    start, end = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
    (story, *_) = [each for each in stories(seed=1) if each.seats == (3, 30, 10)]
    instants = [start, start + timedelta(days=1, hours=12), start + timedelta(days=3)]
    # 3 seats for 31 days, 27 more for 29.5 of 31 ($513.87), 20 fewer for 28 of 31 ($361.29)
    assert seats_amount(story, instants, start=start, end=end) == Decimal("60.00") + Decimal("513.87") - Decimal(
        "361.29"
    )


def test_every_kind_of_change_is_played_at_least_twice_in_both_ways_of_collecting():
    played = stories(seed=1)
    for subject in SUBJECTS:
        modes = [each.mode for each in played if each.subject == subject]
        assert modes.count("stripe-rates") == modes.count("quill-rates") >= 2
    assert len({each.organization.organization_id for each in played}) == len(played)
    assert all(at < timedelta(days=PLAYED_DAYS) for each in played for at, _ in each.steps), (
        "they fit into a short month"
    )

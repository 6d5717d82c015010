"""Limits of teams and projects: the table a finance person can read, and their laws (L7, L9, L10)."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quill_pricing.period import BillingPeriod, BillingSchedule, Interval
from quill_quota_limiter.domain.entitlement import Customer, Entitlement
from quill_quota_limiter.domain.evaluation import OrganizationLimits, evaluate
from quill_quota_limiter.domain.limit_state import replay
from quill_quota_limiter.domain.organization_facts import OrganizationFacts
from quill_quota_limiter.domain.organization_scopes import OrganizationScopes, ScopeFacts
from quill_quota_limiter.domain.period_usage import OrganizationUsage, PeriodQuantities
from quill_quota_limiter.domain.project_marks import ProjectTokens, marks_of
from quill_quota_limiter.domain.quota_answer import answer_check, answer_scoped_check, standing_of
from quill_quota_limiter.domain.scope import Cap, LimitScope, ScopeSettings
from quill_quota_limiter.domain.scope_answer import tightness
from quill_quota_limiter.domain.scope_decision import ScopeInputs, decide_scope, units_of
from quill_quota_limiter.domain.team_usage import TeamQuantities, TeamUsage
from quill_quota_limiter.wire.rules import FIRST_RULES, to_table

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
NOW = datetime(2026, 10, 10, 12, tzinfo=UTC)
SCHEDULE = BillingSchedule(OCTOBER, Interval(1, "month"))
RULES = to_table(1, FIRST_RULES)
END = int(NOVEMBER.timestamp())

# The first 1,000 are free, then a cent each, and half a cent from 2,000 on.
PRICE = {
    "model": "graduated",
    "tiers": [
        {"up_to": 1_000, "unit_amount": "0"},
        {"up_to": 2_000, "unit_amount": "0.01"},
        {"up_to": None, "unit_amount": "0.005"},
    ],
}


@dataclass
class World:
    """An organization with teams 1 and 2 (and 3, which has no token), evaluated after each change."""

    quota: int | None = None
    meters: tuple[str, ...] = ("events", "recordings")
    tokens: dict[str, str] = field(default_factory=lambda: {"phc_1": "1", "phc_2": "2"})
    used: dict[str, dict[str, int]] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)
    settings: ScopeSettings = field(default_factory=ScopeSettings)
    limits: OrganizationLimits = field(default_factory=lambda: OrganizationLimits("acme"))
    log: dict = field(default_factory=dict)
    now: datetime = NOW

    def evaluate(self):
        period = SCHEDULE.period_containing(self.now)
        entitlements = tuple(
            Entitlement(key, self.quota, allowance=1_000, subscribed=self.quota is None) for key in self.meters
        )
        usage = OrganizationUsage("acme", 1, (PeriodQuantities(period.start, period.end, self.now, self.total),))
        teams = {
            team: TeamUsage("acme", team, 1, (TeamQuantities(period.start, used),)) for team, used in self.used.items()
        }
        facts = OrganizationFacts(
            Customer("acme", 1, "license-1", SCHEDULE, entitlements),
            usage,
            scopes=ScopeFacts(teams, self.tokens, dict.fromkeys(self.meters, PRICE)),
        )
        scopes = self.limits.scopes or OrganizationScopes()
        before = OrganizationLimits(
            **{
                name: getattr(self.limits, name) for name in OrganizationLimits.__dataclass_fields__ if name != "scopes"
            },
            scopes=OrganizationScopes(self.settings, scopes.limits, scopes.teams, scopes.tokens),
        )
        evaluation = evaluate(before, facts=facts, rules=RULES, tokens_changed=False, now=self.now)
        self.limits = evaluation.limits
        for transition in evaluation.transitions:
            self.log.setdefault((transition.scope, transition.usage_key), []).append(transition)
        return self

    def answer(self, team, meter="events"):
        """(may it, whose limit, used, quota)."""
        standing = standing_of(self.limits)
        scopes = standing.scopes.teams.get(team, ())
        answer = answer_scoped_check("acme", meter, standing, scopes, unknown="deny", now=self.now)
        return ("allowed" if answer.allowed else "limited", answer.scope, answer.usage, answer.quota)


def team(name, **caps):
    return LimitScope(f"team:{name}", "team", (name,), {key: cap(each) for key, each in caps.items()})


def project(name, teams, **caps):
    return LimitScope(f"project:{name}", "project", tuple(teams), {key: cap(each) for key, each in caps.items()})


def cap(given):
    """An int is units, "$5" is money, None lifts what each team has."""
    if isinstance(given, str):
        return Cap(money_minor=int(given.removeprefix("$")) * 100, currency="usd")
    return Cap(units=given)


def scopes(*given, revision=1, **each_team):
    return ScopeSettings(revision, given, {key: cap(each) for key, each in each_team.items()})


# name: (organization's quota, what is set, what each team used of events, then answers for teams 1 and 2)
TABLE = {
    "nothing is set": (None, scopes(), {"1": 9, "2": 9}, ("allowed", "organization", 18, None), None),
    "one below a team's limit": (
        None, scopes(team("1", events=10)), {"1": 9, "2": 99},
        ("allowed", "team:1", 9, 10), ("allowed", "organization", 108, None),
    ),
    "exactly at a team's limit": (
        None, scopes(team("1", events=10)), {"1": 10, "2": 99},
        ("limited", "team:1", 10, 10), ("allowed", "organization", 109, None),
    ),
    "a limit of nothing, and nothing was ever reported": (
        None, scopes(team("1", events=0)), {}, ("limited", "team:1", 0, 0), ("allowed", "organization", 0, None),
    ),
    "two teams pool a project's limit": (
        None, scopes(project("web", "12", events=100)), {"1": 60, "2": 40},
        ("limited", "project:web", 100, 100), ("limited", "project:web", 100, 100),
    ),
    "one unit is left in the pool": (
        None, scopes(project("web", "12", events=100)), {"1": 60, "2": 39},
        ("allowed", "project:web", 99, 100), ("allowed", "project:web", 99, 100),
    ),
    "the usage of a team outside does not count in the pool": (
        None, scopes(project("web", "1", events=100)), {"1": 60, "2": 5_000},
        ("allowed", "project:web", 60, 100), ("allowed", "organization", 5_060, None),
    ),
    "a team is limited inside a project that is not": (
        None, scopes(project("web", "12", events=100), team("1", events=50)), {"1": 50, "2": 40},
        ("limited", "team:1", 50, 50), ("allowed", "project:web", 90, 100),
    ),
    "a project is limited over a team that is not": (
        None, scopes(project("web", "12", events=100), team("1", events=50)), {"1": 10, "2": 90},
        ("limited", "project:web", 100, 100), ("limited", "project:web", 100, 100),
    ),
    "both allow: the one with the fewest units left is named": (
        None, scopes(project("web", "12", events=100), team("1", events=50)), {"1": 10, "2": 20},
        ("allowed", "team:1", 10, 50), ("allowed", "project:web", 30, 100),
    ),
    "each team has the same limit for itself": (
        None, scopes(events=50), {"1": 50, "2": 49}, ("limited", "team:1", 50, 50), ("allowed", "team:2", 49, 50),
    ),
    "a team's own limit is in place of each team's": (
        None, scopes(team("1", events=80), events=50), {"1": 60, "2": 60},
        ("allowed", "team:1", 60, 80), ("limited", "team:2", 60, 50),
    ),
    "a team's null lifts each team's": (
        None, scopes(team("1", events=None), events=50), {"1": 60, "2": 60},
        ("allowed", "organization", 120, None), ("limited", "team:2", 60, 50),
    ),
    "a team's limit on another meter leaves each team's where it is": (
        None, scopes(team("1", recordings=1), events=50), {"1": 60, "2": 10},
        ("limited", "team:1", 60, 50), ("allowed", "team:2", 10, 50),
    ),
    "money buys paid units: $5 at a cent": (
        None, scopes(team("1", events="$5")), {"1": 500, "2": 0},
        ("limited", "team:1", 500, 500), ("allowed", "organization", 500, None),
    ),
    "no money buys nothing, the free units are the organization's": (
        None, scopes(team("1", events="$0")), {"1": 1, "2": 0},
        ("limited", "team:1", 1, 0), ("allowed", "organization", 1, None),
    ),
    "the organization's limit beats a team that has room": (
        100, scopes(team("1", events=80)), {"1": 10, "2": 90},
        ("limited", "organization", 100, 100), ("limited", "organization", 100, 100),
    ),
    "the organization and the team are limited: the wider is named between equals": (
        100, scopes(team("1", events=100)), {"1": 100, "2": 0},
        ("limited", "organization", 100, 100), ("limited", "organization", 100, 100),
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", TABLE)
def test_the_tightest_limit_wins_and_is_named(row):
    quota, settings, used, first, second = TABLE[row]
    world = World(quota=quota, settings=settings, used={name: {"events": units} for name, units in used.items()})
    world.total = {"events": sum(used.values())}
    world.evaluate()
    assert world.answer("1") == first
    assert world.answer("2") == (second or first)
    assert world.answer("1", "recordings")[0] == "allowed", "no meter affects another (L10)"


@pytest.mark.parametrize(
    ("money", "allowance", "units"),
    [("$0", 1_000, 0), ("$1", 1_000, 100), ("$10", 1_000, 1_000), ("$11", 1_000, 1_200), ("$1", 0, 1_100)],
)
def test_money_is_turned_into_units_beyond_the_free_allowance(money, allowance, units):
    assert abs(units_of(cap(money), price=PRICE, allowance=allowance) - units) <= 1, "half a cent rounds"


def test_money_without_a_price_or_in_another_currency_limits_nobody():
    assert units_of(cap("$1"), price=None, allowance=0) is None
    assert units_of(Cap(money_minor=100, currency="eur"), price=PRICE, allowance=0) is None
    assert units_of(cap("$1"), price={"model": "per_unit", "unit_amount": "0"}, allowance=0) is None


def test_a_raised_a_removed_and_a_lowered_limit_act_at_once():
    world = World(settings=scopes(team("1", events=10)), used={"1": {"events": 10}}).evaluate()
    assert world.answer("1")[0] == "limited"
    world.settings = scopes(team("1", events=11), revision=2)
    assert world.evaluate().answer("1") == ("allowed", "team:1", 10, 11)
    world.settings = scopes(team("1", events=3), revision=3)
    assert world.evaluate().answer("1") == ("limited", "team:1", 10, 3)
    world.settings = scopes(revision=4)
    assert world.evaluate().answer("1")[:2] == ("allowed", "organization")
    assert [t.to_state for t in world.log["team:1", "events"]] == ["limited", "near", "limited", "within"]
    assert marks_of(world.limits).token_limited == {}
    world.settings = scopes(team("1", events=3), revision=5)
    assert world.evaluate().answer("1")[0] == "limited", "its log goes on where it ended"


def test_the_next_billing_period_releases():
    world = World(settings=scopes(team("1", events=10)), used={"1": {"events": 10}}).evaluate()
    assert world.answer("1")[0] == "limited"
    world.now = NOVEMBER
    assert world.answer("1")[0] == "allowed", "at once, before anybody evaluates"
    world.used = {}
    assert world.evaluate().answer("1") == ("allowed", "team:1", 0, 10)


def test_usage_of_another_billing_period_does_not_count():
    usage = TeamUsage("acme", "1", 1, (TeamQuantities(NOVEMBER, {"events": 5}), TeamQuantities(OCTOBER, {"events": 7})))
    assert [usage.in_period("events", start) for start in (NOVEMBER, OCTOBER, OCTOBER - timedelta(days=1))] == [5, 7, 0]


def test_a_team_that_moves_takes_its_usage_to_the_other_project():
    world = World(
        settings=scopes(project("web", "12", events=100), project("app", "3", events=50)),
        used={"1": {"events": 60}, "2": {"events": 40}, "3": {"events": 10}},
    ).evaluate()
    assert [world.answer(name)[:3] for name in "123"] == [
        ("limited", "project:web", 100), ("limited", "project:web", 100), ("allowed", "project:app", 10),
    ]  # fmt: skip
    world.settings = scopes(project("web", "2", events=100), project("app", "13", events=50), revision=2)
    assert [world.evaluate().answer(name)[:3] for name in "123"] == [
        ("limited", "project:app", 70), ("allowed", "project:web", 40), ("limited", "project:app", 70),
    ]  # fmt: skip


def test_neither_trust_nor_a_promise_nor_a_buffer_softens_what_a_person_set():
    period = BillingPeriod(OCTOBER, NOVEMBER)
    at = [decide_scope(ScopeInputs("team:1", "recordings", 100, used, period), rules=RULES) for used in (99, 100)]
    assert [(each.state, each.buffer, each.grace_days) for each in at] == [("near", 0, 0), ("limited", 0, 0)]
    assert at[1].sentence == (
        "recordings of team:1 limited until 2026-11-01 00:00 UTC: 100 of 100 used, and a limit that was set is exact."
    )


def test_marks_are_the_teams_tokens_and_the_organizations_are_everybodys():
    world = World(settings=scopes(team("1", events=10)), used={"1": {"events": 10}}).evaluate()
    named = ProjectTokens(("phc_1", "phc_2"), ())
    marks = marks_of(world.limits)
    assert (marks.limited, marks.limited_tokens(named)) == ({}, {"events": {"phc_1": END}})
    assert marks.limited_tokens(ProjectTokens(("phc_2",), ("phc_1",))) == {}, "it moved away meanwhile"
    world.quota, world.total = 50, {"events": 50}
    marks = marks_of(world.evaluate().limits)
    assert (marks.limited, marks.limited_tokens(named)) == ({"events": END}, {})


caps = st.dictionaries(st.sampled_from(["events", "recordings"]), st.none() | st.integers(0, 30), max_size=2)
worlds = st.lists(
    st.fixed_dictionaries(
        {
            "hours": st.integers(0, 24 * 20),
            "quota": st.none() | st.integers(0, 60),
            "teams": st.dictionaries(st.sampled_from("123"), caps, max_size=3),
            "pools": st.fixed_dictionaries({"web": caps, "app": caps}),
            "of": st.dictionaries(st.sampled_from("123"), st.sampled_from(["web", "app"])),
            "each": st.dictionaries(st.sampled_from(["events", "recordings"]), st.integers(0, 30)),
            "used": st.dictionaries(
                st.sampled_from("123"),
                st.dictionaries(st.sampled_from(["events", "recordings"]), st.integers(0, 40)),
            ),
        }
    ),
    min_size=1,
    max_size=5,
)


def live(steps):
    world = World()
    for revision, step in enumerate(steps, start=1):
        world.now += timedelta(hours=step["hours"])
        world.quota, world.used = step["quota"], step["used"]
        world.total = {key: sum(used.get(key, 0) for used in step["used"].values()) for key in ("events", "recordings")}
        pools = [
            project(name, sorted(t for t, of in step["of"].items() if of == name), **limits)
            for name, limits in step["pools"].items()
            if name in step["of"].values()
        ]
        named = [team(name, **limits) for name, limits in step["teams"].items()]
        world.settings = scopes(*named, *pools, revision=revision, **step["each"])
        yield world.evaluate()


@given(worlds, st.integers(0, 24 * 40))
def test_the_answer_of_a_team_is_the_maximum_over_its_scopes(steps, later):
    for world in live(steps):
        now = world.now + timedelta(hours=later)
        standing = standing_of(world.limits)
        for name in "123":
            for meter in ("events", "recordings"):
                bound = standing.scopes.teams.get(name, ())
                answer = answer_scoped_check("acme", meter, standing, bound, unknown="deny", now=now)
                parts = [("organization", standing.meters[meter]), *standing.scopes.standings(meter, bound)]
                assert answer.allowed == all(not part.is_limited(now) for _, part in parts)
                assert tightness(dict(parts)[answer.scope], now) == max(tightness(part, now) for _, part in parts)
        plain = answer_check("acme", "events", standing, unknown="deny", now=now)
        alone = answer_scoped_check("acme", "events", standing, (), unknown="deny", now=now)
        assert (plain.allowed, plain.state, plain.limited_until) == (alone.allowed, alone.state, alone.limited_until)


@given(worlds)
def test_replaying_the_log_of_each_scope_gives_its_live_state_and_each_evidence_its_decision(steps):
    for world in live(steps):
        found = {
            (scope, key): meter.state
            for scope, meters in world.limits.scopes.limits.items()
            for key, meter in meters.items()
        }
        assert {where: replay(log) for where, log in world.log.items() if where[0] is not None} == found
    for (scope, key), log in world.log.items():
        for transition in log if scope is not None else ():
            evidence = transition.evidence
            assert evidence.usage == sum(used.usage for used in evidence.scope.teams.values())
            period = BillingPeriod(evidence.period_start, evidence.period_end)
            again = decide_scope(ScopeInputs(scope, key, evidence.quota, evidence.usage, period), rules=RULES)
            assert (again.state, again.limited_until, again.sentence) == (
                transition.to_state,
                transition.limited_until,
                transition.sentence,
            )


@given(worlds)
def test_what_a_scope_is_depends_on_the_newest_facts_alone(steps):
    *_, world = live(steps)
    *_, fresh = live([{**steps[-1], "hours": sum(step["hours"] for step in steps)}])

    def present(of):
        return {
            scope: {
                key: (m.state.name, m.usage, m.quota, m.state.limited_until)
                for key, m in meters.items()
                if m.quota is not None
            }
            for scope, meters in of.limits.scopes.in_force().items()
        }

    assert {k: v for k, v in present(world).items() if v} == {k: v for k, v in present(fresh).items() if v}

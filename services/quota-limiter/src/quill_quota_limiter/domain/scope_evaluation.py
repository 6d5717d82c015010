"""All scopes of one organization, decided together from one set of facts, in the organization's own turn (L9, L10)."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from quill_pricing.period import BillingPeriod

from quill_quota_limiter.domain.entitlement import Customer
from quill_quota_limiter.domain.limit_decision import Decision
from quill_quota_limiter.domain.limit_state import Evidence, LimitState, ScopeEvidence, TeamUsed, Transition, evolve
from quill_quota_limiter.domain.meter_limit import MeterLimit
from quill_quota_limiter.domain.organization_facts import OrganizationFacts
from quill_quota_limiter.domain.organization_scopes import OrganizationScopes, ScopeFacts
from quill_quota_limiter.domain.rule_table import RuleTable
from quill_quota_limiter.domain.scope import Cap, LimitScope, ScopeSettings, scopes_of_teams
from quill_quota_limiter.domain.scope_decision import ScopeInputs, decide_scope, units_of
from quill_quota_limiter.domain.team_usage import TeamUsage


def evaluate_scopes(
    organization_id: str,
    scopes: OrganizationScopes,
    *,
    facts: OrganizationFacts,
    rules: RuleTable,
    period: BillingPeriod,
    now: datetime,
) -> tuple[OrganizationScopes, list[Transition]]:
    """Decide every meter of every scope, and release what was removed.

    Returns:
        The scopes after it, and every change of a state.
    """
    known = facts.scopes or ScopeFacts()
    in_force = scopes.settings.in_force({*known.tokens.values(), *known.usage})
    named = {scope.scope_id: scope for scope in in_force}
    limits: dict[str, dict[str, MeterLimit]] = {}
    transitions: list[Transition] = []
    for name in sorted({*named, *scopes.limits}):
        scope, before = named.get(name), scopes.limits.get(name, {})
        after = limits[name] = {}
        for usage_key in sorted({*before, *(scope.caps if scope else ())}):
            evaluation = _Evaluation(
                organization_id, name, usage_key, scope, scopes.settings, facts=facts, known=known, period=period
            )
            after[usage_key], transition = evaluation.run(before.get(usage_key), rules=rules, now=now)
            if transition is not None:
                transitions.append(transition)
    teams = scopes_of_teams(in_force)
    return (
        OrganizationScopes(
            settings=scopes.settings,
            limits=limits,
            teams=teams,
            tokens={token: team for token, team in sorted(known.tokens.items()) if team in teams},
        ),
        transitions,
    )


class _Evaluation:
    """One meter of one scope; ``scope`` none: it was removed."""

    def __init__(
        self,
        organization_id: str,
        name: str,
        usage_key: str,
        scope: LimitScope | None,
        settings: ScopeSettings,
        *,
        facts: OrganizationFacts,
        known: ScopeFacts,
        period: BillingPeriod,
    ) -> None:
        self._organization_id = organization_id
        self._settings = settings
        self._customer_revision = facts.customer.revision
        self._cap = scope.caps.get(usage_key) if scope is not None else None
        self._allowance = facts.customer.entitlement(usage_key).allowance
        self._used = used_by(scope.teams if scope is not None else (), usage_key, known.usage, period)
        self._inputs = scope_inputs(name, usage_key, scope, customer=facts.customer, known=known, period=period)

    def run(self, known: MeterLimit | None, *, rules: RuleTable, now: datetime) -> tuple[MeterLimit, Transition | None]:
        inputs = self._inputs
        previous = known.state if known else None
        decision = decide_scope(inputs, rules=rules)
        state, transition = previous, None
        if decision.differs_from(previous):
            transition = self._transition(previous, decision, now)
            state = evolve(previous, transition)
        assert state is not None  # a decision always differs from no state at all
        return MeterLimit(state, inputs.usage, inputs.quota, decision.rule, decision.rule_version), transition

    def _transition(self, previous: LimitState | None, decision: Decision, now: datetime) -> Transition:
        inputs, cap = self._inputs, self._cap or Cap()
        return Transition(
            organization_id=self._organization_id,
            usage_key=inputs.usage_key,
            sequence=(previous.sequence if previous else 0) + 1,
            from_state=previous.name if previous else None,
            to_state=decision.state,
            at=now,
            limited_until=decision.limited_until,
            suspended_until=None,
            rule=decision.rule,
            rule_version=decision.rule_version,
            sentence=decision.sentence,
            scope=inputs.scope,
            evidence=Evidence(
                usage=inputs.usage,
                usage_revision=max((each.usage_revision for each in self._used.values()), default=0),
                usage_as_of=None,
                quota=inputs.quota,
                allowance=self._allowance,
                billing_limit_usd=None,
                subscribed=False,
                customer_revision=self._customer_revision,
                trust_score=None,
                never_drop_data=False,
                buffer=decision.buffer,
                grace_days=decision.grace_days,
                period_start=inputs.period.start,
                period_end=inputs.period.end,
                previous=previous.name if previous else None,
                evaluated_at=now,
                scope=ScopeEvidence(self._settings.revision, cap.money_minor, cap.currency, self._used),
            ),
        )


def scope_inputs(
    name: str,
    usage_key: str,
    scope: LimitScope | None,
    *,
    customer: Customer,
    known: ScopeFacts,
    period: BillingPeriod,
) -> ScopeInputs:
    """What the decision about one meter of a scope looks at; ``scope`` none: there is no such scope."""
    return ScopeInputs(
        scope=name,
        usage_key=usage_key,
        quota=units_of(
            scope.caps.get(usage_key) if scope is not None else None,
            price=known.prices.get(usage_key),
            allowance=customer.entitlement(usage_key).allowance,
        ),
        usage=sum(
            each.usage
            for each in used_by(scope.teams if scope is not None else (), usage_key, known.usage, period).values()
        ),
        period=period,
    )


def used_by(
    teams: tuple[str, ...], usage_key: str, usage: Mapping[str, TeamUsage], period: BillingPeriod
) -> dict[str, TeamUsed]:
    """What each of these teams used of a meter in the period; teams that used nothing are left out."""
    found = {team: usage[team] for team in sorted(teams) if team in usage}
    used = {team: TeamUsed(each.in_period(usage_key, period.start), each.revision) for team, each in found.items()}
    return {team: each for team, each in used.items() if each.usage}


def with_settings(scopes: OrganizationScopes | None, settings: ScopeSettings) -> OrganizationScopes:
    """The scopes with other settings, still to be evaluated."""
    return replace(scopes or OrganizationScopes(), settings=settings)

"""All scopes of one organization, decided together from one set of facts, in the organization's own turn (L9, L10)."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from quill_pricing.period import BillingPeriod

from quill_quota_limiter.domain.entitlement import Customer
from quill_quota_limiter.domain.limit_decision import Decision
from quill_quota_limiter.domain.limit_log import LimitName, decided
from quill_quota_limiter.domain.limit_state import Evidence, LimitState, LogEntry, ScopeEvidence, TeamUsed
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
) -> tuple[OrganizationScopes, list[LogEntry]]:
    """Decide every meter of every scope, and release what was removed.

    Returns:
        The scopes after it, and every change of a state or its reason.
    """
    known = facts.scopes or ScopeFacts()
    in_force = scopes.settings.in_force({*known.tokens.values(), *known.usage})
    named = {scope.scope_id: scope for scope in in_force}
    limits: dict[str, dict[str, MeterLimit]] = {}
    log: list[LogEntry] = []
    for name in sorted({*named, *scopes.limits}):
        scope, before = named.get(name), scopes.limits.get(name, {})
        after = limits[name] = {}
        for usage_key in sorted({*before, *(scope.caps if scope else ())}):
            meter = ScopeMeter(name, usage_key, scope, scopes.settings, facts=facts, known=known, period=period)
            after[usage_key], entry = meter.run(organization_id, before.get(usage_key), rules=rules, now=now)
            if entry is not None:
                log.append(entry)
    teams = scopes_of_teams(in_force)
    return (
        OrganizationScopes(
            settings=scopes.settings,
            limits=limits,
            teams=teams,
            tokens={token: team for token, team in sorted(known.tokens.items()) if team in teams},
        ),
        log,
    )


def scope_meter(
    name: str, usage_key: str, scopes: OrganizationScopes, *, facts: OrganizationFacts, period: BillingPeriod
) -> "ScopeMeter":
    """One meter of one scope with the facts of now."""
    known = facts.scopes or ScopeFacts()
    in_force = scopes.settings.in_force({*known.tokens.values(), *known.usage})
    scope = next((each for each in in_force if each.scope_id == name), None)
    return ScopeMeter(name, usage_key, scope, scopes.settings, facts=facts, known=known, period=period)


class ScopeMeter:
    """One meter of one scope; ``scope`` none: it was removed."""

    def __init__(
        self,
        name: str,
        usage_key: str,
        scope: LimitScope | None,
        settings: ScopeSettings,
        *,
        facts: OrganizationFacts,
        known: ScopeFacts,
        period: BillingPeriod,
    ) -> None:
        self._settings = settings
        self._customer_revision = facts.customer.revision
        self._cap = scope.caps.get(usage_key) if scope is not None else None
        self._allowance = facts.customer.entitlement(usage_key).allowance
        self._used = used_by(scope.teams if scope is not None else (), usage_key, known.usage, period)
        self._inputs = scope_inputs(name, usage_key, scope, customer=facts.customer, known=known, period=period)

    def run(
        self, organization_id: str, known: MeterLimit | None, *, rules: RuleTable, now: datetime
    ) -> tuple[MeterLimit, LogEntry | None]:
        """Decide it; returns the limit and what its log gets."""
        decision = self.decide(rules)
        return decided(
            known,
            decision,
            usage=self._inputs.usage,
            quota=self._inputs.quota,
            evidence=lambda: self.evidence(known.state if known else None, decision, now=now),
            name=LimitName(organization_id, self._inputs.usage_key, self._inputs.scope),
        )

    def decide(self, rules: RuleTable) -> Decision:
        """What holds now."""
        return decide_scope(self._inputs, rules=rules)

    def evidence(self, previous: LimitState | None, decision: Decision, *, now: datetime) -> Evidence:
        """Every input of the decision (L7)."""
        inputs, cap = self._inputs, self._cap or Cap()
        return Evidence(
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

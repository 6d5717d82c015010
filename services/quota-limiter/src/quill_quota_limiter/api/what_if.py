"""``POST /v1/limits/{organization}/what-if``: when would a meter be limited, were things otherwise?"""

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header
from quill_runtime.clock import Clock
from quill_runtime.problems import Problem

from quill_quota_limiter.api.authorization import Gate
from quill_quota_limiter.api.limits import known_limits
from quill_quota_limiter.domain.entitlement import Customer
from quill_quota_limiter.domain.evaluation import OrganizationLimits
from quill_quota_limiter.domain.organization_facts import OrganizationFacts
from quill_quota_limiter.domain.organization_scopes import ScopeFacts
from quill_quota_limiter.domain.rule_table import RuleTable
from quill_quota_limiter.domain.scope import ScopeSettings
from quill_quota_limiter.domain.scope_evaluation import scope_inputs
from quill_quota_limiter.domain.scope_forecast import forecast_scope, present_scope_rate
from quill_quota_limiter.domain.what_if import forecast, present_rate
from quill_quota_limiter.ports import LimitsStore, LimitsTransaction
from quill_quota_limiter.usecases.scope_facts import read_scope_facts
from quill_quota_limiter.wire.rules import to_table
from quill_quota_limiter.wire.what_if import (
    ASSUMED_OF_SCOPES,
    PriceUnknown,
    WhatIfAsked,
    assume,
    assumed_rate,
    to_wire_forecast,
)


def router(*, store: LimitsStore, gate: Gate, clock: Clock) -> APIRouter:
    """What-if: reads current facts, simulates, writes nothing."""
    routes = APIRouter(tags=["limits"])

    @routes.post("/v1/limits/{organization_id}/what-if")
    async def what_if(
        organization_id: str, asked: WhatIfAsked, authorization: Annotated[str | None, Header()] = None
    ) -> dict[str, Any]:
        """Let usage go on and say when the meter would be limited, with each change until then (L7).

        With ``scope`` of the limit of that team or project alone; the organization's own may come first (L10).
        """
        caller = gate.admit(authorization)
        now = clock.now()
        async with store.begin() as tx:
            limits = await known_limits(tx, caller, organization_id)
            customer = (await tx.customers([organization_id]))[organization_id]
            usage = (await tx.usages([organization_id])).get(organization_id)
            balance = (await tx.credits([organization_id])).get(organization_id)
            price = (await tx.prices(organization_id)).get(asked.meter)
            rules = (await tx.rulebook.active()).in_force
            documents = {each.version: each.document for each in await tx.rulebook.versions()}
            known = await _scope_facts(limits, tx) if asked.scope is not None else None
        if asked.meter not in limits.meters:
            meters = ", ".join(sorted(limits.meters)) or "none"
            detail = f"this organization has no meter {asked.meter!r}; known: {meters}"
            raise Problem(400, "unknown_usage_key", detail, attr="meter")
        if asked.rule_version is not None:
            if asked.rule_version not in documents:
                detail = f"there is no rule version {asked.rule_version}; known: {', '.join(map(str, documents))}"
                raise Problem(400, "unknown_version", detail, attr="rule_version")
            rules = to_table(asked.rule_version, documents[asked.rule_version])
        if known is not None:
            return _of_scope(asked, limits, customer=customer, known=known, rules=rules, now=now)
        facts = OrganizationFacts(customer, usage, balance)
        try:
            assumed = assume(asked, facts, None if price is None else dict(price), now=now)
        except PriceUnknown as unknown:
            raise Problem(409, "price_unknown", str(unknown), attr="billing_limit_usd") from unknown
        found = forecast(
            assumed,
            asked.meter,
            limits.meters[asked.meter].state,
            rules=rules,
            rate=assumed_rate(asked, present_rate(assumed, asked.meter, now=now)),
            now=now,
            periods=asked.periods,
        )
        return to_wire_forecast(found, asked, organization_id=organization_id, now=now)

    return routes


async def _scope_facts(limits: OrganizationLimits, tx: LimitsTransaction) -> ScopeFacts:
    """What scopes are decided from; of an organization without any, what its teams used."""
    found = await read_scope_facts([limits], tx=tx)
    if limits.organization_id in found:
        return found[limits.organization_id]
    return ScopeFacts(usage=await tx.team_usages(limits.organization_id))


def _of_scope(
    asked: WhatIfAsked,
    limits: OrganizationLimits,
    *,
    customer: Customer,
    known: ScopeFacts,
    rules: RuleTable,
    now: datetime,
) -> dict[str, Any]:
    """When the limit of one team or project would be reached, the organization's own aside (L10).

    Raises:
        Problem: 400 for a project that is not set, a team without a limit, or what scopes do not know.
    """
    name = asked.scope or ""
    if asked.meaningless_for_scopes is not None:
        attr = asked.meaningless_for_scopes
        detail = f"{attr}: a limit of a team or project knows no such thing; assume {', '.join(ASSUMED_OF_SCOPES)}"
        raise Problem(400, "invalid_input", detail, attr=attr)
    settings = limits.scopes.settings if limits.scopes is not None else ScopeSettings()
    scope = settings.named(name, {*known.tokens.values(), *known.usage})
    if scope is None:
        projects = ", ".join(each.scope_id for each in settings.scopes if each.kind == "project") or "none"
        detail = f"this organization has no {name!r}; known: {projects}"
        raise Problem(400, "unknown_scope", detail, attr="scope")
    if asked.meter not in scope.caps and not asked.names("quota"):
        detail = f"{name} has no limit on {asked.meter}; ask with quota, in units"
        raise Problem(400, "no_limit", detail, attr="quota")
    period = customer.schedule.period_containing(now)
    inputs = scope_inputs(name, asked.meter, scope, customer=customer, known=known, period=period)
    if asked.names("quota"):
        inputs = replace(inputs, quota=asked.quota)
    if asked.usage is not None:
        inputs = replace(inputs, usage=asked.usage)
    found = forecast_scope(
        inputs,
        schedule=customer.schedule,
        rules=rules,
        rate=assumed_rate(asked, present_scope_rate(inputs, now=now)),
        now=now,
        periods=asked.periods,
    )
    return to_wire_forecast(found, asked, organization_id=limits.organization_id, now=now)

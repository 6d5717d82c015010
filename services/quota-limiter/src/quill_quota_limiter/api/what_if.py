"""``POST /v1/limits/{organization}/what-if``: when would a meter be limited, were things otherwise?"""

from typing import Annotated, Any

from fastapi import APIRouter, Header
from quill_runtime.clock import Clock
from quill_runtime.problems import Problem

from quill_quota_limiter.api.authorization import Gate
from quill_quota_limiter.api.limits import known_limits
from quill_quota_limiter.domain.organization_facts import OrganizationFacts
from quill_quota_limiter.domain.what_if import forecast, present_rate
from quill_quota_limiter.ports import LimitsStore
from quill_quota_limiter.wire.rules import to_table
from quill_quota_limiter.wire.what_if import PriceUnknown, WhatIfAsked, assume, assumed_rate, to_wire_forecast


def router(*, store: LimitsStore, gate: Gate, clock: Clock) -> APIRouter:
    """What-if: reads current facts, simulates, writes nothing."""
    routes = APIRouter(tags=["limits"])

    @routes.post("/v1/limits/{organization_id}/what-if")
    async def what_if(
        organization_id: str, asked: WhatIfAsked, authorization: Annotated[str | None, Header()] = None
    ) -> dict[str, Any]:
        """Let usage go on and say when the meter would be limited, with each change until then (L7)."""
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
        if asked.meter not in limits.meters:
            known = ", ".join(sorted(limits.meters)) or "none"
            detail = f"this organization has no meter {asked.meter!r}; known: {known}"
            raise Problem(400, "unknown_usage_key", detail, attr="meter")
        if asked.rule_version is not None:
            if asked.rule_version not in documents:
                detail = f"there is no rule version {asked.rule_version}; known: {', '.join(map(str, documents))}"
                raise Problem(400, "unknown_version", detail, attr="rule_version")
            rules = to_table(asked.rule_version, documents[asked.rule_version])
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

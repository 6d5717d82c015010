"""What-if questions and their answers over HTTP."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from quill_contracts.identifiers import QUANTITY_MAX, Instant, Quantity, UsageKey
from quill_pricing.billed_quantity import BillingTerms
from quill_pricing.money import Money
from quill_pricing.price import price_from_document
from quill_pricing.quota import quota_for

from quill_quota_limiter.domain.credit_balance import CreditBalance
from quill_quota_limiter.domain.entitlement import Entitlement
from quill_quota_limiter.domain.organization_facts import OrganizationFacts
from quill_quota_limiter.domain.period_usage import OrganizationUsage, PeriodQuantities
from quill_quota_limiter.domain.scope import ORGANIZATION
from quill_quota_limiter.domain.what_if import Forecast, Step, UsageRate
from quill_quota_limiter.wire import CENTS_PER_DOLLAR

PERIODS_MAX: Final = 12
DAY: Final = timedelta(days=1)
SCOPE_PATTERN: Final = "^(team|project):[^/]+$"
ASSUMED_OF_SCOPES: Final = ("quota", "usage", "usage_per_day", "rule_version")


class PriceUnknown(ValueError):
    """What a billing limit buys cannot be said: the meter's price has not been published to this service."""


class WhatIfAsked(BaseModel):
    """What to assume; what is not named is as it is. ``null`` means none: no quota, no billing limit, no trial."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    meter: UsageKey
    scope: Annotated[str, Field(pattern=SCOPE_PATTERN, max_length=200)] | None = None
    """A team or project to ask about instead of the organization; a team need not have a limit yet."""
    quota: Quantity | None = None
    billing_limit_usd: Annotated[int, Field(ge=0, le=10**12, strict=True)] | None = None
    subscribed: bool | None = None
    trust_score: Literal[0, 3, 7, 10, 15] | None = None
    never_drop_data: bool | None = None
    usage: Quantity | None = None
    usage_per_day: Quantity | None = None
    free_trial_until: Instant | None = None
    credit_balance_minor: int | None = None
    rule_version: Annotated[int, Field(ge=1)] | None = None
    periods: Annotated[int, Field(ge=1, le=PERIODS_MAX)] = 1

    def names(self, field: str) -> bool:
        """Whether the question says something about it, be it null."""
        return field in self.model_fields_set

    @property
    def assumed(self) -> dict[str, Any]:
        """What was named, as it was named."""
        return {
            name: value
            for name, value in self.model_dump(mode="json", exclude_unset=True).items()
            if name not in ("meter", "scope", "periods")
        }

    @property
    def meaningless_for_scopes(self) -> str | None:
        """The first thing assumed that plays no part in the limit of a team or project; ``None`` without any."""
        return next((name for name in self.assumed if name not in ASSUMED_OF_SCOPES), None)


def assume(
    asked: WhatIfAsked, facts: OrganizationFacts, price: dict[str, object] | None, *, now: datetime
) -> OrganizationFacts:
    """The facts with what is assumed in their place.

    Raises:
        PriceUnknown: a billing limit or a subscription is assumed and the price is not known.
    """
    customer = facts.customer
    trial_end = asked.free_trial_until if asked.names("free_trial_until") else customer.free_trial_until
    entitlement = _entitlement(asked, customer.entitlement(asked.meter), price)
    period = customer.schedule.period_containing(now)
    told = customer.entitlement(asked.meter).terms_in(period, free_trial_until=customer.free_trial_until)
    is_paid = entitlement.subscribed and (trial_end is None or trial_end <= now)
    assumed_terms = BillingTerms(now, is_paid=is_paid, limit=entitlement.quota)
    before = tuple(each for each in told if each.effective_at < now)
    entitlement = replace(entitlement, terms=(*before, assumed_terms))
    others = tuple(each for each in customer.entitlements if each.usage_key != asked.meter)
    customer = replace(customer, entitlements=(*others, entitlement))
    customer = replace(customer, free_trial_until=trial_end)
    usage, balance = facts.usage, facts.credits
    if asked.usage is not None:
        known = usage.in_period(period.start) if usage else None
        known = known or PeriodQuantities(period.start, period.end, now, {})
        used = replace(known, as_of=now, quantities={**known.quantities, asked.meter: asked.usage})
        usage = OrganizationUsage(customer.organization_id, usage.revision if usage else 0, (used,))
    if asked.credit_balance_minor is not None:
        balance = CreditBalance(customer.organization_id, 0, "usd", asked.credit_balance_minor)
    return OrganizationFacts(customer, usage, balance)


def assumed_rate(asked: WhatIfAsked, present: UsageRate) -> UsageRate:
    """The rate that is asked for, or the present one."""
    return present if asked.usage_per_day is None else UsageRate(asked.usage_per_day, DAY)


def to_wire_forecast(forecast: Forecast, asked: WhatIfAsked, *, organization_id: str, now: datetime) -> dict[str, Any]:
    """When the meter would be limited, and every change on the way."""
    limited = forecast.limited
    return {
        "organization_id": organization_id,
        "usage_key": asked.meter,
        "scope": asked.scope or ORGANIZATION,
        "at": now,
        "assumed": asked.assumed,
        "usage_per_day": forecast.rate.units_per_day,
        "until": forecast.until,
        "limited_at": limited.at if limited else None,
        "sentence": _sentence(forecast, asked.meter if asked.scope is None else f"{asked.meter} of {asked.scope}", now),
        "timeline": [_step(step) for step in forecast.steps],
    }


def _entitlement(asked: WhatIfAsked, known: Entitlement, price: dict[str, object] | None) -> Entitlement:
    subscribed = known.subscribed if asked.subscribed is None else asked.subscribed
    limit = asked.billing_limit_usd if asked.names("billing_limit_usd") else known.billing_limit_usd
    quota = known.quota
    if asked.names("billing_limit_usd") or asked.subscribed is not None:
        if price is None and limit is not None and subscribed:
            raise PriceUnknown(f"the price of {asked.meter} is not known here; ask with quota, in units, instead")
        bought = quota_for(
            price=None if price is None else price_from_document(price),
            allowance=known.allowance,
            subscribed=subscribed,
            billing_limit=None if limit is None else Money(limit * CENTS_PER_DOLLAR),
        )
        quota = None if bought is None else min(bought, QUANTITY_MAX)
    return replace(
        known,
        quota=asked.quota if asked.names("quota") else quota,
        billing_limit_usd=limit,
        subscribed=subscribed,
        trust_score=asked.trust_score if asked.names("trust_score") else known.trust_score,
        never_drop_data=known.never_drop_data if asked.never_drop_data is None else asked.never_drop_data,
    )


def _sentence(forecast: Forecast, meter: str, now: datetime) -> str:
    pace = f"at {forecast.rate.units_per_day:,} a day"
    limited = forecast.limited
    if limited is None:
        return f"{meter} would not be limited before {forecast.until:%Y-%m-%d %H:%M} UTC {pace}."
    if limited.at == now:
        return f"{meter} would be limited now: {limited.decision.sentence}"
    days = (limited.at - now) // DAY
    return f"{meter} would be limited at {limited.at:%Y-%m-%d %H:%M} UTC, in {days:,} days, {pace}."


def _step(step: Step) -> dict[str, Any]:
    decision = step.decision
    return {
        "at": step.at,
        "state": decision.state,
        "usage": step.usage,
        "rule": decision.rule,
        "rule_version": decision.rule_version,
        "limited_until": decision.limited_until,
        "suspended_until": decision.suspended_until,
        "sentence": decision.sentence,
    }

"""May this scope go on using this meter? A limit that a person set is exact: no buffer, no grace, no trust (L7, L10).

The rules of an organization's quota protect a customer from us. A limit on a team is the customer's own wish, and the
customer who asked for 5,000 gets 5,000.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any, Final

from quill_pricing.budget import greatest_quantity_within
from quill_pricing.money import Money
from quill_pricing.period import BillingPeriod
from quill_pricing.price import price_from_document
from quill_pricing.rating import amount_minor

from quill_quota_limiter.domain.limit_decision import NO_QUOTA, UNDER_QUOTA, Decision
from quill_quota_limiter.domain.limit_state import StateName
from quill_quota_limiter.domain.rule_table import RuleTable
from quill_quota_limiter.domain.scope import Cap

SCOPE_LIMIT: Final = "scope_limit"


@dataclass(frozen=True, slots=True)
class ScopeInputs:
    """Everything one decision about a scope looks at, beside the rule table (L7).

    Attributes:
        scope: its id, for the sentence.
        usage_key: the meter.
        quota: units that the cap allows; ``None`` for no limit, also after it was removed.
        usage: units that the scope's teams used together in ``period``, today included; never reported is nothing used.
        period: the billing period that contains the instant of the decision.
    """

    scope: str
    usage_key: str
    quota: int | None
    usage: int
    period: BillingPeriod


def decide_scope(inputs: ScopeInputs, *, rules: RuleTable) -> Decision:
    """Decide one meter of one scope.

    What was decided before plays no part: raised, removed, another team or another billing period release at once (L9).
    """
    quota, usage = inputs.quota, inputs.usage
    end = inputs.period.end
    until = f"{end.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    subject = f"{inputs.usage_key} of {inputs.scope}"
    state: StateName
    if quota is None:
        state, rule, sentence = "within", NO_QUOTA, f"{subject} not limited: no limit is set."
    elif usage >= quota:
        state, rule = "limited", SCOPE_LIMIT
        sentence = f"{subject} limited until {until}: {usage:,} of {quota:,} used, and a limit that was set is exact."
    else:
        state, rule = ("near" if usage * 100 >= quota * rules.near_percent else "within"), UNDER_QUOTA
        sentence = f"{subject} not limited: {usage:,} of {quota:,} used, below the limit."
    return Decision(
        state=state,
        rule=rule,
        rule_version=rules.version,
        sentence=sentence,
        buffer=0,
        grace_days=0,
        limited_until=end if state == "limited" else None,
    )


def units_of(cap: Cap | None, *, price: Mapping[str, Any] | None, allowance: int) -> int | None:
    """What a cap is in units; ``None`` for no limit.

    Money buys paid units, from the first one on. The free allowance is the organization's and all its teams draw on it,
    so it is taken off: whoever used it up, a team capped at $50 never makes more than $50 of the bill, as long as
    prices do not rise with volume.

    A meter without a price, or with one in another currency than the money, costs nothing that could be compared: no
    limit. Settings are refused for that when they are made; a price may change later.
    """
    if cap is None or cap.units is not None or cap.money_minor is None or cap.currency is None:
        return None if cap is None else cap.units
    if price is None:
        return None
    parsed = price_from_document(price)
    if parsed.currency != cap.currency:
        return None
    budget = Money(cap.money_minor + amount_minor(parsed, allowance), cap.currency)
    bought = greatest_quantity_within(price=parsed, budget=budget, at_least=allowance)
    return None if bought is None else bought - allowance

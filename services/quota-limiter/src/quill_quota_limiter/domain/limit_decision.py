"""May this meter be used? The rules of wire contract 4, in their order, as one pure function (L7).

Rule 5 of the contract, PostHog's feature flag that keeps data past the quota, is PostHog's own and has no place here:
billing does not know its flags. Two rules stand before the contract's, which has neither free trials nor credits: a
trial lifts what only the free tier limits, and a meter paid by credits is limited when they are used up.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from typing import Final

from quill_pricing.billed_quantity import MeteredUsage, billed_quantity, is_paid_in
from quill_pricing.period import BillingPeriod

from quill_quota_limiter.domain.entitlement import Entitlement
from quill_quota_limiter.domain.limit_state import LimitState, StateName
from quill_quota_limiter.domain.rule_table import RuleTable

FREE_TRIAL: Final = "free_trial"
CREDITS_EXHAUSTED: Final = "credits_exhausted"
NO_QUOTA: Final = "no_quota"
NO_USAGE: Final = "no_usage"
UNDER_QUOTA: Final = "under_quota"
NEVER_DROP_DATA: Final = "never_drop_data"
ALREADY_LIMITED: Final = "already_limited"
NO_GRACE: Final = "no_grace"
GRACE_STARTED: Final = "grace_started"
GRACE_RUNNING: Final = "grace_running"
GRACE_EXPIRED: Final = "grace_expired"

_CONTINUING: Final = frozenset({ALREADY_LIMITED, GRACE_RUNNING})


@dataclass(frozen=True, slots=True)
class Decision:
    """What holds for one meter from now on, and the rule that said so."""

    state: StateName
    rule: str
    rule_version: int
    sentence: str
    buffer: int
    grace_days: int
    limited_until: datetime | None = None
    suspended_until: datetime | None = None

    @property
    def is_continuation(self) -> bool:
        """Whether the rule only keeps up what another rule began; that one is the reason worth telling."""
        return self.rule in _CONTINUING

    def differs_from(self, previous: LimitState | None) -> bool:
        """Whether this is a change worth an event: another state, or another end of the same one."""
        return previous is None or (self.state, self.limited_until, self.suspended_until) != (
            previous.name,
            previous.limited_until,
            previous.suspended_until,
        )


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything one decision looks at, beside the previous state and the instant (L7).

    Attributes:
        entitlement: the meter's quota and what softens it.
        usage: units that the quota is compared with, today included: what is charged of ``period`` while the meter is
            paid, everything used otherwise; ``None`` when no usage of the organization was ever heard of.
        period: the billing period that contains the instant of the decision.
        free_trial_until: exclusive end of the customer's free trial.
        credit_balance_minor: what is left of the customer's credits; ``None`` when no balance was ever heard of.
        used: everything used in ``period``; ``None`` is the same as ``usage``.
        greatest: the usage that a bill depends on; ``None`` is ``usage``, all in the period.
    """

    entitlement: Entitlement
    usage: int | None
    period: BillingPeriod
    free_trial_until: datetime | None = None
    credit_balance_minor: int | None = None
    used: int | None = None
    greatest: MeteredUsage | None = None

    @property
    def billed(self) -> int | None:
        """Units that the invoice would bill now (L12); ``None`` when the meter was not paid in the period."""
        terms = self.entitlement.terms_in(self.period, free_trial_until=self.free_trial_until)
        if not is_paid_in(terms, self.period):
            return None
        return billed_quantity(self.greatest or MeteredUsage(self.usage or 0), terms, self.period)

    @property
    def not_charged(self) -> int:
        """Units used in the period that the quota is not compared with."""
        return 0 if self.used is None or self.usage is None else self.used - self.usage


@dataclass(frozen=True, slots=True)
class _Outcome:
    rule: str
    state: StateName
    why: str
    until: datetime | None = None


def decide(inputs: Inputs, previous: LimitState | None, *, rules: RuleTable, now: datetime) -> Decision:
    """Decide one meter from its own inputs alone (L7, L10).

    Args:
        inputs: the meter's facts.
        previous: where the limit stood; a state entered in an earlier period holds nobody back in this one (L9).
        rules: the numbers to decide with.
        now: the instant of the decision, inside ``inputs.period``.
    """
    entitlement, period = inputs.entitlement, inputs.period
    special = rules.resource(entitlement.usage_key)
    grace_days = rules.grace_days(entitlement.usage_key, entitlement.trust_score)
    outcome = _before_the_quota(inputs, rules, now=now) or _not_limited(inputs, rules)
    if outcome is None:
        is_of_this_period = previous is not None and previous.since >= period.start
        over = _over_quota(
            entitlement.trust_score,
            previous if is_of_this_period else None,
            grace_days=grace_days,
            period_end=period.end,
            now=now,
            is_exempt=special.is_exempt,
        )
        outcome = replace(over, why=f"{_so_far(inputs)}; {over.why}")
    return Decision(
        state=outcome.state,
        rule=outcome.rule,
        rule_version=rules.version,
        sentence=_sentence(entitlement.usage_key, outcome),
        buffer=special.buffer,
        grace_days=grace_days,
        limited_until=outcome.until if outcome.state == "limited" else None,
        suspended_until=outcome.until if outcome.state == "suspended" else None,
    )


def _before_the_quota(inputs: Inputs, rules: RuleTable, *, now: datetime) -> _Outcome | None:
    """Used-up credits and free trials, which hold whatever the quota is; ``None`` when neither applies."""
    entitlement = inputs.entitlement
    special = rules.resource(entitlement.usage_key)
    balance = inputs.credit_balance_minor
    keeps_data = entitlement.never_drop_data and not special.is_exempt
    if special.is_paid_by_credits and balance is not None and balance <= 0 and not keeps_data:
        return _Outcome(CREDITS_EXHAUSTED, "limited", "the credits that pay for it are used up", inputs.period.end)
    trial_end = inputs.free_trial_until
    is_free_tier = entitlement.quota is not None and not entitlement.subscribed
    if trial_end is not None and now < trial_end and is_free_tier and entitlement.in_trial:
        return _Outcome(FREE_TRIAL, "within", f"a free trial runs until {_instant(trial_end)}")
    return None


def _not_limited(inputs: Inputs, rules: RuleTable) -> _Outcome | None:
    """Rules 1 to 3: the reasons not to limit at all; ``None`` when there is none."""
    entitlement, usage = inputs.entitlement, inputs.usage
    quota = entitlement.quota
    special = rules.resource(entitlement.usage_key)
    if quota is None:  # 1
        return _Outcome(NO_QUOTA, "within", "there is no quota")
    if usage is None and quota + special.buffer > 0:  # 1
        return _Outcome(NO_USAGE, "within", f"no usage has been reported yet; the quota is {quota:,}")
    # A meter that is not part of the free plan has quota 0, which nothing used reaches, reported or not.
    usage = usage or 0
    name: StateName = "near" if usage * 100 >= quota * rules.near_percent else "within"
    so_far = _so_far(inputs)
    if usage < quota + special.buffer:  # 2
        where = "below the quota" if usage < quota else f"inside the buffer of {special.buffer:,}"
        return _Outcome(UNDER_QUOTA, name, f"{so_far}, {where}")
    if entitlement.never_drop_data and not special.is_exempt:  # 3
        return _Outcome(NEVER_DROP_DATA, name, f"{so_far}, but this customer's data is never dropped")
    return None


def _so_far(inputs: Inputs) -> str:
    """Both numbers where they differ, so that a person can follow the decision (L7)."""
    charged = f"{inputs.usage or 0:,} of {inputs.entitlement.quota:,} used"
    if not inputs.not_charged:
        return charged
    return f"{charged} ({inputs.used:,} in the billing period, of which {inputs.not_charged:,} are not charged)"


def _over_quota(
    trust_score: int | None,
    previous: LimitState | None,
    *,
    grace_days: int,
    period_end: datetime,
    now: datetime,
    is_exempt: bool,
) -> _Outcome:
    """Rules 4 to 8: over the quota; limited now, or after a grace. ``previous`` is a state of this billing period."""
    if previous is not None and previous.name == "limited":  # 4
        why = "already limited in this billing period, which a better trust score does not undo"
        return _Outcome(ALREADY_LIMITED, "limited", why, period_end)
    if grace_days == 0:  # 6
        why = "this meter is exempt from grace" if is_exempt else f"trust score {trust_score or 0} gives no grace"
        return _Outcome(NO_GRACE, "limited", why, period_end)
    midnight = _next_midnight(now)
    suspended_until = previous.suspended_until if previous else None
    if suspended_until is None:  # 7
        until = midnight + timedelta(days=grace_days)
        return _Outcome(GRACE_STARTED, "suspended", f"{grace_days} days of grace begin", until)
    if midnight <= suspended_until:  # 8
        return _Outcome(GRACE_RUNNING, "suspended", "the grace still runs", suspended_until)
    return _Outcome(GRACE_EXPIRED, "limited", f"the grace ended at {_instant(suspended_until)}", period_end)


def _next_midnight(now: datetime) -> datetime:
    """The end of the UTC day that contains ``now``, exclusive."""
    return datetime.combine(now.astimezone(UTC).date() + timedelta(days=1), time(), UTC)


def _sentence(usage_key: str, outcome: _Outcome) -> str:
    match outcome.state:
        case "within" | "near":
            what = "not limited"
        case "suspended":
            what = f"over quota, limiting suspended until {_instant(outcome.until)}"
        case "limited":
            what = f"limited until {_instant(outcome.until)}"
    return f"{usage_key} {what}: {outcome.why}."


def _instant(instant: datetime | None) -> str:
    return "" if instant is None else f"{instant.astimezone(UTC):%Y-%m-%d %H:%M} UTC"

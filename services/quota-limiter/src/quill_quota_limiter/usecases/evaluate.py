"""Take in facts and decide: customers, usage, credits, and what time or other rules change by themselves."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, TypeVar

import structlog
from prometheus_client import Counter

from quill_quota_limiter.domain.credit_balance import CreditBalance
from quill_quota_limiter.domain.entitlement import Customer
from quill_quota_limiter.domain.evaluation import Evaluation, OrganizationLimits, evaluate
from quill_quota_limiter.domain.organization_facts import OrganizationFacts
from quill_quota_limiter.domain.period_usage import OrganizationUsage
from quill_quota_limiter.domain.shadow import ShadowEvaluation, ShadowLimits, evaluate_shadow
from quill_quota_limiter.ports import ActiveRules, AnswerBoard, LimitsStore, LimitsTransaction
from quill_quota_limiter.usecases.answers import publish_answers
from quill_quota_limiter.usecases.scope_facts import read_scope_facts

DUE_PAGE: Final = 200
DUE_PAGES_MAX: Final = 50
WALK_PAGE: Final = 200
WALK_PAGES_MAX: Final = 50
CONFIRM_AFTER: Final = timedelta(seconds=10)
"""A due organization stays due this much later until its answer is up: a crash in between evaluates it once more."""

PERIOD_MISMATCHES = Counter(
    "quill_limit_period_mismatches", "Evaluations whose usage is counted in another billing period than the schedule's"
)

Decided = Sequence[OrganizationLimits]
F = TypeVar("F", Customer, OrganizationUsage, CreditBalance)

log = structlog.get_logger(__name__)


async def take_in_customers(customers: Sequence[Customer], *, tx: LimitsTransaction, now: datetime) -> Decided:
    """Keep newer customers and decide their organizations anew, in both directions at once (L9).

    Returns:
        The limits decided: what is to be put up after the commit.
    """
    newest = _newest(customers)
    locked = await tx.lock_organizations(newest.keys())
    tokens_changed = await tx.keep_customers(newest.values())
    return await evaluate_organizations(locked, tokens_changed=tokens_changed, tx=tx, now=now)


async def take_in_usage(usages: Sequence[OrganizationUsage], *, tx: LimitsTransaction, now: datetime) -> Decided:
    """Keep newer usage and decide the organizations whose customer is known; the others wait for their customer.

    Returns:
        The limits decided: what is to be put up after the commit.
    """
    newest = _newest(usages)
    locked = await tx.lock_organizations(newest.keys())
    in_force = await tx.keep_usage(newest.values())
    return await evaluate_organizations(locked, tokens_changed=frozenset(), tx=tx, now=now, usages=in_force)


async def evaluate_due(*, store: LimitsStore, board: AnswerBoard, now: datetime) -> int:
    """Decide organizations whose state time alone may have changed: a grace or a billing period has ended.

    Returns:
        How many organizations were evaluated.
    """
    total = 0
    for _ in range(DUE_PAGES_MAX):
        async with store.begin() as tx:
            due = await tx.due_organizations(now, at_most=DUE_PAGE)
            locked = await tx.lock_organizations(due)
            evaluated = await evaluate_organizations(
                locked, tokens_changed=frozenset(), tx=tx, now=now, confirm_at=now + CONFIRM_AFTER
            )
        if not due:
            break
        await publish_answers(due, store=store, board=board)
        async with store.begin() as tx:
            await tx.schedule_evaluations(evaluated)
        total += len(due)
        if len(due) < DUE_PAGE:
            break
    return total


async def take_in_credits(balances: Sequence[CreditBalance], *, tx: LimitsTransaction, now: datetime) -> Decided:
    """Keep newer credit balances; credits that run out or come back act at once (L9).

    Returns:
        The limits decided: what is to be put up after the commit.
    """
    newest = _newest(balances)
    locked = await tx.lock_organizations(newest.keys())
    await tx.keep_credits(newest.values())
    return await evaluate_organizations(locked, tokens_changed=frozenset(), tx=tx, now=now)


async def walk_everybody(*, store: LimitsStore, board: AnswerBoard, now: datetime) -> int:
    """Go on deciding every organization anew after the rules changed, a page per transaction, from where it stopped.

    Replicas take turns by the rules' row. An organization decided by a consumer in between has the new rules already,
    since rules are read under the organization's lock.

    Returns:
        How many organizations were decided.
    """
    total = 0
    for _ in range(WALK_PAGES_MAX):
        async with store.begin() as tx:
            standing = await tx.rulebook.lock_standing(wait=False)
            if standing is None or standing.walked_to is None:
                break
            page = await tx.known_limits_after(standing.walked_to, at_most=WALK_PAGE)
            names = [limits.organization_id for limits in page]
            locked = await tx.lock_organizations(names)
            evaluated = await evaluate_organizations(
                locked, tokens_changed=frozenset(), tx=tx, now=now, confirm_at=now + CONFIRM_AFTER
            )
            is_last = len(page) < WALK_PAGE
            await tx.rulebook.save_standing(replace(standing, walked_to=None if is_last else names[-1]))
        await publish_answers(names, store=store, board=board)
        async with store.begin() as tx:
            await tx.schedule_evaluations(evaluated)
        total += len(names)
        if is_last:
            log.info("rules.everybody_decided", in_force=standing.in_force, shadow=standing.shadow)
            break
    return total


async def evaluate_organizations(
    locked: Mapping[str, OrganizationLimits],
    *,
    tokens_changed: frozenset[str],
    tx: LimitsTransaction,
    now: datetime,
    confirm_at: datetime | None = None,
    usages: Mapping[str, OrganizationUsage] | None = None,
) -> Decided:
    """Decide locked organizations whose customer is known; returns them with their true next evaluation.

    ``usages`` of all of them, where the caller has them in hand.
    """
    customers = await tx.customers(locked.keys())
    if not customers:
        return []
    rules = await tx.rulebook.active()
    if usages is None:
        usages = await tx.usages(customers.keys())
    balances = await tx.credits(customers.keys())
    scopes = await read_scope_facts([locked[name] for name in customers], tx=tx)
    prices = await tx.prices_of([name for name in customers if locked[name].spend_thresholds])
    inputs: list[_Inputs] = []
    for name, customer in sorted(customers.items()):
        facts = OrganizationFacts(
            customer, usages.get(name), balances.get(name), scopes.get(name), prices=prices.get(name, {})
        )
        changed = name in tokens_changed
        evaluation = evaluate(locked[name], facts=facts, rules=rules.in_force, tokens_changed=changed, now=now)
        _watch_periods(evaluation.limits, facts.usage)
        inputs.append(_Inputs(locked[name], facts, evaluation))
    evaluations = await _run_the_shadow(inputs, rules=rules, tx=tx, now=now)
    await tx.save(evaluations if confirm_at is None else [_due_at(each, confirm_at) for each in evaluations])
    return [evaluation.limits for evaluation in evaluations]


@dataclass(frozen=True, slots=True)
class _Inputs:
    before: OrganizationLimits
    facts: OrganizationFacts
    evaluation: Evaluation


async def _run_the_shadow(
    decided: Sequence[_Inputs], *, rules: ActiveRules, tx: LimitsTransaction, now: datetime
) -> list[Evaluation]:
    """Decide with the shadow table too, if there is one. It changes nothing but when to look again."""
    evaluations = [each.evaluation for each in decided]
    if rules.shadow is None:
        return evaluations
    run = rules.shadow_run
    known = await tx.rulebook.shadow_limits([each.before.organization_id for each in decided], run=run)
    shadows: list[ShadowEvaluation] = []
    for each in decided:
        name = each.before.organization_id
        shadows.append(
            evaluate_shadow(
                known.get(name, ShadowLimits(name, run)),
                before=each.before,
                evaluation=each.evaluation,
                facts=each.facts,
                rules=rules.shadow,
                live_rules=rules.in_force,
            )
        )
    await tx.rulebook.save_shadow(shadows, now=now)
    return [
        _due_at(evaluation, min(shadow.next_evaluation_at, evaluation.limits.next_evaluation_at or now))
        for evaluation, shadow in zip(evaluations, shadows, strict=True)
    ]


def _due_at(evaluation: Evaluation, instant: datetime) -> Evaluation:
    return replace(evaluation, limits=replace(evaluation.limits, next_evaluation_at=instant))


def _watch_periods(limits: OrganizationLimits, usage: OrganizationUsage | None) -> None:
    if usage is None or limits.period_start is None or limits.evaluated_at is None:
        return
    if usage.is_counted_otherwise(limits.period_start, now=limits.evaluated_at):
        PERIOD_MISMATCHES.inc()
        log.info("usage.of_another_period", organization_id=limits.organization_id, expected=limits.period_start)


def _newest(facts: Iterable[F]) -> dict[str, F]:
    """The highest revision per organization: within a batch, too, only the newest snapshot counts."""
    newest: dict[str, F] = {}
    for fact in facts:
        known = newest.get(fact.organization_id)
        if known is None or fact.revision > known.revision:
            newest[fact.organization_id] = fact
    return newest

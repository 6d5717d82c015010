"""Kafka entry points: customers and period usage in, one organization's decisions in one transaction."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Protocol, TypeVar

from quill_contracts import topics
from quill_contracts.invoices import CreditBalance as WireCreditBalance
from quill_contracts.subscriptions import CustomerSnapshot
from quill_contracts.usage import PeriodUsageSnapshot, TeamUsageSnapshot
from quill_runtime.consumption import Consumption, FollowUp, Received, Record, Rejected
from quill_runtime.database import Transaction

from quill_quota_limiter import wire
from quill_quota_limiter.domain.credit_balance import CreditBalance
from quill_quota_limiter.domain.entitlement import Customer
from quill_quota_limiter.domain.period_usage import OrganizationUsage
from quill_quota_limiter.domain.team_usage import TeamUsage
from quill_quota_limiter.ports import AnswerBoard, LimitsStore, LimitsTransaction
from quill_quota_limiter.usecases.answers import put_up
from quill_quota_limiter.usecases.evaluate import Decided, take_in_credits, take_in_customers, take_in_usage
from quill_quota_limiter.usecases.take_in_team_usage import take_in_team_usage
from quill_quota_limiter.wire.scope_states import from_wire_team_usage

GROUP = "quota-limiter"

F = TypeVar("F")
_TakeIn = Callable[..., Awaitable[Decided]]
"""`take_in_customers`, `take_in_usage`, `take_in_team_usage` or `take_in_credits`."""
_Apply = Callable[[Transaction, Sequence[Received[F]], datetime], Awaitable[FollowUp | None]]


class TransactionalStore(LimitsStore, Protocol):
    """A store that can also work inside the consumer's transaction."""

    def within(self, transaction: Transaction) -> LimitsTransaction: ...


def customers(store: TransactionalStore, board: AnswerBoard) -> Consumption[Customer]:
    """``subscriptions.customers.v1``: a change of plan, limit, trust or project takes effect at once (L9)."""
    return Consumption(
        topic=topics.CUSTOMERS.name,
        group=GROUP,
        decode=_decode_customer,
        apply=_applying(take_in_customers, store, board),
    )


def period_usage(store: TransactionalStore, board: AnswerBoard) -> Consumption[OrganizationUsage]:
    """``usage.period-usage.v1``: each new total is compared with its quota."""
    return Consumption(
        topic=topics.PERIOD_USAGE.name,
        group=GROUP,
        decode=_decode_usage,
        apply=_applying(take_in_usage, store, board),
    )


def team_usage(store: TransactionalStore, board: AnswerBoard) -> Consumption[TeamUsage]:
    """``usage.team-usage.v1``: what limits of teams and projects are compared with."""
    return Consumption(
        topic=topics.TEAM_USAGE.name,
        group=GROUP,
        decode=_decode_team_usage,
        apply=_applying(take_in_team_usage, store, board),
    )


def credit_balances(store: TransactionalStore, board: AnswerBoard) -> Consumption[CreditBalance]:
    """``invoicing.credits.v1``: what pays for meters that are paid by credits."""
    return Consumption(
        topic=topics.CREDITS.name,
        group=GROUP,
        decode=_decode_credits,
        apply=_applying(take_in_credits, store, board),
    )


def _applying(take_in: _TakeIn, store: TransactionalStore, board: AnswerBoard) -> _Apply[F]:
    async def apply(transaction: Transaction, received: Sequence[Received[F]], now: datetime) -> FollowUp:
        decided = await take_in([item.message for item in received], tx=store.within(transaction), now=now)
        # Also for records seen before: the crash may have come between the commit and the board.
        return partial(put_up, decided, store=store, board=board)

    return apply


def _decode_customer(record: Record) -> Customer:
    return wire.from_wire_customer(CustomerSnapshot.from_bytes(_value(record)))


def _decode_usage(record: Record) -> OrganizationUsage:
    return wire.from_wire_usage(PeriodUsageSnapshot.from_bytes(_value(record)))


def _decode_team_usage(record: Record) -> TeamUsage:
    return from_wire_team_usage(TeamUsageSnapshot.from_bytes(_value(record)))


def _decode_credits(record: Record) -> CreditBalance:
    return wire.from_wire_credits(WireCreditBalance.from_bytes(_value(record)))


def _value(record: Record) -> bytes:
    if record.value is None:
        raise Rejected("empty_value", "a snapshot cannot be empty: what is known of an organization is never erased")
    return record.value

"""What somebody asks of a customer, and the events that follow from it. A repeat of what already holds has none."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from quill_subscriptions.domain.customer import (
    BillingLimitsChanged,
    CollectionMode,
    Customer,
    CustomerEvent,
    CustomerRegistered,
    FurtherLicensesChanged,
    NeverDropDataChanged,
    OrganizationRenamed,
    Project,
    ProjectsRegistered,
    QuantitiesChanged,
    SubscribedProduct,
    Subscription,
    SubscriptionCancelled,
    SubscriptionStarted,
    TrialSet,
    TrustScore,
    TrustScoresChanged,
)

MONTHLY = "1 month"
FURTHER_LICENSES_MAX = 1_000
"""As many as a customer snapshot may name."""


@dataclass(frozen=True, slots=True)
class Register:
    """Make an organization a customer of a license."""

    organization_id: str
    organization_name: str
    customer_id: str
    license_id: str
    license_type: str


@dataclass(frozen=True, slots=True)
class Rename:
    """The organization has another name."""

    organization_name: str


@dataclass(frozen=True, slots=True)
class StartSubscription:
    """Begin paying for these products; the billing schedule stays."""

    subscription_id: str
    products: tuple[SubscribedProduct, ...]
    collection_mode: CollectionMode


@dataclass(frozen=True, slots=True)
class CancelSubscription:
    """Stop paying, at once; the free allowance remains."""


@dataclass(frozen=True, slots=True)
class ChangeQuantities:
    """Hold these quantities of licensed products from now on; products not named keep theirs."""

    quantities: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ChangeBillingLimits:
    """Set or remove limits now, and say which of them end with the current billing period."""

    limits: Mapping[str, int | None]
    ending_with_period: frozenset[str]
    next_period_starts: datetime


@dataclass(frozen=True, slots=True)
class ChangeTrustScores:
    """Set some scores; products not named keep theirs."""

    scores: Mapping[str, TrustScore]


@dataclass(frozen=True, slots=True)
class ChangeNeverDropData:
    """Promise, or stop promising, that no usage of this customer is dropped."""

    never_drop_data: bool


@dataclass(frozen=True, slots=True)
class RegisterProjects:
    """The whole list of the organization's projects."""

    projects: tuple[Project, ...]


@dataclass(frozen=True, slots=True)
class SetTrial:
    """Let a free trial end at this instant; ``None`` removes it."""

    until: datetime | None


@dataclass(frozen=True, slots=True)
class AttachLicense:
    """Bill one more instance on this account."""

    license_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class DetachLicense:
    """Stop billing an instance on this account."""

    license_id: str
    reason: str


CustomerCommand = (
    Register
    | Rename
    | StartSubscription
    | CancelSubscription
    | ChangeQuantities
    | ChangeBillingLimits
    | ChangeTrustScores
    | ChangeNeverDropData
    | RegisterProjects
    | SetTrial
    | AttachLicense
    | DetachLicense
)


class IllegalMove(ValueError):
    """The customer's state does not allow this.

    Attributes:
        code: stable, for machines.
        attribute: the path of the field at fault, e.g. ``quantities__seats``; None when no single field is.
    """

    def __init__(self, code: str, detail: str, *, attribute: str | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.attribute = attribute


def decide(  # noqa: C901, PLR0911, PLR0912 - one branch per command
    customer: Customer | None, command: CustomerCommand, *, now: datetime
) -> tuple[CustomerEvent, ...]:
    """The events that ``command`` causes; none when everything it asks already holds.

    Raises:
        IllegalMove: the customer is not there yet, is there already, or is in the wrong state.
    """
    if isinstance(command, Register):
        return _register(customer, command, now=now)
    if customer is None:
        raise IllegalMove("not_registered", "this organization is not a customer yet")
    match command:
        case Rename():
            return _unless_same(OrganizationRenamed(customer.organization_name, command.organization_name))
        case StartSubscription():
            return _start(customer, command, now=now)
        case CancelSubscription():
            if customer.subscription is None:
                raise IllegalMove("no_active_subscription", "there is no active subscription to cancel")
            return (SubscriptionCancelled(customer.subscription, None),)
        case ChangeQuantities():
            return _change_quantities(customer, command)
        case ChangeBillingLimits():
            return _change_limits(customer, command, now=now)
        case ChangeTrustScores():
            scores = dict(sorted({**customer.trust_scores, **command.scores}.items()))
            return _unless_same(TrustScoresChanged(customer.trust_scores, scores))
        case ChangeNeverDropData():
            return _unless_same(NeverDropDataChanged(customer.never_drop_data, command.never_drop_data))
        case RegisterProjects():
            return _register_projects(customer, command)
        case SetTrial():
            return _unless_same(TrialSet(customer.free_trial_until, command.until))
        case AttachLicense():
            return _attach_license(customer, command)
        case DetachLicense():
            return _detach_license(customer, command)
        case _:
            assert_never(command)


_Change = (
    OrganizationRenamed
    | QuantitiesChanged
    | BillingLimitsChanged
    | TrustScoresChanged
    | NeverDropDataChanged
    | ProjectsRegistered
    | TrialSet
)


def _unless_same(change: _Change) -> tuple[CustomerEvent, ...]:
    return () if change.before == change.after else (change,)


def _register(customer: Customer | None, command: Register, *, now: datetime) -> tuple[CustomerEvent, ...]:
    if customer is not None:
        raise IllegalMove("already_registered", "this organization is a customer already")
    return (
        CustomerRegistered(
            organization_id=command.organization_id,
            organization_name=command.organization_name,
            customer_id=command.customer_id,
            license_id=command.license_id,
            license_type=command.license_type,
            # Usage is counted in whole UTC days, so a billing period must not begin inside one.
            anchor=now.replace(hour=0, minute=0, second=0, microsecond=0),
            interval=MONTHLY,
        ),
    )


def _start(customer: Customer, command: StartSubscription, *, now: datetime) -> tuple[CustomerEvent, ...]:
    if customer.subscription is not None:
        raise IllegalMove("already_subscribed", "there is an active subscription; cancel it before starting another")
    keys = [product.product_key for product in command.products]
    if not keys:
        raise IllegalMove("no_products", "a subscription needs at least one product")
    if len(keys) != len(set(keys)):
        raise IllegalMove("repeated_product", "a subscription names each product once")
    if any(product.quantity < 1 for product in command.products):
        raise IllegalMove("invalid_quantity", "a licensed quantity is one or more")
    started = Subscription(
        subscription_id=command.subscription_id,
        products=command.products,
        collection_mode=command.collection_mode,
        started_at=now,
    )
    return (SubscriptionStarted(before=None, after=started),)


def _change_quantities(customer: Customer, command: ChangeQuantities) -> tuple[CustomerEvent, ...]:
    if customer.subscription is None:
        raise IllegalMove("no_active_subscription", "there is no active subscription; start one with these quantities")
    before: dict[str, int] = {}
    after: dict[str, int] = {}
    for key, quantity in sorted(command.quantities.items()):
        held = customer.subscription.quantity_of(key)
        if held is None:
            raise IllegalMove(
                "not_subscribed", f"the subscription does not include {key}", attribute=f"quantities__{key}"
            )
        if quantity < 1:
            raise IllegalMove(
                "invalid_quantity",
                f"a licensed quantity is one or more, not {quantity}; to hold nothing, cancel the subscription",
                attribute=f"quantities__{key}",
            )
        if quantity != held:
            before[key], after[key] = held, quantity
    return _unless_same(QuantitiesChanged(before, after))


def _change_limits(customer: Customer, command: ChangeBillingLimits, *, now: datetime) -> tuple[CustomerEvent, ...]:
    if command.next_period_starts <= now:
        raise IllegalMove("period_over", "the next billing period must begin after now")
    before = customer.billing_limits.at(now)
    after = before.changed(command.limits).ending_with_period(
        command.ending_with_period, next_period_starts=command.next_period_starts
    )
    return _unless_same(BillingLimitsChanged(before, after))


def _register_projects(customer: Customer, command: RegisterProjects) -> tuple[CustomerEvent, ...]:
    for attribute in ("team_id", "api_token"):
        values = [getattr(project, attribute) for project in command.projects]
        if len(values) != len(set(values)):
            raise IllegalMove(f"repeated_{attribute}", f"each project needs its own {attribute}")
    projects = tuple(sorted(command.projects, key=lambda project: project.team_id))
    return _unless_same(ProjectsRegistered(customer.projects, projects))


def _attach_license(customer: Customer, command: AttachLicense) -> tuple[CustomerEvent, ...]:
    if command.license_id == customer.license_id:
        raise IllegalMove("license_taken", "this license is the account's own already")
    before = customer.further_license_ids
    if command.license_id in before:
        return ()
    if len(before) >= FURTHER_LICENSES_MAX:
        raise IllegalMove("too_many_licenses", f"an account has at most {FURTHER_LICENSES_MAX} further licenses")
    return (FurtherLicensesChanged(before, tuple(sorted({*before, command.license_id})), command.reason),)


def _detach_license(customer: Customer, command: DetachLicense) -> tuple[CustomerEvent, ...]:
    before = customer.further_license_ids
    if command.license_id not in before:
        return ()
    after = tuple(license_id for license_id in before if license_id != command.license_id)
    return (FurtherLicensesChanged(before, after, command.reason),)

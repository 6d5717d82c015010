"""Every legal and illegal move of a customer."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from quill_subscriptions.domain.billing_limits import BillingLimits
from quill_subscriptions.domain.commands import (
    CancelSubscription,
    ChangeBillingLimits,
    ChangeNeverDropData,
    ChangeQuantities,
    ChangeTrustScores,
    CustomerCommand,
    IllegalMove,
    Register,
    RegisterProjects,
    Rename,
    SetTrial,
    StartSubscription,
    decide,
)
from quill_subscriptions.domain.customer import (
    BillingLimitsChanged,
    BrokenHistory,
    Customer,
    CustomerEvent,
    CustomerRegistered,
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
    TrustScoresChanged,
    evolve,
)

NOW = datetime(2026, 3, 17, 9, 30, tzinfo=UTC)
PERIOD_END = datetime(2026, 4, 1, tzinfo=UTC)
ANALYTICS = SubscribedProduct("product_analytics", 1)
SUBSCRIPTION = Subscription("sub-1", (ANALYTICS,), "stripe-rates", NOW)
FREE = Customer(
    organization_id="org-1",
    organization_name="Hedgehog Ltd",
    customer_id="c-1",
    license_id="cloud-eu",
    license_type="cloud",
    registered_at=NOW,
    anchor=datetime(2026, 3, 1, tzinfo=UTC),
    interval="1 month",
)
PAYING = replace(FREE, subscription=SUBSCRIPTION)
SEATED = replace(
    FREE,
    subscription=Subscription(
        "sub-1",
        (ANALYTICS, SubscribedProduct("desks", 4, quantity=2), SubscribedProduct("seats", 1, quantity=3)),
        "stripe-rates",
        NOW,
    ),
)
LIMITED = replace(PAYING, billing_limits=BillingLimits({"product_analytics": 50}))
REGISTER = Register("org-1", "Hedgehog Ltd", "c-1", "cloud-eu", "cloud")
TWO_PROJECTS = (Project("1", "phc_a"), Project("2", "phc_b"))


def limits(changes: dict[str, int | None], *ending: str, starts: datetime = PERIOD_END) -> ChangeBillingLimits:
    return ChangeBillingLimits(changes, frozenset(ending), starts)


def start(*products: SubscribedProduct) -> StartSubscription:
    return StartSubscription("sub-1", products, "stripe-rates")


LEGAL: list[tuple[str, Customer | None, CustomerCommand, tuple[CustomerEvent, ...]]] = [
    (
        "registers with a schedule from the start of the day",
        None,
        REGISTER,
        (
            CustomerRegistered(
                "org-1", "Hedgehog Ltd", "c-1", "cloud-eu", "cloud", datetime(2026, 3, 17, tzinfo=UTC), "1 month"
            ),
        ),
    ),
    ("renames", FREE, Rename("Hog"), (OrganizationRenamed("Hedgehog Ltd", "Hog"),)),
    ("keeps its name", FREE, Rename("Hedgehog Ltd"), ()),
    ("starts paying", FREE, start(ANALYTICS), (SubscriptionStarted(None, SUBSCRIPTION),)),
    (
        "holds more seats and fewer desks",
        SEATED,
        ChangeQuantities({"seats": 30, "desks": 1}),
        (QuantitiesChanged({"desks": 2, "seats": 3}, {"desks": 1, "seats": 30}),),
    ),
    (
        "names only what changes",
        SEATED,
        ChangeQuantities({"seats": 30, "desks": 2}),
        (QuantitiesChanged({"seats": 3}, {"seats": 30}),),
    ),
    ("holds as many seats", SEATED, ChangeQuantities({"seats": 3}), ()),
    ("names no quantity", SEATED, ChangeQuantities({}), ()),
    ("stops paying", PAYING, CancelSubscription(), (SubscriptionCancelled(SUBSCRIPTION, None),)),
    (
        "sets a limit",
        PAYING,
        limits({"product_analytics": 50}),
        (BillingLimitsChanged(BillingLimits(), BillingLimits({"product_analytics": 50})),),
    ),
    (
        "sets a limit of zero",
        FREE,
        limits({"surveys": 0}),
        (BillingLimitsChanged(BillingLimits(), BillingLimits({"surveys": 0})),),
    ),
    ("sets the same limit", LIMITED, limits({"product_analytics": 50}), ()),
    (
        "removes a limit",
        LIMITED,
        limits({"product_analytics": None}),
        (BillingLimitsChanged(BillingLimits({"product_analytics": 50}), BillingLimits()),),
    ),
    ("removes a limit that is not there", PAYING, limits({"surveys": None}), ()),
    (
        "lets a limit end with the period",
        LIMITED,
        limits({}, "product_analytics"),
        (
            BillingLimitsChanged(
                BillingLimits({"product_analytics": 50}),
                BillingLimits({"product_analytics": 50}, {"product_analytics": None}, PERIOD_END),
            ),
        ),
    ),
    ("lets no limit end", PAYING, limits({}, "product_analytics"), ()),
    ("trusts more", FREE, ChangeTrustScores({"surveys": 10}), (TrustScoresChanged({}, {"surveys": 10}),)),
    (
        "trusts one more product",
        replace(FREE, trust_scores={"surveys": 10}),
        ChangeTrustScores({"feature_flags": 3}),
        (TrustScoresChanged({"surveys": 10}, {"feature_flags": 3, "surveys": 10}),),
    ),
    ("trusts the same", replace(FREE, trust_scores={"surveys": 10}), ChangeTrustScores({"surveys": 10}), ()),
    ("never drops", FREE, ChangeNeverDropData(never_drop_data=True), (NeverDropDataChanged(before=False, after=True),)),
    ("drops as before", FREE, ChangeNeverDropData(never_drop_data=False), ()),
    ("lists projects", FREE, RegisterProjects(TWO_PROJECTS[::-1]), (ProjectsRegistered((), TWO_PROJECTS),)),
    ("lists the same projects", replace(FREE, projects=TWO_PROJECTS), RegisterProjects(TWO_PROJECTS), ()),
    (
        "lists no project",
        replace(FREE, projects=TWO_PROJECTS),
        RegisterProjects(()),
        (ProjectsRegistered(TWO_PROJECTS, ()),),
    ),
    ("tries for free", FREE, SetTrial(PERIOD_END), (TrialSet(None, PERIOD_END),)),
    ("tries no longer", replace(FREE, free_trial_until=PERIOD_END), SetTrial(None), (TrialSet(PERIOD_END, None),)),
    ("has no trial to end", FREE, SetTrial(None), ()),
]

ILLEGAL: list[tuple[str, Customer | None, CustomerCommand]] = [
    ("already_registered", FREE, REGISTER),
    ("not_registered", None, Rename("Hog")),
    ("not_registered", None, start(ANALYTICS)),
    ("not_registered", None, CancelSubscription()),
    ("not_registered", None, limits({"surveys": 1})),
    ("not_registered", None, ChangeTrustScores({"surveys": 10})),
    ("not_registered", None, ChangeNeverDropData(never_drop_data=True)),
    ("not_registered", None, RegisterProjects(())),
    ("not_registered", None, SetTrial(None)),
    ("already_subscribed", PAYING, start(ANALYTICS)),
    ("no_products", FREE, start()),
    ("repeated_product", FREE, start(ANALYTICS, ANALYTICS)),
    ("invalid_quantity", FREE, start(SubscribedProduct("seats", 1, quantity=0))),
    ("no_active_subscription", FREE, CancelSubscription()),
    ("not_registered", None, ChangeQuantities({"seats": 3})),
    ("no_active_subscription", FREE, ChangeQuantities({"seats": 3})),
    ("not_subscribed", PAYING, ChangeQuantities({"seats": 3})),
    ("invalid_quantity", SEATED, ChangeQuantities({"seats": 0})),
    ("invalid_quantity", SEATED, ChangeQuantities({"desks": 5, "seats": -1})),
    ("period_over", PAYING, limits({"surveys": 1}, starts=NOW)),
    ("repeated_team_id", FREE, RegisterProjects((Project("1", "phc_a"), Project("1", "phc_b")))),
    ("repeated_api_token", FREE, RegisterProjects((Project("1", "phc_a"), Project("2", "phc_a")))),
]


@pytest.mark.parametrize(("customer", "command", "expected"), [row[1:] for row in LEGAL], ids=[row[0] for row in LEGAL])
def test_a_legal_move_makes_exactly_these_events(
    customer: Customer | None, command: CustomerCommand, expected: tuple[CustomerEvent, ...]
) -> None:
    assert decide(customer, command, now=NOW) == expected


@pytest.mark.parametrize(
    ("customer", "command", "_expected"), [row[1:] for row in LEGAL], ids=[f"{row[0]} twice" for row in LEGAL]
)
def test_a_repeated_move_changes_nothing_or_is_refused(
    customer: Customer | None, command: CustomerCommand, _expected: tuple[CustomerEvent, ...]
) -> None:
    for event in decide(customer, command, now=NOW):
        customer = evolve(customer, event, at=NOW)
    once_only = (Register, StartSubscription, CancelSubscription)
    if isinstance(command, once_only):
        with pytest.raises(IllegalMove):
            decide(customer, command, now=NOW)
    else:
        assert decide(customer, command, now=NOW) == ()


@pytest.mark.parametrize(
    ("code", "customer", "command"), ILLEGAL, ids=[f"{code} {type(command).__name__}" for code, _, command in ILLEGAL]
)
def test_an_illegal_move_is_refused_with_its_code(
    code: str, customer: Customer | None, command: CustomerCommand
) -> None:
    with pytest.raises(IllegalMove) as refused:
        decide(customer, command, now=NOW)
    assert refused.value.code == code


def test_a_history_without_its_registration_or_with_two_is_broken() -> None:
    registered = decide(None, REGISTER, now=NOW)[0]
    with pytest.raises(BrokenHistory):
        evolve(None, TrialSet(None, NOW), at=NOW)
    with pytest.raises(BrokenHistory):
        evolve(FREE, registered, at=NOW)


class TestLimitsOfTheNextPeriod:
    def test_they_count_from_their_instant_even_if_no_job_ran(self) -> None:
        ending = BillingLimits({"surveys": 5, "feature_flags": 7}, {"surveys": None}, PERIOD_END)
        assert ending.at(PERIOD_END - timedelta(microseconds=1)) == ending
        assert ending.at(PERIOD_END) == BillingLimits({"feature_flags": 7})

    def test_a_change_after_the_boundary_starts_from_what_holds_then(self) -> None:
        customer = replace(LIMITED, billing_limits=BillingLimits({"surveys": 5}, {"surveys": None}, PERIOD_END))
        later = PERIOD_END + timedelta(days=1)
        (event,) = decide(customer, limits({"feature_flags": 7}, starts=later + timedelta(days=29)), now=later)
        assert event == BillingLimitsChanged(BillingLimits(), BillingLimits({"feature_flags": 7}))

    def test_a_limit_set_again_outlives_the_period(self) -> None:
        ending = BillingLimits({"surveys": 5}, {"surveys": None}, PERIOD_END)
        assert ending.changed({"surveys": 6}).at(PERIOD_END) == BillingLimits({"surveys": 6})

    @pytest.mark.parametrize(
        "wrong", [{"in_force": {"surveys": -1}}, {"next_period": {"surveys": None}}, {"next_period_starts": NOW}]
    )
    def test_nonsense_cannot_be_built(self, wrong: dict[str, object]) -> None:
        with pytest.raises(ValueError, match=r"billing limit|next period"):
            BillingLimits(**wrong)  # type: ignore[arg-type]


def test_other_quantities_leave_the_price_and_the_rest_as_they_were() -> None:
    seated = evolve(SEATED, QuantitiesChanged({"seats": 3}, {"seats": 30}), at=NOW)
    assert seated.subscription is not None
    assert seated.subscription.products == (
        ANALYTICS,
        SubscribedProduct("desks", 4, quantity=2),
        SubscribedProduct("seats", 1, quantity=30),
    )
    assert replace(seated, subscription=SEATED.subscription) == SEATED


def test_a_refused_quantity_names_its_field() -> None:
    for command, attribute in (
        (ChangeQuantities({"seats": 0}), "quantities__seats"),
        (ChangeQuantities({"chairs": 1}), "quantities__chairs"),
    ):
        with pytest.raises(IllegalMove) as refused:
            decide(SEATED, command, now=NOW)
        assert refused.value.attribute == attribute


def test_quantities_without_a_subscription_are_a_broken_history() -> None:
    with pytest.raises(BrokenHistory):
        evolve(FREE, QuantitiesChanged({"seats": 3}, {"seats": 30}), at=NOW)

"""The page shows what the invoice will bill (K6, L12): a table for a finance person, and the bill by plain arithmetic."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quill_contracts.catalog_file import load_catalog
from quill_pricing.money import Money
from quill_pricing.price import FlatPrice, GraduatedPrice, price_from_document
from quill_pricing.rating import rate
from quill_pricing.tiers import Tier
from quill_subscriptions.domain.billing_limits import BillingLimits
from quill_subscriptions.domain.catalog import Catalog
from quill_subscriptions.domain.customer import Customer, SubscribedProduct, Subscription
from quill_subscriptions.domain.entitlements import Published, entitle
from quill_subscriptions.domain.standing import ProductStanding, Standing, stand
from quill_subscriptions.domain.usage import MeterUsage, PeriodUsage, UsageCut, UsageSnapshot
from quill_subscriptions.wire.catalog import catalog_from_document
from quill_subscriptions.wire.offer import tier_documents

CATALOG = catalog_from_document(load_catalog())
OCTOBER_1 = datetime(2026, 10, 1, tzinfo=UTC)
END = datetime(2026, 11, 1, tzinfo=UTC)
HELD = Subscription("s", (SubscribedProduct("product_analytics", 1),), "quill-rates", OCTOBER_1)
FREE = Customer("org-1", "", "c-1", "self-1", "scale", OCTOBER_1, OCTOBER_1, "1 month")
PAID = replace(FREE, subscription=HELD)
MILLION = 1_000_000

Step = tuple[datetime, Customer]


def october(day: int, hour: int = 0) -> datetime:
    return datetime(2026, 10, day, hour, tzinfo=UTC)


def limited(customer: Customer, usd: int) -> Customer:
    return replace(customer, billing_limits=BillingLimits({"product_analytics": usd}))


def tried(customer: Customer, until: datetime) -> Customer:
    return replace(customer, free_trial_until=until)


def page(
    steps: Sequence[Step],
    used: int,
    before: Mapping[datetime, int],
    *,
    now: datetime,
    finished: int | None = None,
    catalog: Catalog = CATALOG,
) -> Standing:
    """The page at ``now`` after a customer was what each step says from its instant on."""
    published, customer = Published(), steps[0][1]
    for at, customer in steps:
        published = Published(entitle(customer, catalog, now=at, published=published).changes, refresh_at=at)
    complete = used if finished is None else finished
    meters = {"events": MeterUsage(complete, used - complete, used)}
    cuts = tuple(UsageCut(at, {"events": quantity}) for at, quantity in sorted(before.items()))
    usage = UsageSnapshot("org-1", 1, (PeriodUsage(OCTOBER_1, meters, cuts),))
    return stand(entitle(customer, catalog, now=now, published=published), usage, now=now)


def events(standing: Standing) -> ProductStanding:
    return next(product for product in standing.products if product.item.product.usage_key == "events")


TABLE = [
    ("K6: 12 M used, then a limit of 0", [(1, PAID), (20, limited(PAID, 0))], 12, {20: 12}, "393.00"),
    ("K2: 12 M used, then cancelled", [(1, PAID), (15, FREE)], 12, {15: 12}, "393.00"),
    ("cancelled, 8 M used afterwards", [(1, PAID), (15, FREE)], 20, {15: 12}, "393.00"),
    ("cancelled before anything was used", [(1, PAID), (15, FREE)], 12, {15: 0}, "0.00"),
    ("12 M used before the subscription", [(1, FREE), (15, PAID)], 12, {15: 12}, "0.00"),
    ("cancelled, subscribed again", [(1, PAID), (10, FREE), (20, PAID)], 17, {10: 6, 20: 11}, "393.00"),
    ("limit lowered, raised, used on", [(1, PAID), (10, limited(PAID, 0)), (12, PAID)], 12, {10: 6}, "393.00"),
    ("K11: 5 M in a trial, paid from the 21st", [(2, tried(PAID, october(21)))], 5.1, {21: 5}, "0.00"),
    ("5 M in a trial, 12 M after it", [(2, tried(PAID, october(21)))], 17, {21: 5}, "393.00"),
    ("a trial all along", [(2, tried(PAID, END))], 12, {}, "0.00"),
    ("a trial set in the middle", [(1, PAID), (10, tried(PAID, END))], 20, {10: 12}, "393.00"),
    ("never subscribed", [(1, FREE)], 12, {}, "0.00"),
    ("a cut that usage has not heard of yet", [(1, PAID), (24, limited(PAID, 0))], 12, {}, "393.00"),
    ("nothing used", [(1, PAID)], 0, {}, "0.00"),
]


@pytest.mark.parametrize(("name", "steps", "used", "before", "owed"), TABLE, ids=[row[0] for row in TABLE])
def test_the_page_shows_what_the_invoice_will_bill(
    name: str, steps: list[tuple[int, Customer]], used: float, before: dict[int, float], owed: str
) -> None:
    """K2, K6, K11"""
    cuts = {october(day): int(quantity * MILLION) for day, quantity in before.items()}
    standing = page([(october(day), c) for day, c in steps], int(used * MILLION), cuts, now=october(25))
    assert standing.owed.to_decimal_string() == owed, name
    assert events(standing).rating.total.to_decimal_string() == owed or not events(standing).is_owed


def test_nothing_used_owes_the_flat_amount_of_the_first_tier_once_paid() -> None:
    """K3"""
    price = GraduatedPrice((Tier(None, flat_amount=Money(4_500)),))
    flat = replace(CATALOG.in_force[0], price=price, price_id="flat")
    catalog = replace(CATALOG, in_force=(flat, *CATALOG.in_force[1:]))
    for steps, owed in (([(1, PAID)], 4_500), ([(1, PAID), (2, FREE)], 4_500), ([(1, FREE)], 0)):
        standing = page([(october(day), c) for day, c in steps], 0, {}, now=october(25), catalog=catalog)
        assert standing.owed.amount_minor == owed


def test_a_cancelled_product_is_billed_at_the_price_it_was_held_at() -> None:
    """V14: the catalog has become dearer since, which is nothing to somebody who left."""
    bought = CATALOG.in_force[0]
    dearer = replace(bought, revision=2, price=FlatPrice(Money(99_900)), price_id="dearer")
    catalog = replace(CATALOG, in_force=(dearer, *CATALOG.in_force[1:]), earlier=(bought,))
    steps = [(october(1), PAID), (october(15), FREE)]
    standing = page(steps, 12 * MILLION, {october(15): 12 * MILLION}, now=october(25), catalog=catalog)
    assert standing.owed.to_decimal_string() == "393.00"
    assert not events(standing).item.subscribed


@pytest.mark.parametrize(
    ("name", "steps", "compared", "finished", "exceeded"),
    [
        ("paid: what was used since the 15th", [(1, FREE), (15, limited(PAID, 0))], 1_100_000, 800_000, True),
        ("paid, limit far away", [(1, FREE), (15, limited(PAID, 50))], 1_100_000, 800_000, False),
        ("not paid: all of it", [(1, PAID), (15, FREE)], 2_000_000, 1_700_000, True),
        ("in a trial: all of it", [(1, tried(PAID, END))], 2_000_000, 1_700_000, False),
    ],
)
def test_a_limit_is_compared_with_chargeable_usage_while_paid(
    name: str, steps: list[tuple[int, Customer]], compared: int, finished: int, *, exceeded: bool
) -> None:
    """D1, L6: 0.9 M used before the 15th; of 2 M the last 0.3 M are of a day that is still counted."""
    cuts = {october(15): 900_000}
    dated = [(october(day), customer) for day, customer in steps]
    product = events(page(dated, 2_000_000, cuts, finished=1_700_000, now=october(25)))
    assert (product.compared_usage, product.finished_usage) == (compared, finished), name
    assert product.has_exceeded_limit is exceeded


@pytest.mark.parametrize(
    ("steps", "projected", "with_limit"),
    [
        # 12 M in 24 of 31 days are 15.5 M: 50 + 13 M x 0.0000343 + 0.5 M x 0.0000295
        ([(1, PAID)], "510.65", "510.65"),
        ([(1, PAID), (24, limited(PAID, 0))], "510.65", "393.00"),
        ([(1, PAID), (24, FREE)], "393.00", "393.00"),
        # Paid from the 29th: 3 days at 0.5 M are 1.5 M; the trial's 12 M are free.
        ([(1, tried(PAID, october(29)))], "25.00", "25.00"),
        ([(1, tried(PAID, END))], "0.00", "0.00"),
        ([(1, FREE)], "0.00", "0.00"),
    ],
)
def test_a_projection_goes_on_from_what_is_owed(
    steps: list[tuple[int, Customer]], projected: str, with_limit: str
) -> None:
    dated = [(october(day), customer) for day, customer in steps]
    standing = page(dated, 12 * MILLION, {october(24): 12 * MILLION}, now=october(25))
    assert standing.projected.to_decimal_string() == projected
    assert standing.projected_with_limit.to_decimal_string() == with_limit


def test_a_gauge_bills_its_last_value_and_is_carried_if_its_meter_says_so() -> None:
    """K14: nine on the 3rd of September, nothing heard in October."""
    september = PeriodUsage(datetime(2026, 9, 1, tzinfo=UTC), {"events": MeterUsage(9, 0, 9)})
    october_usage = PeriodUsage(OCTOBER_1, {"other": MeterUsage(1, 0, 1)})
    entitlements = entitle(PAID, CATALOG, now=OCTOBER_1)
    for carried, periods, billed in (
        (True, (september, october_usage), 9),
        (False, (september, october_usage), 0),
        (True, (replace(september, meters={"events": MeterUsage(5, 0, 5)}), october_usage), 5),
        (True, (september, replace(october_usage, meters={"events": MeterUsage(4, 0, 4)})), 4),
    ):
        items = tuple(replace(item, aggregation="last", carried=carried) for item in entitlements.items)
        standing = stand(
            replace(entitlements, items=items), UsageSnapshot("org-1", 1, periods), now=OCTOBER_1 + timedelta(days=3)
        )
        assert events(standing).rating.quantity == billed
        assert events(standing).projected_usage == billed


spans = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(["free", "paid", "trial", "limit 0", "limit 50"])), max_size=10
)


@given(spans, st.lists(st.integers(0, 400_000), min_size=30, max_size=30))
@settings(max_examples=300, deadline=None)
def test_the_bill_is_the_greatest_that_the_limits_let_through(spans: list[tuple[int, str]], daily: list[int]) -> None:
    """The oracle goes through the days and knows neither cuts nor terms."""
    customers = {
        "free": (FREE, False, None),
        "paid": (PAID, True, None),
        "trial": (tried(PAID, END), False, None),
        "limit 0": (limited(PAID, 0), True, 1_000_099),
        "limit 50": (limited(PAID, 50), True, 2_000_145),
    }
    by_day = ["free"] * 30
    day, kind = 0, "free"
    steps: list[Step] = [(OCTOBER_1, FREE)]
    for length, kind_from in spans:
        if day + length >= 30:
            break
        day += length
        kind = kind_from
        by_day[day:] = [kind] * (30 - day)
        steps.append((OCTOBER_1 + timedelta(days=day), customers[kind][0]))
    billed = chargeable = used = 0
    before = {}
    for number, quantity in enumerate(daily):
        before[OCTOBER_1 + timedelta(days=number)] = used
        _, is_paid, limit = customers[by_day[number]]
        used += quantity
        if is_paid:
            chargeable += quantity
            billed = max(billed, chargeable if limit is None else min(chargeable, limit))
    product = events(page(steps, used, before, now=OCTOBER_1 + timedelta(days=30)))
    assert product.is_owed == any(customers[each][1] for each in by_day)
    if product.is_owed:
        assert product.rating.quantity == billed
    assert product.compared_usage == (chargeable if customers[by_day[-1]][1] else used)


def test_the_page_shows_a_first_tier_that_has_only_a_flat_amount() -> None:
    """K3: it is owed without usage, and its units cost nothing."""
    price = price_from_document(
        {
            "model": "graduated",
            "tiers": [{"up_to": 100, "flat_amount": "49.00"}, {"unit_amount": "0.50"}],
        }
    )
    for quantity, amounts, usage in ((0, ["49.00", "0.00"], [0, 0]), (102, ["49.00", "1.00"], [100, 2])):
        tiers = tier_documents(price, rate(price=price, quantity=quantity), owed=True)
        assert tiers is not None
        assert [tier["current_amount_usd"] for tier in tiers] == amounts
        assert [tier["current_usage"] for tier in tiers] == usage
        assert (tiers[0]["flat_amount_usd"], tiers[0]["unit_amount_usd"]) == ("49.00", "0")

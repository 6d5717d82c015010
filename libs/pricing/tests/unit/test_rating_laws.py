"""Laws that hold for every price and every quantity."""

from decimal import ROUND_HALF_UP, Decimal, localcontext

from hypothesis import given
from hypothesis import strategies as st
from quill_pricing.budget import greatest_quantity_within
from quill_pricing.money import Money
from quill_pricing.price import (
    FlatPrice,
    GraduatedPrice,
    PackagePrice,
    PerUnitPrice,
    VolumePrice,
    price_from_document,
    price_to_document,
)
from quill_pricing.quantity import QUANTITY_MAX
from quill_pricing.rating import amount_minor, rate
from quill_pricing.tiers import Tier
from quill_pricing.unit_amount import UnitAmount

amounts = st.builds(Money, st.integers(0, 10**6))
unit_amounts = st.builds(
    UnitAmount, st.one_of(st.integers(0, 10**13), st.sampled_from([0, 10**9, 5 * 10**9, 10**10, 15 * 10**9]))
)


@st.composite
def tier_schedules(draw, *, edge_max=10**12):
    edges = sorted(draw(st.sets(st.integers(1, edge_max), max_size=6)))
    fees = st.one_of(st.none(), amounts)
    return tuple(Tier(edge, draw(unit_amounts), draw(fees)) for edge in [*edges, None])


rising_prices = st.one_of(
    st.builds(FlatPrice, amounts),
    st.builds(PerUnitPrice, unit_amounts),
    st.builds(PackagePrice, st.integers(1, 10**6), amounts),
    st.builds(GraduatedPrice, tier_schedules()),
)
prices = st.one_of(rising_prices, st.builds(VolumePrice, tier_schedules()))
quantities = st.one_of(st.integers(0, 2_000), st.integers(0, 10**13), st.integers(0, QUANTITY_MAX))


@st.composite
def prices_with_a_quantity_near_an_edge(draw, source=prices):
    price = draw(source)
    edges = [tier.up_to for tier in getattr(price, "tiers", ()) if tier.up_to is not None]
    near_edges = [st.integers(max(0, edge - 2), edge + 2) for edge in edges]
    return price, draw(st.one_of(quantities, *near_edges))


@given(prices)
def test_a_price_survives_its_document(price):
    assert price_from_document(price_to_document(price)) == price


@given(prices_with_a_quantity_near_an_edge())
def test_the_total_is_the_sum_of_the_rounded_lines(priced):
    price, quantity = priced
    rating = rate(price=price, quantity=quantity)
    assert rating.total == Money.sum_of(line.amount for line in rating.lines)
    for line in rating.lines:
        with localcontext(prec=80):
            exact = Decimal(line.unit_amount) * line.quantity
            assert exact == Decimal(line.exact_amount)
            rounded = exact.quantize(Decimal("0.01"), rounding=ROUND_HALF_UP)
        assert rounded == Decimal(line.amount.to_decimal_string())


@given(prices_with_a_quantity_near_an_edge())
def test_the_fast_path_equals_the_breakdown(priced):
    price, quantity = priced
    assert amount_minor(price, quantity) == rate(price=price, quantity=quantity).total.amount_minor


@given(prices_with_a_quantity_near_an_edge(st.builds(GraduatedPrice, tier_schedules())))
def test_the_tiers_meet_and_pay_for_every_unit_once(priced):
    price, quantity = priced
    lines = [line for line in rate(price=price, quantity=quantity).lines if line.kind == "tier"]
    next_unit = 1
    for position, line in enumerate(lines):
        assert line.tier_index == position
        assert line.first_unit == next_unit
        assert line.last_unit - line.first_unit + 1 == line.quantity > 0
        next_unit = line.last_unit + 1
    assert next_unit == quantity + 1


@given(prices_with_a_quantity_near_an_edge(rising_prices), st.integers(0, 10**6))
def test_using_more_never_costs_less(priced, more):
    price, quantity = priced
    quantity = min(quantity, QUANTITY_MAX - more)
    assert amount_minor(price, quantity) <= amount_minor(price, quantity + more)


@given(prices, st.lists(st.integers(1, 10**6), max_size=8))
def test_billing_the_difference_in_chunks_comes_to_the_total(price, chunks):
    billed = rate(price=price, quantity=0).total
    reached = 0
    for chunk in chunks:
        reached += chunk
        billed += rate(price=price, quantity=reached).total - billed
    assert billed == rate(price=price, quantity=sum(chunks)).total


@given(
    st.lists(st.integers(1, 10**6), min_size=1, max_size=5, unique=True),
    unit_amounts,
    quantities,
)
def test_tiers_of_one_unit_amount_cost_what_the_unit_price_costs_up_to_rounding(edges, unit_amount, quantity):
    graduated = GraduatedPrice(tuple(Tier(edge, unit_amount) for edge in [*sorted(edges), None]))
    difference = amount_minor(graduated, quantity) - amount_minor(PerUnitPrice(unit_amount), quantity)
    assert abs(difference) <= len(edges) + 1


@given(rising_prices, st.integers(0, 10**9))
def test_the_greatest_quantity_within_a_budget_is_the_inverse_of_rating(price, budget_minor):
    greatest = greatest_quantity_within(price=price, budget=Money(budget_minor))
    if greatest is None:
        assert amount_minor(price, QUANTITY_MAX) <= budget_minor
    elif amount_minor(price, 0) > budget_minor:
        assert greatest == 0
    else:
        assert amount_minor(price, greatest) <= budget_minor < amount_minor(price, greatest + 1)


small_tiers = st.one_of(tier_schedules(edge_max=60), tier_schedules(edge_max=8))
small_prices = st.one_of(
    st.builds(VolumePrice, small_tiers),
    st.builds(GraduatedPrice, small_tiers),
    st.builds(PackagePrice, st.integers(1, 30), amounts),
    st.builds(PerUnitPrice, unit_amounts),
)
COUNTED_UP_TO = 150


@given(small_prices, st.one_of(st.integers(-5, 3_000), st.integers(0, 2 * 10**6)), st.integers(0, 100))
def test_the_budget_search_agrees_with_counting_up_unit_by_unit(price, budget_minor, at_least):
    greatest = greatest_quantity_within(price=price, budget=Money(budget_minor), at_least=at_least)
    first_over = next((q for q in range(COUNTED_UP_TO + 1) if amount_minor(price, q) > budget_minor), None)
    if first_over is None:
        assert greatest is None or greatest >= COUNTED_UP_TO
    else:
        assert greatest == max(at_least, first_over - 1)

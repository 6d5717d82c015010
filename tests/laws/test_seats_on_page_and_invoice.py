"""Seats and flat fees: the page of subscriptions and the invoice of invoicing say the same amount (K5, D18).

The page knows the changes of its own items. The invoice knows the snapshots that it heard, not always all of them.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quill_contracts.catalog_file import CatalogDocument
from quill_contracts.subscriptions import CustomerSnapshot
from quill_invoicing.domain.licensed_lines import bill_licensed
from quill_invoicing.domain.terms import TermsHistory
from quill_invoicing.wire import from_wire_customer
from quill_pricing.period import BillingPeriod
from quill_subscriptions.domain.customer import Customer, SubscribedProduct, Subscription
from quill_subscriptions.domain.entitlements import Published, changes_by_itself_at, entitle
from quill_subscriptions.domain.members import MemberRegister
from quill_subscriptions.domain.standing import Standing, stand
from quill_subscriptions.wire.catalog import catalog_from_document
from quill_subscriptions.wire.snapshots import customer_to_wire

SEPTEMBER = datetime(2026, 9, 1, tzinfo=UTC)
OCTOBER = BillingPeriod(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))
LAST = OCTOBER.end - timedelta(microseconds=1)
TIERS = [{"up_to": 5, "unit_amount": "5", "flat_amount": "10"}, {"unit_amount": "3", "flat_amount": "30"}]
PRICES = {
    "seats": {"model": "per_unit", "unit_amount": "20.00"},
    "desks": {"model": "graduated", "tiers": TIERS},
    "whole": {"model": "per_unit", "unit_amount": "7.00", "prorated": False},
    "plan": {"model": "flat", "amount": "450.00"},
}


def product(key, price, price_id):
    return {"key": key, "name": key, "price_id": price_id, "price": price}


METERED_PLAN = {
    "usage_key": "events",
    "counter": "event_count",
    **product("suite", {"model": "flat", "amount": "99.00"}, "suite-1"),
}
FILE = {"version": 1, "effective_at": SEPTEMBER}
FIRST = catalog_from_document(
    CatalogDocument.model_validate(
        {**FILE, "products": [*(product(key, price, f"{key}-1") for key, price in PRICES.items()), METERED_PLAN]}
    )
)
SEATS_1 = FIRST.in_force[0]
SEATS_2 = replace(
    catalog_from_document(
        CatalogDocument.model_validate(
            {**FILE, "products": [product("seats", {"model": "per_unit", "unit_amount": "31.00"}, "seats-2")]}
        )
    ).in_force[0],
    revision=2,
)
CATALOG = replace(FIRST, in_force=(SEATS_2, *FIRST.in_force[1:]), earlier=(SEATS_1,))
FREE = Customer("org-1", "", "c-1", "self-1", "scale", SEPTEMBER, SEPTEMBER, "1 month")


def subscribed(seats=0, *, revision=1, **others):
    """A customer who holds these quantities."""
    held = [SubscribedProduct("seats", revision, seats)] if seats else []
    held += [SubscribedProduct(key, 1, quantity) for key, quantity in others.items() if quantity]
    if not held:
        return FREE
    return replace(FREE, subscription=Subscription("s", tuple(held), "quill-rates", SEPTEMBER))


class Service:
    """subscriptions without its store: each step publishes a snapshot, and so does what time changes by itself."""

    def __init__(self):
        self.published: Published | None = None
        self.snapshots: list[CustomerSnapshot] = []
        self.customer = FREE

    def become(self, customer: Customer, at: datetime) -> None:
        self._catch_up(at)
        self.customer = customer
        self._publish(at)

    def page(self, now: datetime) -> Standing:
        self._catch_up(now)
        return stand(entitle(self.customer, CATALOG, now=now, published=self.published), None, now=now)

    def _catch_up(self, now: datetime) -> None:
        while self.published is not None and self.published.refresh_at <= now:
            self._publish(self.published.refresh_at)

    def _publish(self, at: datetime) -> None:
        entitlements = entitle(self.customer, CATALOG, now=at, published=self.published)
        self.published = Published(entitlements.changes, changes_by_itself_at(self.customer, now=at))
        self.snapshots.append(
            customer_to_wire(
                self.customer, MemberRegister(), entitlements, revision=len(self.snapshots) + 1, effective_at=at
            )
        )


def invoiced(snapshots: Sequence[CustomerSnapshot]) -> int:
    """What October's invoice bills for licensed products, in cents."""
    history = TermsHistory.of(from_wire_customer(CustomerSnapshot.from_bytes(each.to_bytes())) for each in snapshots)
    return sum(line.amount_minor for line, _ in bill_licensed(history, OCTOBER))


def october(day: int, hour: int = 0) -> datetime:
    return datetime(2026, 10, day, hour, tzinfo=UTC)


def trial(customer: Customer, until: datetime) -> Customer:
    return replace(customer, free_trial_until=until)


TABLE = [
    ("3 seats, 30 on the 31st", [(SEPTEMBER, subscribed(3)), (october(31), subscribed(30))], 7_742),
    ("a flat plan from the 16th at 12:00 on", [(SEPTEMBER, FREE), (october(16, 12), subscribed(plan=1))], 22_500),
    ("cancelled on the 16th at 12:00", [(SEPTEMBER, subscribed(3, plan=1)), (october(16, 12), FREE)], 3_000 + 22_500),
    ("a trial that ends on the 16th at 12:00", [(SEPTEMBER, trial(subscribed(3), october(16, 12)))], 3_000),
    ("a trial all October", [(SEPTEMBER, trial(subscribed(3), OCTOBER.end))], 0),
    (
        "cancelled, then subscribed at the new price of $31",
        [(SEPTEMBER, subscribed(3)), (october(11), FREE), (october(21), subscribed(3, revision=2))],
        6_000 - 4_065 + 3_300,
    ),
    ("without proration", [(SEPTEMBER, subscribed(whole=2)), (october(30), subscribed(whole=9))], 6_300),
    ("without proration, cancelled", [(SEPTEMBER, subscribed(whole=2)), (october(3), FREE)], 1_400),
    ("a flat price with a meter", [(SEPTEMBER, FREE), (october(16, 12), subscribed(suite=1))], 4_950),
    (
        "tiers: 35.00, then 76.00 for half a month",
        [(SEPTEMBER, subscribed(desks=5)), (october(16, 12), subscribed(desks=7))],
        5_300,
    ),
    ("never subscribed", [(SEPTEMBER, FREE)], 0),
]


@pytest.mark.parametrize(("name", "steps", "cents"), TABLE, ids=[row[0] for row in TABLE])
def test_the_page_shows_what_the_invoice_bills_for_seats(name, steps, cents):
    """K5"""
    service = Service()
    for at, customer in steps:
        service.become(customer, at)
    page = service.page(LAST)
    assert page.owed.amount_minor == invoiced(service.snapshots) == cents, name
    assert page.projected == page.owed


def test_a_projection_knows_when_a_trial_ends():
    service = Service()
    service.become(trial(subscribed(3), october(16, 12)), SEPTEMBER)
    page = service.page(october(5))
    assert (page.owed.amount_minor, page.projected.amount_minor) == (0, 3_000)


quantities = st.builds(
    subscribed,
    st.integers(0, 40),
    revision=st.sampled_from([1, 2]),
    plan=st.integers(0, 1),
    desks=st.integers(0, 12),
    whole=st.integers(0, 3),
    suite=st.integers(0, 1),
)
days = st.integers(0, 60 * 24 - 1).map(lambda hour: SEPTEMBER + timedelta(hours=hour))
customers = st.one_of(quantities, st.builds(trial, quantities, days))
histories = st.lists(st.tuples(days, customers), min_size=1, max_size=8, unique_by=lambda step: step[0])


@given(histories, st.data())
@settings(max_examples=150, deadline=None)
def test_page_and_invoice_agree_whatever_happens_and_was_missed(history, data):
    """A compacted topic may hold back any snapshot but the newest."""
    service = Service()
    for at, customer in sorted(history, key=lambda step: step[0]):
        service.become(customer, at)
    owed = service.page(LAST).owed.amount_minor
    assert invoiced(service.snapshots) == owed
    if all(terms.price_id != "seats-1" for each in service.snapshots for terms in each.items):
        heard = [each for each in service.snapshots[:-1] if data.draw(st.booleans())]
        assert invoiced([*heard, service.snapshots[-1]]) == owed

"""Every difference between our invoice and the rail's has a class (L16)."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from quill_invoicing.domain.collection import RailLine
from quill_invoicing.domain.invoice import InvoiceLine
from quill_invoicing.domain.reconciliation import compare
from quill_pricing.period import BillingPeriod

OCTOBER = BillingPeriod(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))


def our(quantity, amount, kind="usage", product="events"):
    return InvoiceLine(kind, product, None, "line", quantity, Decimal(1), amount, OCTOBER)


def their(quantity, amount, product="events"):
    return RailLine(product, "line", quantity, amount)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([our(10, 100)], [their(10, 100)], []),
        ([our(10, 100), our(5, 20)], [their(5, 20), their(10, 100)], []),  # order says nothing
        ([our(10, 0)], [their(10, 0)], []),
        ([], [their(0, 0)], []),  # a line of nothing may be there
        ([our(0, 0)], [], []),  # or not
        ([our(1, 500, "flat_fee")], [their(0, 500)], []),  # a flat fee has no quantity
        ([our(1, 1_000, "flat_fee")], [their(0, 0), their(0, 1_000)], []),  # no usage: a flat fee and a line of nothing
        ([our(1, 0, "flat_fee")], [], []),  # a flat fee of nothing may be left out
        ([our(1, 0, "flat_fee")], [their(0, 0)], []),
        ([our(1, 0, "flat_fee")], [their(1, 0)], []),
        ([our(1, 0, "flat_fee"), our(1, 0)], [their(1, 0)], []),  # and never takes the twin of the free unit
        ([our(1, 10, "flat_fee"), our(2, 10)], [their(2, 10), their(0, 10)], []),
        ([our(1, 0, "flat_fee")], [their(7, 0)], ["extra_line"]),  # seven units are no flat fee
        ([our(1, 1_000, "flat_fee")], [their(0, 0)], ["missing_line", "total"]),
        ([our(10, 100)], [their(10, 101)], ["amount", "total"]),
        ([our(10, 100)], [their(11, 100)], ["quantity"]),
        ([our(10, 100)], [their(9, 90)], ["quantity", "amount", "total"]),
        ([our(10, 100)], [], ["missing_line", "total"]),
        ([our(10, 0)], [], ["missing_line"]),  # ten free units unexplained
        ([], [their(1, 70)], ["extra_line", "total"]),
        ([our(10, 100)], [their(10, 100, "seats")], ["missing_line", "extra_line"]),  # never across products
        ([our(10, 100), our(3, 9)], [their(10, 100), their(3, 8)], ["amount", "total"]),  # those that agree pair first
        ([our(10, 100)], [their(10, 100, None), their(10, 100)], ["extra_line", "total"]),
    ],
)
def test_differences_are_found_and_classed(ours, theirs, expected):
    total = sum(line.amount_minor for line in theirs)
    found = compare(ours, theirs, rail_total_minor=total)
    assert sorted(each.kind for each in found) == sorted(expected)


def test_a_total_that_is_not_its_lines_is_a_difference_too():
    (difference,) = compare([our(10, 100)], [their(10, 100)], rail_total_minor=99)
    assert (difference.kind, difference.ours, difference.theirs) == ("total", 100, 99)

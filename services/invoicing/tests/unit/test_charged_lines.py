"""Our lines within the rail's bounds: batch, fold, split; the total stays exact and the comparison equal (L11, L16)."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quill_invoicing.domain.charged_lines import AMOUNT_MAX, LINES_MAX, charged_lines, positions_of, reversed_product
from quill_invoicing.domain.collection import RailLine
from quill_invoicing.domain.invoice import Invoice, InvoiceLine
from quill_invoicing.domain.reconciliation import compare
from quill_pricing.period import BillingPeriod

NOVEMBER = BillingPeriod(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))


def line(amount, kind="usage", product="events", quantity=7):
    return InvoiceLine(kind, product, None, f"{product} {amount}", quantity, Decimal(1), amount, NOVEMBER)


def invoice(*lines):
    return Invoice(
        invoice_id="i-1",
        number="2026-000001",
        organization_id="org-1",
        customer_id="cust-1",
        revision=2,
        status="finalized",
        currency="usd",
        collection_mode="stripe-rates",
        period=NOVEMBER,
        usage_revision=3,
        lines=lines,
        created_at=NOVEMBER.end,
    )


def at_rail(charged, rated=()):
    """What the rail shows of lines that were charged, after lines of its own: (product, quantity, amount)."""
    own = [RailLine(product, "rated", quantity, amount) for product, quantity, amount in rated]
    return own + [RailLine(c.product_key, c.description, c.quantity, c.amount_minor, c.label) for c in charged]


def differences(ours, theirs):
    return compare(ours, theirs, rail_total_minor=sum(each.amount_minor for each in theirs))


@pytest.mark.parametrize("count", [0, 1, 249, 250, 251, 1_000, 3_000])
def test_however_many_lines_at_most_250_are_charged_and_the_rest_is_named(count):
    made = invoice(*(line(position, "adjustment", f"p{position % 7}") for position in range(1, count + 1)))
    charged = charged_lines(made, rated=(), reversals={})
    assert len(charged) == min(count, LINES_MAX)
    assert sum(each.amount_minor for each in charged) == made.total_minor
    assert differences(made.lines, at_rail(charged)) == ()
    if count > LINES_MAX:
        assert charged[-1].description == f"{count - 249:,} further lines, listed on invoice 2026-000001"


@pytest.mark.parametrize(
    ("amount", "parts"),
    [
        (AMOUNT_MAX, 1),
        (AMOUNT_MAX + 1, 2),
        (-AMOUNT_MAX - 1, 2),
        (2 * AMOUNT_MAX, 2),
        (12_345_678_901, 124),
    ],
)
def test_an_amount_too_large_for_one_line_is_split_without_a_cent_lost(amount, parts):
    made = invoice(line(amount, "licensed"))
    charged = charged_lines(made, rated=(), reversals={})
    assert len(charged) == parts
    assert sum(each.amount_minor for each in charged) == amount
    assert max(abs(each.amount_minor) for each in charged) <= AMOUNT_MAX
    assert differences(made.lines, at_rail(charged)) == ()


def test_many_lines_of_which_some_are_too_large_still_fit():
    made = invoice(*(line(3 * AMOUNT_MAX, "licensed") for _ in range(60)), *(line(1, "adjustment") for _ in range(300)))
    charged = charged_lines(made, rated=(), reversals={"events": 5})
    assert len(charged) <= LINES_MAX
    assert sum(each.amount_minor for each in charged) == made.total_minor - 5


@pytest.mark.parametrize(
    ("theirs", "kinds"),
    [
        # (product, description, quantity, amount, label) of the rail, after our two lines of 100 and 50
        ([("events", "", 7, 100, "0"), ("seats", "", 7, 50, "1")], []),
        ([("events", "", 7, 100, "0")], ["missing_line", "total"]),
        ([("events", "", 7, 99, "0"), ("seats", "", 7, 50, "1")], ["amount", "total"]),
        ([("events", "", 8, 100, "0"), ("seats", "", 7, 50, "1")], ["quantity"]),
        ([("events", "", 7, 150, "0-1")], []),
        ([("events", "", 7, 100, "0"), ("events", "", 7, 100, "0"), ("seats", "", 7, 50, "1")], ["amount", "total"]),
        ([("events", "", 7, 100, "0"), ("seats", "", 7, 50, "1"), ("x", "", 1, 9, "7")], ["extra_line", "total"]),
        ([("events", "", 7, 100, "0"), ("seats", "", 7, 50, "1"), ("x", "", 1, 9, "what")], ["extra_line", "total"]),
        ([("events", "", 7, 100, "0"), ("seats", "", 7, 50, "0-1")], ["extra_line", "missing_line"]),
        # the rail rated 40 of what we charge, and it was taken back
        ([("events", "", 3, 40, None), ("events", "", 1, -40, "reversal:events"), ("events", "", 7, 150, "0-1")], []),
        (
            [("events", "", 3, 41, None), ("events", "", 1, -40, "reversal:events"), ("events", "", 7, 150, "0-1")],
            ["amount", "total"],
        ),
        ([("events", "", 1, -40, "reversal:events"), ("events", "", 7, 150, "0-1")], ["amount", "total"]),
    ],
)
def test_labels_decide_what_is_compared_with_what(theirs, kinds):
    ours = (line(100), line(50, "licensed", "seats"))
    assert [each.kind for each in differences(ours, [RailLine(*each) for each in theirs])] == kinds


@pytest.mark.parametrize(
    ("label", "positions"),
    [
        ("0", (0,)),
        ("4-6,9", (4, 5, 6, 9)),
        ("4#2", (4,)),
        ("", None),
        ("reversal:events", None),
        ("9-4", None),
        ("1-99999999999", None),
        ("\u0663", None),
        ("-1", None),
    ],
)
def test_a_label_that_somebody_edited_is_no_position(label, positions):
    assert positions_of(label) == positions


def test_a_reversal_names_its_product():
    assert [reversed_product(label) for label in ("reversal:events", "reversal:events#2", "3")] == [
        "events",
        "events",
        None,
    ]


AMOUNTS = st.integers(-3 * AMOUNT_MAX, 3 * AMOUNT_MAX)


@given(
    lines=st.lists(
        st.tuples(AMOUNTS, st.sampled_from(["usage", "flat_fee", "licensed", "adjustment", "credit"]), st.booleans()),
        max_size=320,
    ),
    rated=st.booleans(),
    partial=AMOUNTS,
)
@settings(max_examples=300, deadline=None)
def test_whatever_is_charged_the_rails_invoice_equals_ours(lines, rated, partial):
    """K8: by own lines, by the rail's, or both; what the rail rated before is taken back."""
    made = invoice(*(line(amount, kind, "events" if first else "seats") for amount, kind, first in lines))
    by_rail = [(each.product_key, each.quantity, each.amount_minor) for each in made.lines
               if each.kind in ("usage", "flat_fee") and each.product_key == "events"]  # fmt: skip
    found = by_rail if rated else [("events", 3, partial)]
    charged = charged_lines(made, rated={"events"} if rated else (), reversals={} if rated else {"events": partial})
    assert len(charged) <= LINES_MAX
    assert all(abs(each.amount_minor) <= AMOUNT_MAX for each in charged) or len(charged) == LINES_MAX
    assert differences(made.lines, at_rail(charged, found)) == ()

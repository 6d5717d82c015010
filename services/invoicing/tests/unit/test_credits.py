"""A credit is used as far as an invoice goes, and the rest is kept (K4)."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quill_invoicing.domain.credits import credit_line, entry_of_new, entry_of_voided
from quill_invoicing.domain.invoice import Invoice, InvoiceLine
from quill_pricing.period import BillingPeriod

NOW = datetime(2026, 11, 2, tzinfo=UTC)
NOVEMBER = BillingPeriod(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))


def line(amount, kind="usage"):
    return InvoiceLine(kind, "product_analytics", "events", "events", 1, Decimal(1), amount, NOVEMBER)


def invoice(*lines, number=1):
    return Invoice(
        invoice_id=f"i-{number}",
        number=f"2026-{number:06}",
        organization_id="org-1",
        customer_id="cust-1",
        revision=2,
        status="finalized",
        currency="usd",
        collection_mode="quill-rates",
        period=NOVEMBER,
        usage_revision=3,
        lines=lines,
        created_at=NOW,
    )


@pytest.mark.parametrize(
    "row",
    [
        # usage, correction of an earlier period, owed before -> credit line, invoice total, owed after
        (300_00, -343_00, 0, 43_00, 0, 43_00),
        (300_00, 0, 43_00, -43_00, 257_00, 0),
        (300_00, 0, 0, 0, 300_00, 0),
        (10_00, 0, 43_00, -10_00, 0, 33_00),
        (300_00, -300_00, 43_00, 0, 0, 43_00),
        (300_00, -200_00, 150_00, -100_00, 0, 50_00),
        (0, -343_00, 43_00, 343_00, 0, 386_00),
        (0, 5_00, 43_00, -5_00, 0, 38_00),
        (0, 0, 43_00, 0, 0, 43_00),
        (1, -2, 0, 1, 0, 1),
    ],
)
def test_the_table_of_credits(row):
    """K4: no row is below zero, and what is not used is still owed."""
    usage, correction, balance, credit, total, left = row
    lines = (line(usage), line(correction, "adjustment"))
    made = credit_line(lines, balance_minor=balance, currency="usd", period=NOVEMBER)
    assert (0 if made is None else made.amount_minor) == credit
    whole = invoice(*lines, *([made] if made else []))
    entry = entry_of_new(whole, at=NOW)
    assert whole.total_minor == total
    assert balance + (0 if entry is None else entry.amount_minor) == left


@given(
    months=st.lists(
        st.tuples(st.integers(0, 100_000), st.lists(st.integers(-200_000, 200_000), max_size=3), st.booleans()),
        min_size=1,
        max_size=15,
    )
)
@settings(max_examples=2_000)
def test_whatever_is_corrected_nothing_is_lost_and_no_invoice_is_below_zero(months):
    """K4: what is charged in all = usage + corrections - what is still owed; voided invoices charge nothing."""
    balance, charged, owed_in_all = 0, 0, 0
    for number, (usage, corrections, is_voided) in enumerate(months):
        lines = (line(usage), *(line(each, "adjustment") for each in corrections))
        credit = credit_line(lines, balance_minor=balance, currency="usd", period=NOVEMBER)
        made = invoice(*lines, *([credit] if credit else []), number=number)
        assert made.total_minor >= 0
        entry = entry_of_new(made, at=NOW)
        balance += 0 if entry is None else entry.amount_minor
        if is_voided and made.total_minor > 0:
            # The usage and the late charges are forgiven; the corrections in the customer's favour are not.
            returned = entry_of_voided(made, at=NOW)
            balance += 0 if returned is None else returned.amount_minor
            owed_in_all += sum(each for each in corrections if each < 0)
        else:
            charged += made.total_minor
            owed_in_all += usage + sum(corrections)
        assert balance >= 0
        assert charged == owed_in_all + balance


def test_an_entry_is_named_after_its_invoice_so_that_a_repeat_is_known():
    made = invoice(line(100), line(-30, "credit"))
    used, returned = entry_of_new(made, at=NOW), entry_of_voided(made, at=NOW)
    assert (used.entry_id, used.kind, used.amount_minor) == ("i-1:used", "used", -30)
    assert (returned.entry_id, returned.amount_minor) == ("i-1:returned", 30)
    assert entry_of_voided(replace(made, lines=(line(100),)), at=NOW) is None

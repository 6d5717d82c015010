"""The invoice's state machine, its id and its frozen lines (L11, L13)."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from quill_invoicing.domain.invoice import (
    IllegalMove,
    Invoice,
    InvoiceLine,
    NotADraft,
    invoice_id_of,
    invoice_number,
)

NOW = datetime(2026, 11, 2, tzinfo=UTC)
STATUSES = ("draft", "finalized", "paid", "void", "uncollectible")
LEGAL = {
    ("draft", "finalized"),
    ("finalized", "paid"),
    ("finalized", "void"),
    ("finalized", "uncollectible"),
    ("uncollectible", "paid"),
    ("uncollectible", "void"),
}


@pytest.fixture
def draft(october):
    line = InvoiceLine("usage", "product_analytics", "events", "events", 10, Decimal(1), 1_000, october)
    return Invoice(
        invoice_id="i-1",
        number="2026-000001",
        organization_id="org-1",
        customer_id="cust-1",
        revision=1,
        status="draft",
        currency="usd",
        collection_mode="stripe-rates",
        period=october,
        usage_revision=3,
        lines=(line, replace(line, amount_minor=-200)),
        created_at=NOW,
    )


@pytest.mark.parametrize(("before", "after"), list(itertools.product(STATUSES, STATUSES[1:])))
def test_only_the_listed_moves_are_legal(draft, before, after):
    invoice = replace(draft, status=before)

    def move():
        return invoice.finalized(at=NOW) if after == "finalized" else invoice.settled(after, at=NOW)

    if (before, after) in LEGAL:
        moved = move()
        assert (moved.status, moved.revision) == (after, invoice.revision + 1)
    elif before == after and after != "finalized":
        assert move() == invoice  # the same end again is a repeat
    else:
        with pytest.raises(IllegalMove):
            move()


def test_the_total_is_the_sum_of_the_lines(draft):
    assert draft.total_minor == 800


def test_lines_change_only_on_a_draft(draft):
    assert draft.with_lines(draft.lines[:1]).total_minor == 1_000
    with pytest.raises(NotADraft):
        draft.finalized(at=NOW).with_lines(())


def test_what_changes_nothing_raises_no_revision(draft):
    collected = draft.finalized(at=NOW).collected_as("in_1", problem=None)
    assert collected.collected_as("in_1", problem=None) is collected
    assert collected.reconciled("pending") is collected


def test_an_invoice_has_the_same_id_whoever_makes_it(october, november):
    assert invoice_id_of("org-1", october) == invoice_id_of("org-1", october)
    assert len({invoice_id_of(o, p) for o in ("org-1", "org-2") for p in (october, november)}) == 4
    assert invoice_number(2026, 42) == "2026-000042"

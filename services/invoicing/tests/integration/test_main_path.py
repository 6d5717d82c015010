"""The whole service: snapshots on Kafka, a month passes, an invoice is made, paid at Stripe, and equal to the cent."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from quill_contracts import topics

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

OCTOBER_20 = datetime(2026, 10, 20, 12, tzinfo=UTC)
AFTER_END = datetime(2026, 11, 1, 0, 30, tzinfo=UTC)
AFTER_GRACE = datetime(2026, 11, 2, 0, 1, tzinfo=UTC)
SEATS = {"model": "per_unit", "currency": "usd", "unit_amount": "20"}


@pytest.mark.parametrize("kills", [False, True], ids=["in_peace", "killed_twice"])
async def test_a_month_of_usage_becomes_a_paid_invoice_that_equals_stripes(
    system, sandbox_time, eventually, make, kills
):
    items = [make.item(), make.item(product_key="seats", usage_key=None, counter=None, price=SEATS, quantity=3)]
    await system.publish(topics.CUSTOMERS.name, "org-1", make.customer(items=items).to_bytes())
    await system.publish(topics.PERIOD_USAGE.name, "org-1", make.usage(1, 4_000_000, as_of=OCTOBER_20).to_bytes())
    sandbox_time.set(OCTOBER_20)
    await system.publish(topics.PERIOD_USAGE.name, "org-1", make.usage(2, 9_000_000, as_of=OCTOBER_20).to_bytes())
    await eventually(lambda: _has_lag_zero(system))
    sandbox_time.set(AFTER_END)
    await system.publish(topics.PERIOD_USAGE.name, "org-1", make.usage(3, 12_000_000, as_of=AFTER_END).to_bytes())
    await eventually(lambda: _has_lag_zero(system))
    assert (await system.get("/v1/invoices?organization_id=org-1"))["results"] == []  # the grace has not passed
    if kills:
        await system.kill()
        sandbox_time.set(AFTER_GRACE)
        await system.restart()
        await eventually(lambda: _any_invoice(system))
        await system.kill()  # somewhere in the collection
        await system.restart()
    looks = itertools.count()

    async def settled_later():
        """Sandbox time passes quickly, so that nobody waits for the back-off after a kill."""
        sandbox_time.set(AFTER_GRACE + timedelta(seconds=20) * next(looks))
        return await _settled_invoice(system)

    invoice = await eventually(settled_later)

    assert invoice["total"] == "453.00"
    assert [(line["kind"], line["tier"], line["quantity"], line["amount"]) for line in invoice["lines"]] == [
        ("usage", 1, 1_000_000, "0.00"),
        ("usage", 2, 1_000_000, "50.00"),
        ("usage", 3, 10_000_000, "343.00"),
        ("licensed", None, 3, "60.00"),
    ]
    assert (invoice["status"], invoice["reconciliation"], invoice["differences"]) == ("paid", "equal", [])
    assert invoice["stripe_invoice_id"] is not None
    assert invoice["number"] == "2026-000001"
    assert len((await system.get("/v1/invoices?organization_id=org-1"))["results"]) == 1


async def _has_lag_zero(system):
    report = await system.get("/health/ready")
    lag = report["consumer_lag_records"]
    return bool(lag) and not any(lag.values())


async def _any_invoice(system):
    return (await system.get("/v1/invoices?organization_id=org-1"))["results"]


async def _settled_invoice(system):
    found = (await system.get("/v1/invoices?organization_id=org-1"))["results"]
    # A webhook may say "paid" before the collection that was killed is taken up again and compares.
    is_settled = found and found[0]["status"] == "paid" and found[0]["reconciliation"] != "pending"
    return found[0] if is_settled else None

"""Our prices in Stripe's words, to the last decimal place."""

import pytest
from quill_invoicing.domain.collection import RailItem
from quill_invoicing.gateways.stripe_catalog import UnpricedAtStripe, amounts, in_minor_units, lookup_key
from quill_invoicing.settings import InvoicingSettings
from quill_pricing.period import Interval

MONTH = Interval(1, "month")


@pytest.mark.parametrize(
    ("amount", "places", "expected"),
    [("0.00005", 2, "0.005"), ("0", 2, "0"), ("20", 2, "2000"), ("0.000000000001", 2, "0.0000000001"), ("5", 0, "5")],
)
def test_amounts_are_written_plainly_in_minor_units(amount, places, expected):
    written = in_minor_units(amount, places)
    assert "E" not in written
    assert written == expected


@pytest.mark.parametrize(
    ("price", "expected"),
    [
        (
            {
                "model": "graduated",
                "tiers": [{"up_to": 5, "unit_amount": "0"}, {"unit_amount": "0.1", "flat_amount": "9"}],
            },
            {
                "billing_scheme": "tiered",
                "tiers_mode": "graduated",
                "tiers": [
                    {"up_to": 5, "unit_amount_decimal": "0"},
                    {"up_to": "inf", "unit_amount_decimal": "10", "flat_amount_decimal": "900"},
                ],
            },
        ),
        (
            {
                "model": "volume",
                "tiers": [{"up_to": 5, "unit_amount": None, "flat_amount": "49.00"}, {"flat_amount": "99.00"}],
            },
            {
                "billing_scheme": "tiered",
                "tiers_mode": "volume",
                "tiers": [
                    {"up_to": 5, "flat_amount_decimal": "4900"},
                    {"up_to": "inf", "flat_amount_decimal": "9900"},
                ],
            },
        ),
        ({"model": "per_unit", "unit_amount": "0.001"}, {"billing_scheme": "per_unit", "unit_amount_decimal": "0.1"}),
        (
            {"model": "package", "package_size": 100, "package_amount": "2.50"},
            {
                "billing_scheme": "per_unit",
                "unit_amount_decimal": "250",
                "transform_quantity": {"divide_by": 100, "round": "up"},
            },
        ),
    ],
)
def test_each_metered_model_has_its_form(price, expected):
    assert amounts(price) == expected


def test_a_flat_price_cannot_be_metered():
    with pytest.raises(UnpricedAtStripe):
        amounts({"model": "flat", "amount": "1"})


def test_a_changed_amount_is_another_price():
    item = RailItem("events", "p-1", {"model": "per_unit", "unit_amount": "1"})
    dearer = RailItem("events", "p-1", {"model": "per_unit", "unit_amount": "2"})
    keys = {lookup_key(item, MONTH), lookup_key(dearer, MONTH), lookup_key(item, Interval(1, "year"))}
    assert len(keys) == 3
    assert lookup_key(item, MONTH) in keys
    assert all(len(key) <= 200 for key in keys)


def test_a_test_card_needs_a_test_key():
    needed = {
        "database_url": "postgresql://x",
        "kafka_bootstrap_servers": "x",
        "quill_sealing_keys": "k1:a",
        "stripe_test_payment_method": "pm_card_visa",
    }
    with pytest.raises(ValueError, match="sk_test_"):
        InvoicingSettings(**needed, stripe_api_key="sk_live_x")
    assert InvoicingSettings(**needed, stripe_api_key="sk_test_x").webhook_secrets == ()

"""What a request says, and whether Stripe would understand it."""

from decimal import Decimal

import pytest
from quill_stripesim.app import routes
from quill_stripesim.form import MAX_DEPTH, decode_form
from quill_stripesim.parameters import check, fields_of
from quill_stripesim.stripe_error import StripeError
from stripe.params import (
    CustomerCreateParams,
    InvoiceListParams,
    PriceCreateParams,
    SubscriptionCreateParams,
    SubscriptionUpdateParams,
)
from stripe.params.billing import MeterCreateParams, MeterEventCreateParams


@pytest.mark.parametrize(
    ("encoded", "decoded"),
    [
        ("", {}),
        ("a=1&b=", {"a": "1", "b": ""}),
        ("a%5Bb%5D%5Bc%5D=x+y", {"a": {"b": {"c": "x y"}}}),
        ("items[0][price]=p&items[1][price]=q", {"items": {"0": {"price": "p"}, "1": {"price": "q"}}}),
        ("expand[]=a&expand[]=b", {"expand": {"0": "a", "1": "b"}}),
        ("metadata[7]=lucky", {"metadata": {"7": "lucky"}}),
    ],
)
def test_brackets_become_nesting(encoded, decoded):
    assert decode_form(encoded) == decoded


@pytest.mark.parametrize("encoded", ["[a]=1", "a[b=1", "a=1&a[b]=2", "a[b]=1&a=2", "a" + "[b]" * MAX_DEPTH + "=1"])
def test_an_unreadable_key_is_refused(encoded):
    with pytest.raises(StripeError):
        decode_form(encoded)


def test_values_get_the_types_of_the_sdk():
    encoded = (
        "currency=usd&unit_amount_decimal=0.000005&active=false&metadata[0]=x"
        "&recurring[interval]=month&recurring[interval_count]=3&tiers[1][up_to]=inf&tiers[0][up_to]=10"
    )

    assert check(decode_form(encoded), PriceCreateParams) == {
        "currency": "usd",
        "unit_amount_decimal": Decimal("0.000005"),
        "active": False,
        "metadata": {"0": "x"},
        "recurring": {"interval": "month", "interval_count": 3},
        "tiers": [{"up_to": 10}, {"up_to": "inf"}],
    }


@pytest.mark.parametrize(
    ("encoded", "spec", "code", "param"),
    [
        ("currency=usd&colour=red", PriceCreateParams, "parameter_unknown", "colour"),
        (
            "currency=usd&recurring[interval]=month&recurring[aggregate_usage]=max",
            PriceCreateParams,
            "parameter_unknown",
            "recurring[aggregate_usage]",
        ),
        ("coupon=half", SubscriptionCreateParams, "parameter_unknown", "coupon"),
        ("idempotency_key=k", CustomerCreateParams, "parameter_unknown", "idempotency_key"),
        ("payload[value]=1", MeterEventCreateParams, "parameter_missing", "event_name"),
        ("unit_amount=1", PriceCreateParams, "parameter_missing", "currency"),
        ("currency=usd&tiers[0][unit_amount]=1", PriceCreateParams, "parameter_missing", "tiers[0][up_to]"),
        ("currency=usd&unit_amount=1.5", PriceCreateParams, "parameter_invalid_integer", "unit_amount"),
        ("currency=usd&unit_amount_decimal=5E-7", PriceCreateParams, None, "unit_amount_decimal"),
        ("currency=usd&unit_amount_decimal=0.0000000000001", PriceCreateParams, None, "unit_amount_decimal"),
        ("currency=usd&active=yes", PriceCreateParams, None, "active"),
        ("currency=usd&billing_scheme=flat", PriceCreateParams, None, "billing_scheme"),
        ("status=finished", InvoiceListParams, None, "status"),
        (
            "display_name=d&event_name=e&default_aggregation[formula]=max",
            MeterCreateParams,
            None,
            "default_aggregation[formula]",
        ),
        ("items=x", SubscriptionUpdateParams, None, "items"),
        (f"metadata[{'k' * 41}]=v", CustomerCreateParams, None, "metadata"),
        (f"metadata[k]={'v' * 501}", CustomerCreateParams, None, "metadata"),
    ],
)
def test_what_stripe_would_refuse_is_refused_by_name(encoded, spec, code, param):
    with pytest.raises(StripeError) as refused:
        check(decode_form(encoded), spec)

    assert refused.value.body()["error"].get("code") == code
    assert refused.value.param == param
    assert refused.value.status == 400


def test_an_empty_string_unsets_where_the_sdk_allows_it():
    assert check(decode_form("metadata=&cancel_at="), SubscriptionUpdateParams) == {"metadata": "", "cancel_at": ""}


@pytest.mark.parametrize("encoded", ["created[gte]=5", "created=5"])
def test_a_union_takes_either_form(encoded):
    assert check(decode_form(encoded), InvoiceListParams)["created"] in ({"gte": 5}, 5)


def test_every_parameter_a_route_acts_on_exists_in_the_pinned_sdk():
    unknown = {(route.path, name) for route in routes() for name in route.honours if name not in fields_of(route.spec)}

    assert {name for _, name in unknown} <= {"created"}  # not every list can be filtered by it

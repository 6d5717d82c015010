"""One organization's month, from its license to its paid invoice."""

from datetime import datetime, timedelta
from decimal import Decimal

import pytest

LIMITED = "@posthog/quota-limits/events"
# 84 dollars buy the free million, a million at 0.00005 (50.00) and 991,399 at 0.0000343: 34.0049857 rounds to 34.00,
# and one event more would make 34.01.
QUOTA_FOR_84_DOLLARS = 1_000_000 + 1_000_000 + 991_399


def test_a_month_from_license_to_paid_invoice(billing, region, clock, cache):
    # A region gets its license; the first look at billing makes the organization a customer.
    license_ = billing.new_license("cloud")
    acme = billing.new_organization(license_)
    path = f"/v1/customers/{acme.organization_id}"
    first = billing.as_license(acme, "GET", "/api/billing")
    assert first["license"] == {"type": "cloud"}
    assert first["customer"]["subscription_level"] == "free"
    assert first["customer"]["has_active_subscription"] is False
    assert first["customer"]["usage_summary"]["events"] == {"usage": 0, "limit": 1_000_000}
    assert first["customer"]["usage_summary"]["recordings"] == {"usage": 0, "limit": 5_000}

    # Its region counts nothing by then. Without that word, the whole of day one would lie before the subscription (D4).
    early = billing.report(acme, clock.now(), 0, completeness="partial", as_of=clock.now())
    region.send(early)
    billing.eventually(lambda: verdicts(billing, acme) == {early.report_id: "applied"})

    # It subscribes, then limits what it is ready to pay for events.
    billing.as_operator(
        "POST", f"{path}/subscription", json={"products": ["product_analytics", "session_replay"]}, expect=201
    )
    assert billing.as_license(acme, "GET", "/api/billing")["customer"]["usage_summary"]["events"]["limit"] is None
    billing.as_license(acme, "PATCH", "/api/billing/", json={"custom_limits_usd": {"product_analytics": 84}})
    billing.eventually(lambda: billing.quota(acme)["quota"] == QUOTA_FOR_84_DOLLARS)

    # Day one over Kafka: at noon, complete, repeated, the noon report once more, and the day sent anew (L1).
    one = clock.now()
    noon = billing.report(acme, one, 400_000, completeness="partial", as_of=one)
    region.send(noon)
    billing.eventually(lambda: billing.events_used(acme) == (0, 400_000))
    clock.reach(one + timedelta(days=1))
    complete = billing.report(acme, one, 1_000_000, as_of=clock.now())
    resent = billing.report(acme, one, 1_000_000, as_of=clock.now() + timedelta(minutes=1))
    region.send(complete, complete, noon, resent)
    billing.eventually(
        lambda: verdicts(billing, acme) == {each.report_id: "applied" for each in (early, noon, complete, resent)}
    )
    assert billing.events_used(acme) == (1_000_000, 0)

    # Day two over HTTP: PostHog's daily report, answered with usage that already counts it.
    two = one + timedelta(days=1)
    clock.reach(two + timedelta(days=1))
    daily = {
        "organization_id": acme.organization_id,
        "date": two.date().isoformat(),
        "event_count_in_period": 1_200_000,
        "recording_count_in_period": 6_000,
        "dashboard_count": 3,
    }
    for _ in range(2):
        answer = billing.as_license(acme, "POST", "/api/usage", json=daily)
        assert answer["customer"]["usage_summary"]["events"] == {"usage": 2_200_000, "limit": QUOTA_FOR_84_DOLLARS}
        assert answer["customer"]["usage_summary"]["recordings"] == {"usage": 6_000, "limit": None}
    billing.eventually(lambda: billing.quota(acme)["usage"] == 2_200_000)
    assert billing.quota(acme)["allowed"] is True

    # Day three passes the limit by noon. Limiting counts the open day; what PostHog is shown does not (L6).
    three = two + timedelta(days=1)
    region.send(billing.report(acme, three, 800_000, completeness="partial", as_of=clock.now()))
    billing.eventually(lambda: not billing.quota(acme)["allowed"])
    assert billing.quota(acme)["usage"] == 3_000_000
    assert billing.quota(acme, "recordings")["allowed"] is True
    # Subscriptions hears of the open day on its own: the limiter's answer does not say that it has.
    billing.eventually(lambda: owed(billing, acme) == "89.00")
    customer = billing.as_license(acme, "GET", "/api/billing")["customer"]
    check_billing_object(customer, on=one)
    period_end = datetime.fromisoformat(customer["billing_period"]["current_period_end"])
    assert billing.quota(acme)["limited_until"] == period_end.strftime("%Y-%m-%dT%H:%M:%SZ")
    billing.eventually(lambda: cache.zscore(LIMITED, acme.project_token) == period_end.timestamp())

    # A higher limit releases at once, a lower one limits at once (L9).
    clock.reach(clock.now() + timedelta(hours=1))
    billing.as_license(acme, "PATCH", "/api/billing", json={"custom_limits_usd": {"product_analytics": 200}})
    billing.eventually(lambda: billing.quota(acme)["allowed"])
    billing.eventually(lambda: cache.zscore(LIMITED, acme.project_token) is None)
    clock.reach(clock.now() + timedelta(hours=1))
    billing.as_license(acme, "PATCH", "/api/billing", json={"custom_limits_usd": {"product_analytics": 84}})
    billing.eventually(lambda: not billing.quota(acme)["allowed"])
    explained = billing.as_license(
        acme, "GET", f"/v1/limits/{acme.organization_id}/explain", params={"meter": "events"}
    )
    assert explained["state"] == "limited"
    assert "3,000,000" in explained["sentence"]

    # The day ends higher. That is past the limit in force by then, so nobody pays for it (L12).
    clock.reach(three + timedelta(days=1))
    region.send(billing.report(acme, three, 900_000, as_of=clock.now()))
    billing.eventually(lambda: billing.events_used(acme) == (3_100_000, 0))

    # The period ends, everything may run again, and after the grace the invoice is made, paid, and equal to Stripe's.
    clock.reach(period_end + timedelta(minutes=1))
    billing.eventually(lambda: billing.quota(acme)["allowed"])
    clock.reach(period_end + timedelta(hours=26))
    invoice = billing.eventually_paid(acme)
    amounts = [(line["usage_key"], line["quantity"], line["amount"]) for line in invoice["lines"]]
    assert amounts == [
        ("events", 1_000_000, "0.00"),
        ("events", 1_000_000, "50.00"),
        ("events", 1_000_000, "34.30"),
        ("recordings", 5_000, "0.00"),
        ("recordings", 1_000, "5.00"),
    ]
    assert invoice["total"] == "89.30"
    assert invoice["total_minor"] == sum(line["amount_minor"] for line in invoice["lines"])
    assert invoice["reconciliation"] == "equal"
    assert invoice["differences"] == []
    assert datetime.fromisoformat(invoice["period_end"]) == period_end
    again = billing.as_license(acme, "GET", f"/v1/invoices?organization_id={acme.organization_id}")["results"]
    assert [each["invoice_id"] for each in again] == [invoice["invoice_id"]]


def verdicts(billing, organization):
    reports = billing.as_operator("GET", f"/v1/usage/{organization.organization_id}/reports")["results"]
    return {report["report_id"]: report["verdict"] for report in reports}


def owed(billing, organization):
    return billing.as_license(organization, "GET", "/api/billing")["customer"]["current_total_amount_usd"]


def check_billing_object(customer, *, on):
    """What PostHog's client reads (wire contract 3), at 2,200,000 finished events and 6,000 recordings."""
    assert customer["deactivated"] is False
    assert customer["has_active_subscription"] is True
    assert customer["subscription_level"] == "paid"
    assert isinstance(customer["customer_id"], str)
    assert customer["usage_summary"]["events"] == {"usage": 2_200_000, "limit": QUOTA_FOR_84_DOLLARS}
    assert customer["usage_summary"]["recordings"] == {"usage": 6_000, "limit": None}
    assert customer["custom_limits_usd"] == {"product_analytics": 84}
    # What is owed counts the open day too, up to the limit: 84.00 for events, 1,000 x 0.005 = 5.00 for recordings.
    assert customer["current_total_amount_usd"] == "89.00"
    assert customer["current_total_amount_usd_after_discount"] == "89.00"
    for name in ("projected_total_amount_usd", "projected_total_amount_usd_with_limit"):
        assert isinstance(customer[name], str)
        assert Decimal(customer[name]).is_finite()
    period = customer["billing_period"]
    start, end = (datetime.fromisoformat(period[f"current_period_{edge}"]) for edge in ("start", "end"))
    assert period["interval"] == "month"
    assert start.tzinfo is not None
    assert start <= on < end
    products = {product["type"]: product for product in customer["products"]}
    analytics = products["product_analytics"]
    assert analytics["usage_key"] == "events"
    assert analytics["current_usage"] == 2_200_000
    assert analytics["usage_limit"] == QUOTA_FOR_84_DOLLARS
    assert analytics["has_exceeded_limit"] is True
    assert [tier["up_to"] for tier in analytics["tiers"]][-1] is None
    assert analytics["tiers"][1]["current_amount_usd"] == "50.00"
    assert analytics["tiers"][2]["unit_amount_usd"] == "0.0000343"
    for product in customer["products"]:
        assert product["type"]
    never_a_number = [name for name in customer if name.endswith("_usd") and isinstance(customer[name], int | float)]
    assert never_a_number == []


@pytest.mark.parametrize("path", ["/api/billing", "/api/billing/"])
def test_a_path_answers_with_and_without_its_slash(billing, organization, path):
    answer = billing.ask("GET", path, billing.token(organization))
    assert answer.status_code == 200
    assert answer.json()["customer"]["billing_period"]["interval"] == "month"


def test_an_instance_signs_itself_up_and_its_license_belongs_to_one_organization(billing):
    signed_up = billing.ask(
        "POST", "/v1/licenses", json={"type": "scale", "email": "it@example.test", "organization_name": "Burrow"}
    )
    assert signed_up.status_code == 201
    license_ = billing.license_of(signed_up.json())
    mine = billing.new_organization(license_)
    assert billing.as_license(mine, "GET", "/api/billing")["license"] == {"type": "scale"}
    other = billing.new_organization(license_, known=False)
    refused = billing.ask("GET", "/api/billing", billing.token(other))
    assert refused.status_code == 403
    assert "customer" not in refused.json()

"""The simulated regions: drawn from a seed, misbehaving as asked, and with a truth that a person can check."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import jwt
import pytest
from quill_contracts.catalog_file import load_catalog
from quill_contracts.prices import PriceDocument
from quill_regions.days import live_through
from quill_regions.misbehaviour import Faults, deliveries
from quill_regions.organizations import Organization, draw_organizations
from quill_regions.posthog_report import usage_report
from quill_regions.tokens import billing_token
from quill_regions.truth import amount, expectations, month_totals, quota, tier_amounts

SEED = 7
DAYS = [date(2026, 10, 1) + timedelta(days=n) for n in range(20)]
CATALOG = load_catalog()


@pytest.fixture(scope="module")
def organizations() -> tuple[Organization, ...]:
    return draw_organizations(seed=SEED, count=120)


def last_complete(sent):
    """What L1 makes of the deliveries, told simply: the complete report with the newest as-of instant wins."""
    winners = {}
    for delivery in sent:
        report = delivery.report
        key = (report.organization_id, report.window_start)
        rank = (report.completeness == "complete", report.as_of)
        if key not in winners or rank > winners[key][0]:
            winners[key] = (rank, report)
    return {key: report for key, (_, report) in winners.items()}


def test_the_same_seed_draws_the_same_month(organizations):
    assert organizations == draw_organizations(seed=SEED, count=120)
    assert organizations != draw_organizations(seed=SEED + 1, count=120)
    assert live_through(organizations[3], DAYS[2], seed=SEED) == live_through(organizations[3], DAYS[2], seed=SEED)


def test_usage_is_heavy_tailed_and_every_plan_and_region_takes_part(organizations):
    events = sorted(o.appetite["event_count_in_period"] for o in organizations)
    assert sum(events[-12:]) > sum(events) // 3, "a tenth of the organizations does a good part of everything"
    assert {o.plan for o in organizations} == {"free", "paid", "capped"}
    assert {"us", "eu"} <= {o.source for o in organizations}
    assert any(o.self_hosted for o in organizations)


def test_however_reports_misbehave_the_last_word_is_the_truth(organizations):
    faults = Faults(silent=("eu", DAYS[5]))
    sent = deliveries(organizations, DAYS, seed=SEED, faults=faults)
    heard = last_complete(sent)
    for organization in organizations:
        for on in DAYS:
            day = live_through(organization, on, seed=SEED)
            assert heard[organization.organization_id, day.start].counters == day.totals


def test_every_misbehaviour_happens(organizations):
    sent = deliveries(organizations, DAYS, seed=SEED, faults=Faults(silent=("eu", DAYS[5])))
    labels = {d.report.report_id.rsplit(":", 1)[1] for d in sent}
    assert labels == {"noon", "final", "resent", "correction"}
    assert len({d.report.report_id for d in sent}) < len(sent), "some are sent twice"
    assert any(d.at - d.report.window_end > timedelta(days=1) for d in sent), "some are late"
    assert any(d.report.correction for d in sent)
    silent_day = datetime(2026, 10, 6, tzinfo=UTC)
    heard = [d for d in sent if d.report.source == "eu" and silent_day <= d.at < silent_day + timedelta(days=1)]
    about = [d for d in heard if d.report.window_start == silent_day]
    assert about == [], "the silent region says nothing about its silent day on that day"


def test_without_faults_every_day_is_reported_once_and_in_time(organizations):
    sent = deliveries(organizations, DAYS, seed=SEED, faults=Faults.none())
    assert len(sent) == len(organizations) * len(DAYS)
    assert all(d.at - d.report.window_end == timedelta(hours=3, minutes=45) for d in sent)


def test_nothing_is_handed_over_after_the_deadline(organizations):
    deadline = datetime(2026, 10, 21, 12, tzinfo=UTC)
    sent = deliveries(organizations, DAYS, seed=SEED, faults=Faults(), deadline=deadline)
    free = deliveries(organizations, DAYS, seed=SEED, faults=Faults())
    assert max(d.at for d in sent) <= deadline < max(d.at for d in free)
    assert len(sent) == len(free)


@pytest.mark.parametrize(
    ("product", "quantity", "dollars"),
    [
        ("product_analytics", 12_000_000, "393.00"),
        ("product_analytics", 1_000_000, "0"),
        ("product_analytics", 1_000_100, "0.01"),
        ("product_analytics", 2_345_678, "61.86"),
        ("surveys", 2_000, "50.00"),
        ("platform_enterprise", 1, "450.00"),
        ("posthog_ai", 1, "10.00"),
        ("posthog_ai", 1_001, "20.00"),
        ("posthog_ai", 0, "0"),
        ("workflow_emails", 10_000, "0"),
        ("workflow_emails", 10_001, "10.00"),
        ("workflow_emails", 200_000, "165.00"),
    ],
)
def test_the_truth_knows_the_published_prices(product: str, quantity: int, dollars: str):
    document = CATALOG.product(product)
    assert document is not None
    assert amount(document.price, quantity) == Decimal(dollars)


def test_each_tier_is_rounded_on_its_own():
    price = CATALOG.product("product_analytics").price
    assert tier_amounts(price, 2_000_150) == [Decimal("0.00"), Decimal("50.00"), Decimal("0.01")]


@pytest.mark.parametrize(
    ("model", "quantity", "dollars"),
    [("volume", 0, 10), ("volume", 12, 66), ("graduated", 0, 10), ("graduated", 12, 111)],
)
def test_the_truth_owes_the_first_flat_fee_without_usage(model: str, quantity: int, dollars: int):
    """K3: as Stripe's page on tiered pricing says."""
    tiers = [
        {"up_to": 5, "unit_amount": "5", "flat_amount": "10"},
        {"up_to": 10, "unit_amount": "4", "flat_amount": "20"},
        {"unit_amount": "3", "flat_amount": "30"},
    ]
    assert amount(PriceDocument.model_validate({"model": model, "tiers": tiers}), quantity) == dollars


def test_a_budget_buys_as_much_as_it_can_and_not_one_unit_more(organizations):
    product = CATALOG.product("product_analytics")
    capped = next(o for o in organizations if o.billing_limits_usd.get("product_analytics"))
    budget = capped.billing_limits_usd["product_analytics"]
    bought = quota(product, capped)
    assert amount(product.price, bought) <= budget < amount(product.price, bought + 1)


def test_free_organizations_expect_no_invoice_and_are_limited_at_their_free_units(organizations):
    totals = month_totals(organizations, DAYS, seed=SEED, catalog=CATALOG)
    before = month_totals(organizations, DAYS[:1], seed=SEED, catalog=CATALOG)
    expected = expectations(organizations, totals, catalog=CATALOG, unpaid=before)
    for organization in organizations:
        outcome = expected[organization.organization_id]
        assert (outcome.invoice_total is None) == (organization.plan == "free")
        if organization.plan == "free":
            assert ("events" in outcome.limited) == (outcome.usage["events"] >= 1_000_000)
        if organization.plan == "paid":
            assert outcome.limited == frozenset()


def test_a_token_is_signed_as_posthog_signs_it():
    now = datetime(2026, 10, 5, tzinfo=UTC)
    token = billing_token("id1::" + "s" * 43, organization_id="o", organization_name="n", now=now, distinct_id="d")
    assert jwt.get_unverified_header(token)["alg"] == "HS256"
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims == {
        "exp": int(now.timestamp()) + 900,
        "aud": "posthog:license-key",
        "id": "id1",
        "organization_id": "o",
        "organization_name": "n",
        "distinct_id": "d",
    }


def test_an_instances_report_has_posthogs_shape(organizations):
    day = live_through(organizations[0], DAYS[0], seed=SEED)
    body = usage_report(day)
    assert body["period"] == {
        "start_inclusive": "2026-10-01T00:00:00+00:00",
        "end_inclusive": "2026-10-01T23:59:59.999999+00:00",
    }
    assert body["event_count_in_period"] == sum(team["event_count_in_period"] for team in body["teams"].values())

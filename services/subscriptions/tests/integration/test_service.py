"""The whole service on real Kafka and Postgres."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import pytest
from quill_contracts import topics
from quill_contracts.subscriptions import CatalogProduct, CustomerSnapshot
from quill_contracts.usage import MeterUsage, PeriodUsage, PeriodUsageSnapshot, UsageCut

pytestmark = pytest.mark.integration

SMALL_CATALOG = """
version = 1
effective_at = 2025-01-01T00:00:00Z
[[products]]
key = "surveys"
name = "Surveys"
unit = "response"
usage_key = "survey_responses"
counter = "survey_responses_count_in_period"
price_id = "surveys_1"
[products.price]
model = "per_unit"
unit_amount = "0.1"
"""


async def test_the_loop_of_a_customer(run_service: Any) -> None:
    async with run_service() as running:
        org = running.organization_id
        first = await running.http.get("/api/billing", headers=running.signed())
        assert first.status_code == 200, first.text
        started = await running.http.post(
            f"/v1/customers/{org}/subscription",
            headers=running.operator,
            json={"products": ["product_analytics", "seats"], "quantities": {"seats": 3}},
        )
        assert started.status_code == 201, started.text
        again = await running.http.post(
            f"/v1/customers/{org}/subscription", headers=running.operator, json={"products": ["surveys"]}
        )
        assert (again.status_code, again.json()["code"]) == (409, "already_subscribed")
        limited = await running.http.patch(
            "/api/billing", headers=running.signed(), json={"custom_limits_usd": {"events": 393}}
        )
        for _ in range(2):  # a repeat changes nothing
            seated = await running.http.post(
                f"/v1/customers/{org}/subscription/quantities",
                headers=running.operator,
                json={"quantities": {"seats": 5}},
            )
            assert seated.status_code == 200, seated.text
        values = await running.published(topics.CUSTOMERS.name, org, 4)
        registered, subscribed, capped, more = [CustomerSnapshot.from_bytes(value) for value in values]
        assert [s.revision for s in (registered, subscribed, capped, more)] == [1, 2, 3, 4]
        assert not registered.has_active_subscription
        items = {item.product_key: item for item in capped.items}
        assert subscribed.has_active_subscription
        assert items["seats"].quantity == 3
        assert next(item for item in more.items if item.product_key == "seats").quantity == 5
        quota = limited.json()["customer"]["usage_summary"]["events"]["limit"]
        assert items["product_analytics"].quota == quota
        assert capped.schedule == registered.schedule, "a subscription keeps the schedule"

        usage = PeriodUsage(
            period_start=registered.period.start,
            period_end=registered.period.end,
            as_of=datetime.now(UTC),
            meters={"events": MeterUsage(complete=2_000_000, partial=10, maximum=2_000_010)},
            cuts=[UsageCut(at=at, used={"events": 0}) for at in more.cuts],
        )
        await running.publish(
            topics.PERIOD_USAGE.name, org, PeriodUsageSnapshot(organization_id=org, revision=1, periods=[usage])
        )

        async def seen() -> Any:
            customer = (await running.http.get("/api/billing", headers=running.signed())).json()["customer"]
            return customer if customer["usage_summary"]["events"]["usage"] else None

        customer = await running.until(seen)
        assert customer["usage_summary"]["events"] == {"usage": 2_000_000, "limit": quota}
        seats = _prorated("60.00", subscribed, subscribed.effective_at)
        seats += _prorated("40.00", subscribed, more.effective_at)
        assert customer["current_total_amount_usd"] == str(50 + seats), "50.00 of events, three seats, then five"

        cancelled = await running.http.delete(f"/v1/customers/{org}/subscription", headers=running.operator)
        assert cancelled.json()["has_active_subscription"] is False
        history = await running.http.get(f"/v1/customers/{org}/history", headers=running.operator)
        assert [event["type"] for event in history.json()["results"]] == [
            "CustomerRegistered",
            "SubscriptionStarted",
            "BillingLimitsChanged",
            "QuantitiesChanged",
            "SubscriptionCancelled",
        ]


def _prorated(monthly: str, snapshot: CustomerSnapshot, since: datetime) -> Decimal:
    """What a month's price costs from ``since`` to the end of the period, in whole cents."""
    left, whole = snapshot.period.end - since, snapshot.period.end - snapshot.period.start
    tick = timedelta(microseconds=1)
    return (Decimal(monthly) * (left // tick) / (whole // tick)).quantize(Decimal("0.01"), ROUND_HALF_UP)


async def test_the_catalog_is_published_once_per_content(run_service: Any) -> None:
    async with run_service() as running:
        values = await running.published(topics.CATALOG.name, "error_tracking", 1)
        product = CatalogProduct.from_bytes(values[-1])
        assert (product.usage_key, product.revision) == ("exceptions", 1)
        assert (await running.http.get("/v1/catalog/error_tracking", headers=running.operator)).json()["revision"] == 1


async def test_simultaneous_first_calls_of_a_self_hosted_license_have_one_winner(run_service: Any) -> None:
    """(L17)"""
    async with run_service(license_type="scale") as running:
        answers = await asyncio.gather(
            *(running.http.get("/api/billing", headers=running.signed(f"org-{n}")) for n in range(6))
        )
        assert sorted(answer.status_code for answer in answers) == [200, 403, 403, 403, 403, 403]
        assert all("customer" not in answer.json() for answer in answers if answer.status_code != 200)


async def test_a_bad_file_leaves_the_catalog_in_force_and_says_why(run_service: Any, tmp_path: Path) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text(SMALL_CATALOG, "utf-8")
    async with run_service(catalog_file=path) as running:
        assert (await running.http.get("/health/ready")).json()["checks"]["catalog"] == "ok"
        path.write_text(SMALL_CATALOG.replace('"0.1"', '"-0.1"').replace("version = 1", "version = 2"), "utf-8")

        async def refused() -> Any:
            check = (await running.http.get("/health/ready")).json()["checks"]["catalog"]
            return check if check != "ok" else None

        assert "surveys" in await running.until(refused)
        assert (await running.http.get("/v1/catalog", headers=running.operator)).json()["version"] == 1
        assert (await running.http.get("/api/billing", headers=running.signed())).status_code == 200
        path.write_text(
            SMALL_CATALOG.replace('"0.1"', '"0.2"')
            .replace("version = 1", "version = 2")
            .replace("surveys_1", "surveys_2"),
            "utf-8",
        )

        async def adopted() -> bool:
            answer = await running.http.get("/v1/catalog/surveys", headers=running.operator)
            return bool(answer.json()["revision"] == 2)

        assert await running.until(adopted)

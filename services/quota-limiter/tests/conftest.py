"""Builders of facts, as fixtures: customers and usage as they arrive in messages."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from quill_contracts.subscriptions import CustomerSnapshot
from quill_contracts.usage import PeriodUsageSnapshot, TeamUsageSnapshot

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
PRICE = {"model": "per_unit", "unit_amount": "0.01"}


@pytest.fixture
def customer_snapshot() -> Callable[..., CustomerSnapshot]:
    """``customer_snapshot(revision=1, events=1_000, recordings=500, ...)``: a quota in units per meter.

    A quota is made by a free tier without a subscription; ``None`` makes a subscribed item without a billing limit.
    ``price`` is every item's price document.
    """

    def build(organization_id: str = "acme", revision: int = 1, tokens: tuple[str, ...] = ("phc_1",), **given: Any):
        facts = {
            "license_id": "license-1",
            "trust_scores": {},
            "never_drop_data": False,
            "anchor": OCTOBER,
            "price": PRICE,
        } | {
            name: given.pop(name)
            for name in ("license_id", "trust_scores", "never_drop_data", "anchor", "price")
            if name in given
        }
        quotas: dict[str, int | None] = given or {"events": 1_000}
        return CustomerSnapshot.model_validate(
            {
                "organization_id": organization_id,
                "customer_id": f"customer-of-{organization_id}",
                "revision": revision,
                "effective_at": OCTOBER,
                "license_id": facts["license_id"],
                "license_type": "cloud",
                "schedule": {"anchor": facts["anchor"], "interval": "month"},
                "period": {"start": OCTOBER, "end": NOVEMBER},
                "has_active_subscription": False,
                "items": [
                    {
                        "product_key": usage_key,
                        "usage_key": usage_key,
                        "counter": f"{usage_key}_in_period",
                        "price_id": "standard",
                        "price": facts["price"],
                        "subscribed": quota is None,
                        "allowance": quota or 0,
                        "quota": quota,
                    }
                    for usage_key, quota in quotas.items()
                ],
                "trust_scores": facts["trust_scores"],
                "never_drop_data": facts["never_drop_data"],
                "projects": [{"team_id": str(number), "api_token": token} for number, token in enumerate(tokens)],
            }
        )

    return build


@pytest.fixture
def usage_snapshot() -> Callable[..., PeriodUsageSnapshot]:
    """``usage_snapshot(revision=1, events=999)``: complete days; ``partial={"events": 1}`` adds today.

    ``maxima`` are the greatest ever published, ``cuts`` what was used before an instant.
    """

    def build(
        organization_id: str = "acme",
        revision: int = 1,
        start: datetime = OCTOBER,
        end: datetime = NOVEMBER,
        *,
        partial: dict[str, int] | None = None,
        maxima: dict[str, int] | None = None,
        cuts: dict[datetime, dict[str, int]] | None = None,
        **quantities: int,
    ):
        today, greatest = partial or {}, maxima or {}
        return PeriodUsageSnapshot.model_validate(
            {
                "organization_id": organization_id,
                "revision": revision,
                "periods": [
                    {
                        "period_start": start,
                        "period_end": end,
                        "as_of": start,
                        "meters": {
                            key: {
                                "complete": quantity,
                                "partial": today.get(key, 0),
                                "maximum": greatest.get(key, quantity + today.get(key, 0)),
                            }
                            for key, quantity in quantities.items()
                        },
                        "cuts": [{"at": at, "used": used} for at, used in sorted((cuts or {}).items())],
                    }
                ],
            }
        )

    return build


@pytest.fixture
def team_usage_snapshot() -> Callable[..., TeamUsageSnapshot]:
    """``team_usage_snapshot("1", revision=1, events=999)``: what one team of acme used in October."""

    def build(
        team_id: str = "0",
        revision: int = 1,
        organization_id: str = "acme",
        start: datetime = OCTOBER,
        end: datetime = NOVEMBER,
        **quantities: int,
    ):
        return TeamUsageSnapshot.model_validate(
            {
                "organization_id": organization_id,
                "team_id": team_id,
                "revision": revision,
                "periods": [
                    {
                        "period_start": start,
                        "period_end": end,
                        "meters": {key: {"complete": used, "partial": 0} for key, used in quantities.items()},
                    }
                ],
            }
        )

    return build

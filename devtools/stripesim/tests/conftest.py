"""A simulator per test, the real SDK pointed at it, and the small stories that many tests begin with."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import stripe
from quill_stripesim.engine.announcing import API_VERSION
from quill_stripesim.serving import simulated_stripe

stripe.enable_telemetry = False

TIERS = [
    {"up_to": 1_000_000, "unit_amount_decimal": "0"},
    {"up_to": 2_000_000, "unit_amount_decimal": "0.005"},
    {"up_to": 15_000_000, "unit_amount_decimal": "0.00343"},
    {"up_to": "inf", "unit_amount_decimal": "0.00295"},
]


@dataclass(frozen=True)
class Story:
    """The SDK, the control API, and one product measured by one meter."""

    client: stripe.StripeClient
    control: httpx.Client
    url: str

    def at(self, *parts: int) -> int:
        return int(datetime(*parts, tzinfo=UTC).timestamp())

    def clock(self, *parts: int) -> str:
        return self.client.v1.test_helpers.test_clocks.create(params={"frozen_time": self.at(*parts)}).id

    def advance(self, clock: str, *parts: int) -> None:
        clocks = self.client.v1.test_helpers.test_clocks
        clocks.advance(clock, params={"frozen_time": self.at(*parts)})
        give_up_at = time.monotonic() + 5
        while clocks.retrieve(clock).status != "ready":
            assert time.monotonic() < give_up_at, "the clock never arrived"
            time.sleep(0.02)

    def customer(self, clock: str | None = None, card: str | None = "pm_card_visa", **more: Any) -> str:
        params: dict[str, Any] = {"name": "Acme", **more}
        if clock is not None:
            params["test_clock"] = clock
        if card is not None:
            params |= {"payment_method": card, "invoice_settings": {"default_payment_method": card}}
        return self.client.v1.customers.create(params=params).id

    def meter(self, event_name: str = "events", formula: str = "last") -> str:
        params = {"display_name": event_name, "event_name": event_name, "default_aggregation": {"formula": formula}}
        return self.client.v1.billing.meters.create(params=params).id

    def metered_price(self, meter: str, tiers: list[dict[str, Any]] | None = None) -> str:
        product = self.client.v1.products.create(params={"name": "Product analytics"})
        return self.client.v1.prices.create(
            params={
                "product": product.id,
                "currency": "usd",
                "billing_scheme": "tiered",
                "tiers_mode": "graduated",
                "tiers": tiers or TIERS,
                "recurring": {"interval": "month", "usage_type": "metered", "meter": meter},
            }
        ).id

    def seat_price(self, unit_amount: int = 1_000) -> str:
        product = self.client.v1.products.create(params={"name": "Seats"})
        params = {
            "product": product.id,
            "currency": "usd",
            "unit_amount": unit_amount,
            "recurring": {"interval": "month"},
        }
        return self.client.v1.prices.create(params=params).id

    def subscribe(self, customer: str, *prices: str, **more: Any) -> stripe.Subscription:
        items = [{"price": price} for price in prices]
        return self.client.v1.subscriptions.create(params={"customer": customer, "items": items, **more})

    def report(self, customer: str, value: int, at: int, event_name: str = "events", **more: Any) -> None:
        payload = {"stripe_customer_id": customer, "value": str(value)}
        self.client.v1.billing.meter_events.create(
            params={"event_name": event_name, "payload": payload, "timestamp": at, **more}
        )

    def invoices(self, customer: str) -> list[stripe.Invoice]:
        return list(self.client.v1.invoices.list(params={"customer": customer, "limit": 100}).data)


def story_at(url: str, control: httpx.Client, **client_options: Any) -> Story:
    client = stripe.StripeClient(
        "sk_test_story",
        stripe_version=API_VERSION,
        base_addresses=dict.fromkeys(("api", "files", "connect", "meter_events"), url),
        http_client=stripe.RequestsClient(timeout=10),
        **client_options,
    )
    return Story(client=client, control=control, url=url)


@pytest.fixture
def story() -> Iterator[Story]:
    with simulated_stripe() as url, httpx.Client(base_url=f"{url}/_control", trust_env=False) as control:
        yield story_at(url, control)


@pytest.fixture
def stubborn_story() -> Iterator[Story]:
    """The same, with an SDK that tries twice again."""
    with simulated_stripe() as url, httpx.Client(base_url=f"{url}/_control", trust_env=False) as control:
        yield story_at(url, control, max_network_retries=2)

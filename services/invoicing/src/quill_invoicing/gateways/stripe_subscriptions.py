"""Subscriptions at Stripe: made equal to the terms, as far as Stripe can rate them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import stripe
from quill_pricing.period import Interval

from quill_invoicing.domain.collection import Attempt, RailSubscription, SubscriptionOrder
from quill_invoicing.domain.operator_alert import RailNotice
from quill_invoicing.gateways.stripe_catalog import METADATA_LENGTH_MAX, StripeCatalog
from quill_invoicing.gateways.stripe_objects import metadata_of, untyped
from quill_invoicing.gateways.stripe_writes import asked, write
from quill_invoicing.ports import RailRefused

PAGE: Final = 100
SUBSCRIPTION_ITEMS_MAX: Final = 20
LIVE_SUBSCRIPTION: Final = frozenset({"active", "past_due", "unpaid", "incomplete", "trialing"})


class StripeSubscriptions:
    """Makes, changes and ends them; products that Stripe cannot rate are left out and named."""

    def __init__(self, client: stripe.StripeClient, catalog: StripeCatalog) -> None:
        self._client = client
        self._catalog = catalog

    async def ensure(self, order: SubscriptionOrder, attempt: Attempt) -> RailSubscription:
        """A subscription with exactly the items that Stripe can rate, and periods equal to ours."""
        try:
            return await self._ensure(order, attempt)
        except RailRefused:
            # What is remembered of the catalog may be out of date: somebody has archived a price meanwhile.
            self._catalog.forget()
            return await self._ensure(order, attempt.step("looked-again"))

    async def end(self, subscription: str, attempt: Attempt) -> None:
        """End it now, billing nothing more."""

        async def ended() -> Any:
            found = await self._client.v1.subscriptions.retrieve_async(subscription)
            return None if found.status in LIVE_SUBSCRIPTION else found

        if await asked(ended()) is None:
            await asked(
                write(
                    attempt,
                    send=lambda options: self._client.v1.subscriptions.cancel_async(
                        subscription, params={"invoice_now": False, "prorate": False}, options=options
                    ),
                    find=ended,
                )
            )

    async def _ensure(self, order: SubscriptionOrder, attempt: Attempt) -> RailSubscription:
        interval = Interval.parse(order.interval)
        prices = [(item, await self._catalog.price(item, interval, attempt)) for item in order.items]
        existing = await self._existing_subscription(order, attempt)
        current = set() if existing is None else {item.price.id for item in existing["items"].data}
        kept = [(item, price) for item, price in prices if price.reference in current]
        sold = [(item, price) for item, price in prices if price.notice is None and (item, price) not in kept]
        chosen = [*kept, *sold][:SUBSCRIPTION_ITEMS_MAX]
        notices = tuple(price.notice for _, price in prices if price.notice is not None)
        if len(kept) + len(sold) > SUBSCRIPTION_ITEMS_MAX:
            detail = (
                f"{len(kept) + len(sold)} products, of which Stripe takes {SUBSCRIPTION_ITEMS_MAX} on a subscription"
            )
            notices = (*notices, RailNotice("too_many_items", order.organization_id, detail))
        wanted = [price.reference for _, price in chosen if price.reference is not None]
        rated = frozenset(item.product_key for item, _ in chosen)
        if not wanted:
            reference = None if existing is None else str(existing.id)
            return RailSubscription(reference, order.period.start, rated, notices)
        if existing is None:
            existing = await self._subscribe(order, interval, wanted, attempt)
        else:
            existing = await self._set_items(existing, wanted, attempt)
        starts = [item.current_period_start for item in existing["items"].data]
        return RailSubscription(existing.id, datetime.fromtimestamp(min(starts), UTC), rated, notices)

    async def _existing_subscription(self, order: SubscriptionOrder, attempt: Attempt) -> Any:
        if order.existing is not None:
            found = await asked(self._client.v1.subscriptions.retrieve_async(order.existing))
            return found if found.status in LIVE_SUBSCRIPTION else None
        return await asked(self._live_subscription(order)) if attempt.is_repeat else None

    async def _live_subscription(self, order: SubscriptionOrder) -> Any:
        page = await self._client.v1.subscriptions.list_async(params={"customer": order.customer, "limit": PAGE})
        return next(
            (each for each in page.data if metadata_of(each, "quill_organization_id") == order.organization_id), None
        )

    async def _subscribe(
        self, order: SubscriptionOrder, interval: Interval, prices: Sequence[str], attempt: Attempt
    ) -> Any:
        params: dict[str, Any] = {
            "customer": order.customer,
            "items": [{"price": price} for price in prices],
            "billing_mode": {"type": "flexible"},
            "collection_method": "charge_automatically",
            "proration_behavior": "none",
            "backdate_start_date": int(order.period.start.timestamp()),
            "metadata": {
                "quill_organization_id": order.organization_id,
                "operation_id": attempt.key[:METADATA_LENGTH_MAX],
            },
        }
        if interval == Interval(1, "month"):
            # Only the configured form remembers day 31 through shorter months (L21).
            anchor = order.anchor
            params["billing_cycle_anchor_config"] = {
                "day_of_month": anchor.day,
                "hour": anchor.hour,
                "minute": anchor.minute,
                "second": anchor.second,
            }
        else:
            params["billing_cycle_anchor"] = int(order.period.end.timestamp())
        return await asked(
            write(
                attempt,
                send=lambda options: self._client.v1.subscriptions.create_async(
                    params=untyped(params), options=options
                ),
                find=lambda: self._live_subscription(order),
            )
        )

    async def _set_items(self, subscription: Any, prices: Sequence[str], attempt: Attempt) -> Any:
        """Swap items in one call without proration: with it, usage so far would be billed twice."""

        async def equal() -> Any:
            found = await self._client.v1.subscriptions.retrieve_async(subscription.id)
            return found if {item.price.id for item in found["items"].data} == set(prices) else None

        current = {item.price.id: item.id for item in subscription["items"].data}
        changes: list[dict[str, Any]] = [
            {"id": item, "deleted": True} for price, item in current.items() if price not in prices
        ]
        changes += [{"price": price} for price in prices if price not in current]
        if not changes:
            return subscription
        params = untyped({"items": changes, "proration_behavior": "none"})
        return await asked(
            write(
                attempt,
                send=lambda options: self._client.v1.subscriptions.update_async(
                    subscription.id, params=params, options=options
                ),
                find=equal,
            )
        )

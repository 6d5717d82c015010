"""Stripe as a payment rail. Every request carries our key and our ids, so that a repeat finds what was done (L15)."""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, TypeVar

import stripe
from quill_pricing.period import BillingPeriod, Interval

from quill_invoicing.domain.collection import (
    Attempt,
    ChargedLine,
    MeterReport,
    RailCustomer,
    RailInvoice,
    RailLine,
    RailSubscription,
    SubscriptionOrder,
)
from quill_invoicing.gateways.stripe_catalog import StripeCatalog, UnpricedAtStripe, event_name, product_key_of
from quill_invoicing.ports import RailRefused

API_VERSION: Final = "2026-10-28.endive"
TIMEOUT_SECONDS = 20
NETWORK_RETRIES = 2
PAGE = 100
PAGES_MAX = 50
KEY_LENGTH_MAX = 255
NEW_KEY_EVERY = 4
"""After this many tries whose look-up found nothing, the key may only repeat a stored failure: use a new one."""
LIVE_SUBSCRIPTION = frozenset({"active", "past_due", "unpaid", "incomplete", "trialing"})
NO_CARD = "no_payment_method"
SECONDS_PER_MINUTE = 60

T = TypeVar("T")


class StripeRail:
    """The payment rail of production; also of the sandbox, where the addresses are the simulator's.

    Args:
        api_key: Secret key.
        api_base: Address of a simulator; None for Stripe itself. All four of the SDK's addresses are set, because one
            that is missing falls back to the real host.
        test_payment_method: A test card given to each new customer; only for a sandbox.
    """

    def __init__(self, *, api_key: str, api_base: str | None = None, test_payment_method: str | None = None) -> None:
        stripe.enable_telemetry = False
        self._http = stripe.HTTPXClient(timeout=TIMEOUT_SECONDS)
        addresses: Any = (
            {}
            if api_base is None
            else {
                "base_addresses": {
                    "api": api_base,
                    "connect": api_base,
                    "files": api_base,
                    "meter_events": api_base,
                }
            }
        )
        self._client = stripe.StripeClient(
            api_key,
            stripe_version=API_VERSION,
            max_network_retries=NETWORK_RETRIES,
            http_client=self._http,
            **addresses,
        )
        self._catalog = StripeCatalog(self._client)
        self._test_payment_method = test_payment_method

    async def close(self) -> None:
        await self._http.close_async()  # type: ignore[no-untyped-call]

    async def ensure_customer(self, customer: RailCustomer, *, attempt: Attempt) -> str:
        if attempt.is_repeat:
            query = f"metadata['quill_organization_id']:'{customer.organization_id}'"
            found = await _asked(self._client.v1.customers.search_async(params={"query": query, "limit": 1}))
            if found.data:
                return found.data[0].id
        params: dict[str, Any] = {
            "metadata": {"quill_organization_id": customer.organization_id, "operation_id": attempt.key}
        }
        if customer.name:
            params["name"] = customer.name
        if customer.email:
            params["email"] = customer.email
        if self._test_payment_method is not None:
            params["payment_method"] = self._test_payment_method
            params["invoice_settings"] = {"default_payment_method": self._test_payment_method}
        made = await _asked(self._client.v1.customers.create_async(params=_open(params), options=_options(attempt)))
        return made.id

    async def ensure_subscription(self, order: SubscriptionOrder, *, attempt: Attempt) -> RailSubscription:
        interval = Interval.parse(order.interval)
        try:
            prices = [await _asked(self._catalog.price(item, interval)) for item in order.items]
        except UnpricedAtStripe as error:
            raise RailRefused(str(error)) from error
        existing = await self._existing_subscription(order, attempt)
        if existing is None:
            existing = await self._subscribe(order, interval, prices, attempt)
        else:
            await self._set_items(existing, prices, attempt)
        starts = [item.current_period_start for item in existing["items"].data]
        return RailSubscription(existing.id, datetime.fromtimestamp(min(starts), UTC))

    async def end_subscription(self, subscription: str, *, attempt: Attempt) -> None:
        found = await _asked(self._client.v1.subscriptions.retrieve_async(subscription))
        if found.status in LIVE_SUBSCRIPTION:
            await _asked(
                self._client.v1.subscriptions.cancel_async(
                    subscription, params={"invoice_now": False, "prorate": False}, options=_options(attempt)
                )
            )

    async def report_usage(self, report: MeterReport, *, attempt: Attempt) -> None:
        try:
            await self._client.v1.billing.meter_events.create_async(
                params={
                    "event_name": event_name(report.product_key),
                    "payload": {"stripe_customer_id": report.customer, "value": str(report.quantity)},
                    "timestamp": int(report.timestamp.timestamp()),
                    "identifier": report.identifier,
                },
                options=_options(attempt),
            )
        except stripe.InvalidRequestError as error:
            if not _is_duplicate_event(error):
                raise _refusal(error) from error

    async def usage_seen(self, *, customer: str, product_key: str, period: BillingPeriod) -> int | None:
        start, end = int(period.start.timestamp()), int(period.end.timestamp())
        if start % SECONDS_PER_MINUTE or end % SECONDS_PER_MINUTE:
            return None
        meter = await _asked(self._catalog.meter(product_key))
        if meter is None:
            return None
        summaries = await _asked(
            self._client.v1.billing.meters.event_summaries.list_async(
                meter, params={"customer": customer, "start_time": start, "end_time": end, "limit": 1}
            )
        )
        return int(Decimal(str(summaries.data[0].aggregated_value))) if summaries.data else 0

    async def find_period_invoice(
        self, *, customer: str, subscription: str, period: BillingPeriod
    ) -> RailInvoice | None:
        end = int(period.end.timestamp())
        async for invoice in self._invoices({"customer": customer, "subscription": subscription}):
            if invoice.period_end == end and invoice.billing_reason == "subscription_cycle":
                return _invoice(invoice)
        return None

    async def hold_draft(self, invoice: str, *, attempt: Attempt) -> RailInvoice:
        found = await _asked(self._client.v1.invoices.retrieve_async(invoice))
        if found.status != "draft" or not found.auto_advance:
            return _invoice(found)
        held = await _asked(
            self._client.v1.invoices.update_async(invoice, params={"auto_advance": False}, options=_options(attempt))
        )
        return _invoice(held)

    async def charge_lines(
        self, invoice: str, lines: Sequence[ChargedLine], *, quill_invoice_id: str, attempt: Attempt
    ) -> RailInvoice:
        metadata = {"quill_invoice_id": quill_invoice_id, "operation_id": attempt.key}
        if attempt.is_repeat:
            found = await _asked(self._client.v1.invoices.retrieve_async(invoice))
            if _metadata(found, "quill_invoice_id") == quill_invoice_id:
                return _invoice(found)
        if not lines:
            marked = await _asked(
                self._client.v1.invoices.update_async(invoice, params={"metadata": metadata}, options=_options(attempt))
            )
            return _invoice(marked)
        charged = await _asked(
            self._client.v1.invoices.add_lines_async(
                invoice,
                params={"lines": [_line_params(line) for line in lines], "invoice_metadata": metadata},
                options=_options(attempt),
            )
        )
        return _invoice(charged)

    async def create_invoice(
        self, *, customer: str, currency: str, quill_invoice_id: str, lines: Sequence[ChargedLine], attempt: Attempt
    ) -> RailInvoice:
        draft: Any = await self._own_draft(customer, quill_invoice_id) if attempt.is_repeat else None
        if draft is None:
            draft = await _asked(
                self._client.v1.invoices.create_async(
                    params={
                        "customer": customer,
                        "currency": currency,
                        "auto_advance": False,
                        "collection_method": "charge_automatically",
                        "pending_invoice_items_behavior": "exclude",
                        "metadata": {"quill_draft_of": quill_invoice_id, "operation_id": attempt.key},
                    },
                    options=_options(attempt),
                )
            )
        if draft.status != "draft":
            return _invoice(draft)
        return await self.charge_lines(
            draft.id, lines, quill_invoice_id=quill_invoice_id, attempt=attempt.step("lines")
        )

    async def finalize(self, invoice: str, *, attempt: Attempt) -> RailInvoice:
        if attempt.is_repeat:
            found = await _asked(self._client.v1.invoices.retrieve_async(invoice))
            if found.status != "draft":
                return _invoice(found)
        final = await _asked(
            self._client.v1.invoices.finalize_invoice_async(
                invoice, params={"auto_advance": False}, options=_options(attempt)
            )
        )
        return _invoice(final)

    async def pay(self, invoice: str, *, attempt: Attempt) -> RailInvoice:
        if attempt.is_repeat:
            found = await self.invoice(invoice)
            if found.status != "open":
                return found
        try:
            return _invoice(await self._client.v1.invoices.pay_async(invoice, options=_options(attempt)))
        except stripe.CardError as error:
            return await self._after_refused_payment(invoice, error.code or "card_error")
        except stripe.InvalidRequestError as error:
            if error.code == "invoice_already_paid":
                return await self.invoice(invoice)
            if "default_payment_method" in str(error) or "no attached payment source" in str(error):
                return await self._after_refused_payment(invoice, NO_CARD)
            raise _refusal(error) from error

    async def invoice(self, reference: str) -> RailInvoice:
        return _invoice(await _asked(self._client.v1.invoices.retrieve_async(reference)))

    async def lines(self, invoice: str) -> list[RailLine]:
        found: list[RailLine] = []
        after: dict[str, Any] = {}
        for _ in range(PAGES_MAX):
            page = await _asked(
                self._client.v1.invoices.line_items.list_async(
                    invoice,
                    params=_open({"limit": PAGE, **after}),
                )
            )
            found.extend(_line(line) for line in page.data)
            if not page.has_more:
                return found
            after = {"starting_after": page.data[-1].id}
        raise RailRefused(f"invoice {invoice} has more than {PAGES_MAX * PAGE} lines")

    async def _after_refused_payment(self, invoice: str, code: str) -> RailInvoice:
        """The invoice as it now stands, open, with the reason."""
        current = await self.invoice(invoice)
        return RailInvoice(current.reference, current.status, current.total_minor, current.quill_invoice_id, code)

    async def _existing_subscription(self, order: SubscriptionOrder, attempt: Attempt) -> Any:
        if order.existing is not None:
            found = await _asked(self._client.v1.subscriptions.retrieve_async(order.existing))
            return found if found.status in LIVE_SUBSCRIPTION else None
        if not attempt.is_repeat:
            return None
        page = await _asked(
            self._client.v1.subscriptions.list_async(params={"customer": order.customer, "limit": PAGE})
        )
        return next(
            (each for each in page.data if _metadata(each, "quill_organization_id") == order.organization_id), None
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
            "metadata": {"quill_organization_id": order.organization_id, "operation_id": attempt.key},
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
        return await _asked(self._client.v1.subscriptions.create_async(params=_open(params), options=_options(attempt)))

    async def _set_items(self, subscription: Any, prices: Sequence[str], attempt: Attempt) -> None:
        """Swap items in one call without proration: with it, usage so far would be billed twice (facts 2.4)."""
        current = {item.price.id: item.id for item in subscription["items"].data}
        changes: list[dict[str, Any]] = [
            {"id": item, "deleted": True} for price, item in current.items() if price not in prices
        ]
        changes += [{"price": price} for price in prices if price not in current]
        if changes:
            await _asked(
                self._client.v1.subscriptions.update_async(
                    subscription.id,
                    params=_open({"items": changes, "proration_behavior": "none"}),
                    options=_options(attempt),
                )
            )

    async def _own_draft(self, customer: str, quill_invoice_id: str) -> Any:
        """Listing is up to date at once; searching is not."""
        async for invoice in self._invoices({"customer": customer}):
            if quill_invoice_id in (_metadata(invoice, "quill_draft_of"), _metadata(invoice, "quill_invoice_id")):
                return invoice
        return None

    async def _invoices(self, which: dict[str, Any]) -> AsyncIterator[Any]:
        after: dict[str, Any] = {}
        for _ in range(PAGES_MAX):
            page = await _asked(self._client.v1.invoices.list_async(params=_open({**which, **after, "limit": PAGE})))
            for invoice in page.data:
                yield invoice
            if not page.has_more:
                return
            after = {"starting_after": page.data[-1].id}


async def _asked(call: Awaitable[T]) -> T:
    """The answer.

    Raises:
        RailRefused: Stripe will never accept this request (400, 402, 404, a key used for something else).
        stripe.StripeError: anything else: the outcome is unknown or will change, so the operation is tried again.
    """
    try:
        return await call
    except (stripe.InvalidRequestError, stripe.IdempotencyError, stripe.CardError) as error:
        raise _refusal(error) from error


def _open(params: dict[str, Any]) -> Any:
    """Parameters put together at run time; the SDK's types want literals. The simulator checks them instead."""
    return params


def _refusal(error: stripe.StripeError) -> RailRefused:
    return RailRefused(f"{error.http_status} {error.code}: {error.user_message or error} (request {error.request_id})")


def _is_duplicate_event(error: stripe.InvalidRequestError) -> bool:
    """The identifier was taken within a day: the report is there already."""
    return error.code == "duplicate_meter_event" or "already exists with identifier" in str(error)


def _options(attempt: Attempt) -> stripe.RequestOptions:
    """Our key; a new one once look-ups have shown again and again that the old one had no effect."""
    generation = (attempt.number - 1) // NEW_KEY_EVERY
    key = attempt.key if generation == 0 else f"{attempt.key}:again-{generation}"
    if len(key) > KEY_LENGTH_MAX:
        key = hashlib.sha256(key.encode()).hexdigest()
    return {"idempotency_key": key}


def _metadata(found: Any, name: str) -> str | None:
    metadata = found.metadata
    return metadata[name] if metadata is not None and name in metadata else None


def _invoice(found: Any) -> RailInvoice:
    return RailInvoice(
        reference=found.id,
        status=found.status,
        total_minor=found.total,
        quill_invoice_id=_metadata(found, "quill_invoice_id"),
    )


def _line(found: Any) -> RailLine:
    """A line that we charged says in its metadata what it is about; Stripe's own say it by their price."""
    product_key = _metadata(found, "quill_product_key")
    quantity = _metadata(found, "quill_quantity")
    details = getattr(found.pricing, "price_details", None) if found.pricing is not None else None
    if product_key is None and details is not None:
        product_key = product_key_of(details.product)
    return RailLine(
        product_key=product_key,
        description=found.description or "",
        quantity=int(quantity) if quantity is not None else int(found.quantity or 0),
        amount_minor=found.amount,
    )


def _line_params(line: ChargedLine) -> Any:
    return {
        "amount": line.amount_minor,
        "description": line.description,
        "metadata": {"quill_product_key": line.product_key, "quill_quantity": str(line.quantity)},
        "period": {
            "start": int(line.service_period.start.timestamp()),
            "end": int(line.service_period.end.timestamp()),
        },
    }

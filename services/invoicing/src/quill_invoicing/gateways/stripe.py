"""Stripe as a payment rail. Every request carries our key and our ids, so that a repeat finds what was done (L15)."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from typing import Any, Final

import stripe
from quill_pricing.period import BillingPeriod

from quill_invoicing.domain.collection import (
    Attempt,
    ChargedLine,
    MadeCustomer,
    MeterReport,
    RailCustomer,
    RailInvoice,
    RailLine,
    RailSubscription,
    SubscriptionOrder,
)
from quill_invoicing.domain.operator_alert import RailNotice
from quill_invoicing.gateways.stripe_catalog import METADATA_LENGTH_MAX, StripeCatalog, event_name
from quill_invoicing.gateways.stripe_objects import line_params, metadata_of, shortened, to_invoice, to_line, untyped
from quill_invoicing.gateways.stripe_subscriptions import StripeSubscriptions
from quill_invoicing.gateways.stripe_writes import asked, nothing_to_find, refusal, write
from quill_invoicing.ports import RailRefused

API_VERSION: Final = "2026-10-28.endive"
TIMEOUT_SECONDS = 20
NETWORK_RETRIES = 2
PAGE = 100
PAGES_MAX = 50
LINES_BATCH = 100
CUSTOMER_NAME_MAX = 256
NO_CARD = "no_payment_method"
SECONDS_PER_MINUTE = 60


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
        self._subscriptions = StripeSubscriptions(self._client, self._catalog)
        self._test_payment_method = test_payment_method

    async def close(self) -> None:
        await self._http.close_async()  # type: ignore[no-untyped-call]

    async def ensure_customer(self, customer: RailCustomer, *, attempt: Attempt) -> MadeCustomer:
        params: dict[str, Any] = {
            "metadata": {
                "quill_organization_id": customer.organization_id,
                "operation_id": attempt.key[:METADATA_LENGTH_MAX],
            }
        }
        if customer.name:
            params["name"] = shortened(customer.name, CUSTOMER_NAME_MAX)
        if self._test_payment_method is not None:
            params["payment_method"] = self._test_payment_method
            params["invoice_settings"] = {"default_payment_method": self._test_payment_method}
        if customer.email:
            try:
                return MadeCustomer(await self._customer({**params, "email": customer.email}, customer, attempt))
            except stripe.InvalidRequestError as error:
                if error.param != "email":
                    raise refusal(error) from error
                refused = str(refusal(error))
            notice = RailNotice("email_refused", customer.organization_id, f"{customer.email}: {refused}"[:500])
            without = attempt.step("without-email")
            return MadeCustomer(await asked(self._customer(params, customer, without)), (notice,))
        return MadeCustomer(await asked(self._customer(params, customer, attempt)))

    async def ensure_subscription(self, order: SubscriptionOrder, *, attempt: Attempt) -> RailSubscription:
        return await self._subscriptions.ensure(order, attempt)

    async def end_subscription(self, subscription: str, *, attempt: Attempt) -> None:
        await self._subscriptions.end(subscription, attempt)

    async def report_usage(self, report: MeterReport, *, attempt: Attempt) -> None:
        params: Any = {
            "event_name": event_name(report.product_key),
            "payload": {"stripe_customer_id": report.customer, "value": str(report.quantity)},
            "timestamp": int(report.timestamp.timestamp()),
            "identifier": report.identifier,
        }
        try:
            await write(
                attempt,
                send=lambda options: self._client.v1.billing.meter_events.create_async(params=params, options=options),
                find=nothing_to_find,
            )
        except stripe.InvalidRequestError as error:
            if not _is_duplicate_event(error):
                raise refusal(error) from error

    async def usage_seen(self, *, customer: str, product_key: str, period: BillingPeriod) -> int | None:
        start, end = int(period.start.timestamp()), int(period.end.timestamp())
        if start % SECONDS_PER_MINUTE or end % SECONDS_PER_MINUTE:
            return None
        meter = await asked(self._catalog.meter(product_key))
        if meter is None:
            return None
        summaries = await asked(
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
                return to_invoice(invoice)
        return None

    async def hold_draft(self, invoice: str, *, attempt: Attempt) -> RailInvoice:
        async def held() -> Any:
            found = await self._client.v1.invoices.retrieve_async(invoice)
            return found if found.status != "draft" or not found.auto_advance else None

        found = await asked(held())
        if found is None:
            found = await asked(
                write(
                    attempt,
                    send=lambda options: self._client.v1.invoices.update_async(
                        invoice, params={"auto_advance": False}, options=options
                    ),
                    find=held,
                )
            )
        return to_invoice(found)

    async def charge_lines(
        self, invoice: str, lines: Sequence[ChargedLine], *, quill_invoice_id: str, attempt: Attempt
    ) -> RailInvoice:
        async def marked() -> Any:
            found = await self._client.v1.invoices.retrieve_async(invoice)
            return found if metadata_of(found, "quill_invoice_id") == quill_invoice_id else None

        found = await asked(marked()) if attempt.is_repeat else None
        if found is not None:
            return to_invoice(found)
        present = {line.label for line in await self.lines(invoice)} if attempt.is_repeat else set()
        missing = [line for line in lines if line.label not in present]
        for first in range(0, len(missing), LINES_BATCH):
            await self._add_lines(invoice, missing[first : first + LINES_BATCH], attempt)
        metadata = {"quill_invoice_id": quill_invoice_id, "operation_id": attempt.key[:METADATA_LENGTH_MAX]}
        done = await asked(
            write(
                attempt,
                send=lambda options: self._client.v1.invoices.update_async(
                    invoice, params={"metadata": metadata}, options=options
                ),
                find=marked,
            )
        )
        return to_invoice(done)

    async def create_invoice(
        self, *, customer: str, currency: str, quill_invoice_id: str, lines: Sequence[ChargedLine], attempt: Attempt
    ) -> RailInvoice:
        params: Any = {
            "customer": customer,
            "currency": currency,
            "auto_advance": False,
            "collection_method": "charge_automatically",
            "pending_invoice_items_behavior": "exclude",
            "metadata": {"quill_draft_of": quill_invoice_id, "operation_id": attempt.key[:METADATA_LENGTH_MAX]},
        }
        draft = await asked(
            write(
                attempt,
                send=lambda options: self._client.v1.invoices.create_async(params=params, options=options),
                find=lambda: self._own_draft(customer, quill_invoice_id),
            )
        )
        if draft.status != "draft":
            return to_invoice(draft)
        return await self.charge_lines(
            draft.id, lines, quill_invoice_id=quill_invoice_id, attempt=attempt.step("lines")
        )

    async def finalize(self, invoice: str, *, attempt: Attempt) -> RailInvoice:
        async def final() -> Any:
            found = await self._client.v1.invoices.retrieve_async(invoice)
            return found if found.status != "draft" else None

        done = await asked(
            write(
                attempt,
                send=lambda options: self._client.v1.invoices.finalize_invoice_async(
                    invoice, params={"auto_advance": False}, options=options
                ),
                find=final,
            )
        )
        return to_invoice(done)

    async def pay(self, invoice: str, *, attempt: Attempt) -> RailInvoice:
        async def settled() -> Any:
            found = await self._client.v1.invoices.retrieve_async(invoice)
            return found if found.status != "open" else None

        try:
            done = await write(
                attempt,
                send=lambda options: self._client.v1.invoices.pay_async(invoice, options=options),
                find=settled,
            )
        except stripe.CardError as error:
            return await self._after_refused_payment(invoice, error.code or "card_error")
        except stripe.InvalidRequestError as error:
            if error.code == "invoice_already_paid":
                return await self.invoice(invoice)
            if "default_payment_method" in str(error) or "no attached payment source" in str(error):
                return await self._after_refused_payment(invoice, NO_CARD)
            # Too large for one payment, for example: the invoice stays open, and is collected in another way.
            return await self._after_refused_payment(invoice, error.code or "payment_refused")
        return to_invoice(done)

    async def invoice(self, reference: str) -> RailInvoice:
        return to_invoice(await asked(self._client.v1.invoices.retrieve_async(reference)))

    async def lines(self, invoice: str) -> list[RailLine]:
        found: list[RailLine] = []
        after: dict[str, Any] = {}
        for _ in range(PAGES_MAX):
            page = await asked(
                self._client.v1.invoices.line_items.list_async(
                    invoice,
                    params=untyped({"limit": PAGE, **after}),
                )
            )
            found.extend(to_line(line) for line in page.data)
            if not page.has_more:
                return found
            after = {"starting_after": page.data[-1].id}
        raise RailRefused(f"invoice {invoice} has more than {PAGES_MAX * PAGE} lines")

    async def _after_refused_payment(self, invoice: str, code: str) -> RailInvoice:
        """The invoice as it now stands, open, with the reason."""
        current = await self.invoice(invoice)
        return RailInvoice(current.reference, current.status, current.total_minor, current.quill_invoice_id, code)

    async def _customer(self, params: dict[str, Any], customer: RailCustomer, attempt: Attempt) -> str:
        async def found() -> Any:
            """By e-mail first: listing is up to date at once, searching only after a minute."""
            is_own: Any = lambda each: metadata_of(each, "quill_organization_id") == customer.organization_id  # noqa: E731
            if "email" in params:
                page = await self._client.v1.customers.list_async(params={"email": params["email"], "limit": PAGE})
                own = next((each for each in page.data if is_own(each)), None)
                if own is not None:
                    return own
            query = f"metadata['quill_organization_id']:'{customer.organization_id}'"
            page_found = await self._client.v1.customers.search_async(params={"query": query, "limit": 1})
            return page_found.data[0] if page_found.data else None

        made = await write(
            attempt,
            send=lambda options: self._client.v1.customers.create_async(params=untyped(params), options=options),
            find=found,
        )
        return str(made.id)

    async def _add_lines(self, invoice: str, lines: Sequence[ChargedLine], attempt: Attempt) -> None:
        """One batch; its key tells its content, so that another choice of lines is another request."""

        async def added() -> Any:
            present = {line.label for line in await self.lines(invoice)}
            return present if present.issuperset(line.label for line in lines) else None

        params = untyped({"lines": [line_params(line) for line in lines]})
        content = "|".join(f"{line.label}={line.amount_minor}" for line in lines)

        async def send(options: stripe.RequestOptions) -> Any:
            return await self._client.v1.invoices.add_lines_async(invoice, params=params, options=options)

        digest = hashlib.sha256(content.encode()).hexdigest()[:16]
        await asked(write(attempt.step(f"batch-{digest}"), send=send, find=added))

    async def _own_draft(self, customer: str, quill_invoice_id: str) -> Any:
        """Listing is up to date at once; searching is not."""
        async for invoice in self._invoices({"customer": customer}):
            if quill_invoice_id in (metadata_of(invoice, "quill_draft_of"), metadata_of(invoice, "quill_invoice_id")):
                return invoice
        return None

    async def _invoices(self, which: dict[str, Any]) -> AsyncIterator[Any]:
        after: dict[str, Any] = {}
        for _ in range(PAGES_MAX):
            page = await asked(self._client.v1.invoices.list_async(params=untyped({**which, **after, "limit": PAGE})))
            for invoice in page.data:
                yield invoice
            if not page.has_more:
                return
            after = {"starting_after": page.data[-1].id}


def _is_duplicate_event(error: stripe.InvalidRequestError) -> bool:
    """The identifier was taken within a day: the report is there already."""
    return error.code == "duplicate_meter_event" or "already exists with identifier" in str(error)

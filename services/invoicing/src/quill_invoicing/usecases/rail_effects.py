"""Effects at the payment rail other than collection: customers, subscriptions, reports, held drafts (L15).

Each has a performing half, outside any transaction, and a concluding half, inside the one that marks it done.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from quill_pricing.period import BillingPeriod, BillingSchedule, Interval

from quill_invoicing.domain.collection import (
    Attempt,
    MeterReport,
    RailCustomer,
    RailItem,
    SubscriptionOrder,
    is_too_old,
)
from quill_invoicing.domain.operator_alert import RailNotice
from quill_invoicing.ports import InvoicingStore, InvoicingTransaction, PaymentRail, RailAccount, RailRefused
from quill_invoicing.usecases.operator_alerts import notice_documents, raise_noticed
from quill_invoicing.usecases.record_usage import report_running_usage

HOLD_TRIES = 6
"""With the operations' back-off that is more than an hour: a draft that is not there by then will not be made."""
AT_ONCE = timedelta()


class NotReadyYet(Exception):
    """Something that comes first is not done: try again shortly."""


async def ensure_customer(
    organization_id: str, request: Mapping[str, Any], *, rail: PaymentRail, attempt: Attempt
) -> dict[str, Any]:
    """Make the customer at the rail."""
    customer = RailCustomer(organization_id, request["name"], request["email"])
    made = await rail.ensure_customer(customer, attempt=attempt)
    return {"customer": made.reference, "notices": notice_documents(made.notices)}


async def conclude_customer(
    organization_id: str, result: Mapping[str, Any], *, tx: InvoicingTransaction, now: datetime
) -> None:
    """Remember it."""
    await raise_noticed(result, tx=tx, now=now)
    if await tx.rail_account(organization_id) is None:
        await tx.save_rail_account(RailAccount(organization_id, result["customer"]))


async def ensure_subscription(
    organization_id: str,
    request: Mapping[str, Any],
    *,
    store: InvoicingStore,
    rail: PaymentRail,
    attempt: Attempt,
    now: datetime,
) -> dict[str, Any]:
    """Make the subscription at the rail equal to the terms; older terms than those applied are passed over.

    Products that the rail cannot rate are left out: their usage is charged by our own lines. The subscription begins
    with the billing period that we are in now: what ended before is collected from our own lines.

    Raises:
        NotReadyYet: the customer is not there yet.
    """
    account = await _account(organization_id, store=store)
    if account.subscribed_revision is not None and account.subscribed_revision >= request["revision"]:
        return {"subscription": None}
    anchor, interval = datetime.fromisoformat(request["anchor"]), request["interval"]
    period = period_in(request)
    if now >= period.end:
        period = BillingSchedule(anchor, Interval.parse(interval)).period_containing(now)
    order = SubscriptionOrder(
        organization_id=organization_id,
        customer=account.customer,
        existing=account.subscription,
        anchor=anchor,
        interval=interval,
        period=period,
        items=tuple(
            RailItem(item["product_key"], item["price_id"], item["price_document"]) for item in request["items"]
        ),
    )
    made = await rail.ensure_subscription(order, attempt=attempt.step(period.start.date().isoformat()))
    return {
        "subscription": made.reference,
        "billed_from": made.billed_from.isoformat(),
        "revision": request["revision"],
        "period_start": period.start.isoformat(),
        "rated": sorted(made.rated),
        "notices": notice_documents(made.notices),
    }


async def conclude_subscription(
    organization_id: str, result: Mapping[str, Any], *, tx: InvoicingTransaction, now: datetime
) -> None:
    """Remember it, and report the running quantities again: a swapped item begins at zero there (V14)."""
    account = await tx.rail_account(organization_id)
    if account is None or "revision" not in result:
        return
    await raise_noticed(result, tx=tx, now=now)
    is_same = account.subscription == result["subscription"] and account.billed_from is not None
    since = datetime.fromisoformat(result["period_start"])
    known = account.rated_from if is_same else {}
    await tx.save_rail_account(
        replace(
            account,
            subscription=result["subscription"],
            subscribed_revision=result["revision"],
            billed_from=account.billed_from if is_same else datetime.fromisoformat(result["billed_from"]),
            rated_from={product: known.get(product, since) for product in result["rated"]},
        )
    )
    period = await tx.open_period(organization_id)
    if period is None:
        return
    for product_key, sent in (await tx.sent_reports(organization_id, period.start)).items():
        await tx.save_sent_report(organization_id, product_key, period.start, replace(sent, quantity=0))
    await report_running_usage(organization_id, period, tx=tx, now=now, report_every=AT_ONCE)


async def end_subscription(
    organization_id: str, *, store: InvoicingStore, rail: PaymentRail, attempt: Attempt
) -> dict[str, Any]:
    """End the subscription at the rail of a customer who no longer has one."""
    account = await _account(organization_id, store=store)
    if account.subscription is not None:
        await rail.end_subscription(account.subscription, attempt=attempt)
    return {"subscription": account.subscription}


async def conclude_end(organization_id: str, result: Mapping[str, Any], *, tx: InvoicingTransaction) -> None:
    """Forget it, unless another has taken its place."""
    account = await tx.rail_account(organization_id)
    if account is not None and account.subscription == result["subscription"]:
        await tx.save_rail_account(
            replace(account, subscription=None, subscribed_revision=None, billed_from=None, rated_from={})
        )


async def report_usage(
    organization_id: str,
    request: Mapping[str, Any],
    *,
    store: InvoicingStore,
    rail: PaymentRail,
    attempt: Attempt,
    now: datetime,
) -> dict[str, Any]:
    """Report a running quantity. It is a courtesy: the closing sends the final one, or charges our own lines.

    So a report that the rail refuses is given up and noticed. One that is too old, or about a product that the rail
    does not rate, is not sent.
    """
    account = await _account(organization_id, store=store)
    report = MeterReport(
        customer=account.customer,
        product_key=request["product_key"],
        quantity=request["quantity"],
        timestamp=datetime.fromisoformat(request["timestamp"]),
    )
    if report.product_key not in account.rated_from or is_too_old(report.timestamp, now=now):
        return {"identifier": None}
    try:
        await rail.report_usage(report, attempt=attempt)
    except RailRefused as refusal:
        notice = RailNotice("usage_refused", report.product_key, str(refusal))
        return {"identifier": None, "notices": notice_documents([notice])}
    return {"identifier": report.identifier}


async def hold_draft(
    organization_id: str, request: Mapping[str, Any], *, store: InvoicingStore, rail: PaymentRail, attempt: Attempt
) -> dict[str, Any]:
    """Keep a period's draft from becoming final; found by its period, or named by a webhook.

    Raises:
        NotReadyYet: the rail has not made it yet. After an hour we accept that it makes none.
    """
    if "invoice" in request:
        held = await rail.hold_draft(request["invoice"], attempt=attempt)
        return {"invoice": held.reference, "status": held.status}
    account = await _account(organization_id, store=store)
    if account.subscription is None:
        return {"invoice": None}
    found = await rail.find_period_invoice(
        customer=account.customer, subscription=account.subscription, period=period_in(request)
    )
    if found is None:
        if attempt.number < HOLD_TRIES:
            raise NotReadyYet(f"the rail has not made {organization_id}'s draft yet")
        return {"invoice": None}
    held = await rail.hold_draft(found.reference, attempt=attempt)
    return {"invoice": held.reference, "status": held.status}


def period_in(request: Mapping[str, Any]) -> BillingPeriod:
    """The billing period that an effect's request names."""
    return BillingPeriod(
        start=datetime.fromisoformat(request["period_start"]), end=datetime.fromisoformat(request["period_end"])
    )


async def _account(organization_id: str, *, store: InvoicingStore) -> RailAccount:
    async with store.begin() as tx:
        account = await tx.rail_account(organization_id)
    if account is None:
        raise NotReadyYet(f"{organization_id} has no customer at the rail yet")
    return account

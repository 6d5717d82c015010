"""Webhooks: keep first, act later on the object's current state (L19)."""

from datetime import datetime, timedelta

import structlog

from quill_invoicing.domain.operator_alert import RailNotice
from quill_invoicing.domain.webhook import Webhook
from quill_invoicing.ports import InvoicingStore, InvoicingTransaction, PaymentRail, PlannedEffect
from quill_invoicing.usecases.close_period import HOLD_DRAFT
from quill_invoicing.usecases.collect_invoice import refresh_invoice
from quill_invoicing.usecases.operator_alerts import raise_alert

REFRESHING = frozenset(
    {
        "invoice.paid",
        "invoice.payment_failed",
        "invoice.payment_action_required",
        "invoice.finalized",
        "invoice.voided",
        "invoice.marked_uncollectible",
    }
)
RETRY_AFTER = (timedelta(seconds=5), timedelta(minutes=1), timedelta(minutes=10), timedelta(hours=1))
ATTEMPTS_MAX = 12

log = structlog.get_logger(__name__)


async def act_on_webhooks(
    *, store: InvoicingStore, rail: PaymentRail | None, expected_api_version: str, now: datetime, limit: int
) -> int:
    """Act on up to ``limit`` webhooks that are due, one after another; returns how many were looked at.

    Two workers may act on the same one: the actions are repeatable, and what is stored is the rail's current state.
    """
    async with store.begin() as tx:
        due = await tx.due_webhooks(now=now, limit=limit)
    for webhook in due:
        try:
            outcome = await _act(webhook, store=store, rail=rail, expected=expected_api_version, now=now)
        except Exception as error:  # noqa: BLE001 - tried again later; the others must not wait
            await _postpone(webhook, repr(error), store=store, now=now)
            continue
        async with store.begin() as tx:
            await tx.mark_webhook(webhook.event_id, outcome=outcome, processed_at=now)
    return len(due)


async def _act(
    webhook: Webhook, *, store: InvoicingStore, rail: PaymentRail | None, expected: str, now: datetime
) -> str:
    if webhook.api_version is not None and webhook.api_version != expected:
        log.warning("webhook.api_version", event_id=webhook.event_id, found=webhook.api_version, expected=expected)
        # Its body has another form. We act on the object's present state, fetched in our version, so that is no matter.
        detail = (
            f"webhooks come in version {webhook.api_version}, we pin {expected}: set the endpoint's version to ours"
        )
        async with store.begin() as tx:
            await raise_alert(RailNotice("other_api_version", webhook.api_version, detail), tx=tx, now=now)
    if webhook.object_id is None:
        return "recorded"
    if webhook.type == "invoice.created":
        async with store.begin() as tx:
            return await _plan_hold(webhook.object_id, tx=tx, now=now)
    if webhook.type in REFRESHING and rail is not None:
        return await refresh_invoice(webhook.object_id, store=store, rail=rail, now=now)
    return "recorded"


async def _plan_hold(invoice: str, *, tx: InvoicingTransaction, now: datetime) -> str:
    """The final report itself goes out when the period is closed; until then the draft must wait for it."""
    await tx.plan(
        PlannedEffect(
            operation_id=f"{HOLD_DRAFT}:{invoice}", kind=HOLD_DRAFT, subject=invoice, request={"invoice": invoice}
        ),
        now=now,
    )
    return "hold_planned"


async def _postpone(webhook: Webhook, problem: str, *, store: InvoicingStore, now: datetime) -> None:
    log.warning("webhook.retry", event_id=webhook.event_id, type=webhook.type, problem=problem)
    async with store.begin() as tx:
        if webhook.attempts + 1 >= ATTEMPTS_MAX:
            await tx.mark_webhook(webhook.event_id, outcome=f"gave_up: {problem}"[:500], processed_at=now)
            await raise_alert(RailNotice("webhook_given_up", webhook.event_id, problem[:500]), tx=tx, now=now)
            return
        wait = RETRY_AFTER[min(webhook.attempts, len(RETRY_AFTER) - 1)]
        await tx.postpone_webhook(webhook.event_id, problem=problem[:500], due_at=now + wait)

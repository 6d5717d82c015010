"""A customer snapshot arrives: keep what changes money, and make the payment rail agree."""

from datetime import datetime

from quill_invoicing.domain.period_close import period_from
from quill_invoicing.domain.terms import CustomerTerms, TermsHistory
from quill_invoicing.ports import InvoicingTransaction, PlannedEffect

ENSURE_CUSTOMER = "ensure_customer"
ENSURE_SUBSCRIPTION = "ensure_subscription"


async def keep_terms(terms: CustomerTerms, *, tx: InvoicingTransaction, now: datetime) -> None:
    """Keep a version of a customer's terms unless a newer one is known; a repeat changes nothing."""
    organization = terms.organization_id
    if terms.revision <= await tx.customer_revision(organization):
        return
    history = await tx.terms_history(organization)
    newest = history.versions[-1] if history.versions else None
    is_change = newest is None or not terms.bills_like(newest)
    if is_change:
        await tx.add_terms(terms)
    open_period = await tx.open_period(organization) or terms.period
    if newest is not None and newest.schedule_change.schedule != terms.schedule_change.schedule:
        open_period = period_from(open_period.start, TermsHistory.of((*history.versions, terms)).schedules)
    await tx.save_customer(organization, revision=terms.revision, open_period=open_period)
    if is_change and terms.billed_items():
        await _plan_rail_objects(terms, tx=tx, now=now)


async def _plan_rail_objects(terms: CustomerTerms, *, tx: InvoicingTransaction, now: datetime) -> None:
    """The customer once; the subscription whenever what it bills changed (L15)."""
    organization = terms.organization_id
    await tx.plan(
        PlannedEffect(
            operation_id=f"{ENSURE_CUSTOMER}:{organization}",
            kind=ENSURE_CUSTOMER,
            subject=organization,
            request={"name": terms.organization_name, "email": terms.email},
        ),
        now=now,
    )
    if terms.collection_mode != "stripe-rates" or not terms.metered_items():
        return
    await tx.plan(
        PlannedEffect(
            operation_id=f"{ENSURE_SUBSCRIPTION}:{organization}:{terms.revision}",
            kind=ENSURE_SUBSCRIPTION,
            subject=organization,
            request={
                "revision": terms.revision,
                "anchor": terms.anchor.isoformat(),
                "interval": terms.interval,
                "period_start": terms.period.start.isoformat(),
                "period_end": terms.period.end.isoformat(),
                "items": [
                    {
                        "product_key": item.product_key,
                        "price_id": item.price_id,
                        "price_document": dict(item.price_document),
                    }
                    for item in terms.metered_items()
                ],
            },
        ),
        now=now,
    )

"""Domain values as JSON columns, and back."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from quill_pricing.period import BillingPeriod

from quill_invoicing.domain.closing import BilledProduct
from quill_invoicing.domain.completeness_gate import SourceStanding, Waiver
from quill_invoicing.domain.reconciliation import Difference
from quill_invoicing.domain.terms import CustomerTerms, ItemChange, TermsItem


def terms_document(terms: CustomerTerms) -> dict[str, Any]:
    """Everything but the key columns."""
    return {
        "organization_name": terms.organization_name,
        "email": terms.email,
        "customer_id": terms.customer_id,
        "license_id": terms.license_id,
        "has_active_subscription": terms.has_active_subscription,
        "subscription_id": terms.subscription_id,
        "collection_mode": terms.collection_mode,
        "anchor": terms.anchor.isoformat(),
        "interval": terms.interval,
        "period": [terms.period.start.isoformat(), terms.period.end.isoformat()],
        "free_trial_until": _text(terms.free_trial_until),
        "items": [_item_document(item) for item in terms.items],
    }


def terms_from_document(
    organization_id: str, revision: int, effective_at: datetime, document: Mapping[str, Any]
) -> CustomerTerms:
    """The terms that were written."""
    start, end = document["period"]
    return CustomerTerms(
        organization_id=organization_id,
        organization_name=document["organization_name"],
        email=document["email"],
        customer_id=document["customer_id"],
        license_id=document["license_id"],
        revision=revision,
        effective_at=effective_at,
        has_active_subscription=document["has_active_subscription"],
        subscription_id=document["subscription_id"],
        collection_mode=document["collection_mode"],
        anchor=datetime.fromisoformat(document["anchor"]),
        interval=document["interval"],
        period=BillingPeriod(datetime.fromisoformat(start), datetime.fromisoformat(end)),
        free_trial_until=_instant(document["free_trial_until"]),
        items=tuple(_item_from_document(item) for item in document["items"]),
    )


def _item_document(item: TermsItem) -> dict[str, Any]:
    return {
        **asdict(item),
        "price_document": dict(item.price_document),
        "changes": [{**asdict(change), "at": change.at.isoformat()} for change in item.changes],
    }


def _item_from_document(document: Mapping[str, Any]) -> TermsItem:
    changes = (ItemChange(**{**change, "at": datetime.fromisoformat(change["at"])}) for change in document["changes"])
    return TermsItem(**{**document, "changes": tuple(changes)})


def billed_documents(billed: tuple[BilledProduct, ...]) -> list[dict[str, Any]]:
    """What a closing billed, as JSON."""
    return [{**asdict(each), "price_document": dict(each.price_document)} for each in billed]


def billed_from_documents(documents: list[dict[str, Any]]) -> tuple[BilledProduct, ...]:
    """What a closing billed."""
    return tuple(BilledProduct(**document) for document in documents)


def standing_document(standing: SourceStanding) -> dict[str, Any]:
    """Everything but the key and the revision."""
    return {
        "is_expected": standing.is_expected,
        "state": standing.state,
        "complete_through": _text(standing.complete_through),
        "heard_at": _text(standing.heard_at),
        "waivers": waiver_documents(standing.waivers),
    }


def standing_from_document(source: str, revision: int, document: Mapping[str, Any]) -> SourceStanding:
    """The source that was written."""
    return SourceStanding(
        source=source,
        revision=revision,
        is_expected=document["is_expected"],
        state=document["state"],
        complete_through=_instant(document["complete_through"]),
        heard_at=_instant(document["heard_at"]),
        waivers=waivers_from_documents(document["waivers"]),
    )


def waiver_documents(waivers: tuple[Waiver, ...]) -> list[dict[str, Any]]:
    """Waivers as JSON."""
    return [
        {**asdict(waiver), "through": waiver.through.isoformat(), "at": waiver.at.isoformat()} for waiver in waivers
    ]


def waivers_from_documents(documents: list[dict[str, Any]]) -> tuple[Waiver, ...]:
    """The waivers that were written."""
    return tuple(
        Waiver(
            **{
                **document,
                "through": datetime.fromisoformat(document["through"]),
                "at": datetime.fromisoformat(document["at"]),
            }
        )
        for document in documents
    )


def _text(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def difference_documents(differences: tuple[Difference, ...]) -> list[dict[str, Any]]:
    """Differences as JSON."""
    return [asdict(each) for each in differences]


def differences_from_documents(documents: list[dict[str, Any]]) -> tuple[Difference, ...]:
    """The differences that were found."""
    return tuple(Difference(**document) for document in documents)

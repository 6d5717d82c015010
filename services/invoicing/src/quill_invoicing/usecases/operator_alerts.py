"""Raise what an operator must know, and have a named person resolve it (L20)."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

import structlog

from quill_invoicing.domain.operator_alert import NoSuchAlert, OperatorAlert, RailNotice
from quill_invoicing.ports import InvoicingTransaction, PersonsChange

log = structlog.get_logger(__name__)


def notice_documents(notices: Iterable[RailNotice]) -> list[dict[str, Any]]:
    """Notices in an operation's result."""
    return [asdict(notice) for notice in notices]


async def raise_noticed(result: Mapping[str, Any], *, tx: InvoicingTransaction, now: datetime) -> None:
    """Raise what a call at the rail noticed; equal notices are one alert."""
    # Always in the same order: two transactions that lock the same alerts must not wait for each other.
    for document in sorted(result.get("notices", ()), key=lambda each: (each["kind"], each["subject"])):
        await raise_alert(RailNotice(**document), tx=tx, now=now)


async def raise_alert(notice: RailNotice, *, tx: InvoicingTransaction, now: datetime) -> None:
    """Raise one alert; it is logged when it was not open before."""
    if await tx.raise_alert(notice, now=now):
        log.error("rail.alert", kind=notice.kind, subject=notice.subject, detail=notice.detail)


async def resolve_alert(
    alert_id: str, *, actor: str, reason: str, tx: InvoicingTransaction, now: datetime
) -> OperatorAlert:
    """Close an alert; it opens again when it is noticed again. Closing it twice changes nothing.

    Raises:
        NoSuchAlert: with the id.
    """
    found = await tx.alert(alert_id, locked=True)
    if found is None:
        raise NoSuchAlert(f"no alert has the id {alert_id}")
    if found.resolved_at is not None:
        return found
    resolved = replace(found, resolved_at=now, resolved_by=actor, reason=reason)
    await tx.save_alert(resolved)
    await tx.record_change(
        PersonsChange(
            stream=f"alert:{alert_id}",
            type="invoicing.alert-resolved",
            actor=actor,
            occurred_at=now,
            before={"count": found.count, "last_seen_at": found.last_seen_at.isoformat()},
            after={"reason": reason},
        )
    )
    return resolved

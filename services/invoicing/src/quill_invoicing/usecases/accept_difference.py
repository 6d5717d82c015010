"""A named person accepts that an invoice differs from the rail's (L16, L20)."""

from dataclasses import replace
from datetime import datetime

from quill_invoicing.domain.reconciliation import NothingToAccept, Reconciliation
from quill_invoicing.ports import InvoicingTransaction, PersonsChange


class UnknownReconciliation(LookupError):
    """No invoice was compared under this id."""


async def accept_difference(
    reconciliation_id: str, *, actor: str, reason: str, tx: InvoicingTransaction, now: datetime
) -> Reconciliation:
    """Accept all differences of one comparison; the same acceptance again is a repeat.

    Raises:
        UnknownReconciliation: no such comparison.
        NothingToAccept: there is no difference, or somebody accepted it with other words.
    """
    found = await tx.reconciliation(reconciliation_id, locked=True)
    if found is None:
        raise UnknownReconciliation(reconciliation_id)
    if found.is_equal:
        raise NothingToAccept("the invoices are equal; there is nothing to accept")
    if found.accepted_at is not None:
        if (found.accepted_by, found.accepted_reason) == (actor, reason):
            return found
        raise NothingToAccept(f"accepted by {found.accepted_by} already: {found.accepted_reason}")
    accepted = replace(found, accepted_by=actor, accepted_reason=reason, accepted_at=now)
    await tx.save_reconciliation(accepted)
    await tx.record_change(
        PersonsChange(
            stream=f"reconciliation:{reconciliation_id}",
            type="difference_accepted",
            actor=actor,
            occurred_at=now,
            before={"accepted_by": None, "differences": len(found.differences)},
            after={"accepted_by": actor, "reason": reason},
        )
    )
    return accepted

"""Reports of a license that arrived before its organization was known (L4, L17, L18)."""

from collections.abc import Sequence

from quill_usage_ingest.ports import ArrivedReport
from quill_usage_ingest.usecases.accounts import Accounts, find_account
from quill_usage_ingest.usecases.record_reports import on_account


async def admit_early_reports(
    arrived: Sequence[tuple[ArrivedReport, str | None]], *, tx: Accounts
) -> list[ArrivedReport | None]:
    """Each report on the account that its license speaks for; None where the license may not speak.

    A report without a license comes from a trusted intake. One of an organization that is still unknown stays as it is:
    it cannot enter, and waits on.
    """
    return [await _admitted(report, license_id, tx) for report, license_id in arrived]


async def _admitted(arrived: ArrivedReport, license_id: str | None, tx: Accounts) -> ArrivedReport | None:
    if license_id is None:
        return arrived
    named = arrived.report.organization_id
    account = await find_account(license_id=license_id, organization_id=named, tx=tx)
    if account is None:
        return arrived if await tx.organization(named) is None else None
    return arrived if account.organization_id == named else on_account(arrived, account.organization_id)

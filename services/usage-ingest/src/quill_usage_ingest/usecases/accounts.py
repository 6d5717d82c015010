"""On whose account a license is billed (O3, L17, L18)."""

from typing import Protocol

from quill_usage_ingest.domain.organization import Organization


class Accounts(Protocol):
    """What finding an account needs of a store."""

    async def organization(self, organization_id: str) -> Organization | None: ...

    async def accounts_of_further_license(self, license_id: str) -> list[str]:
        """Organizations that name this license as a further one of theirs; more than one is a contradiction."""
        ...


async def find_account(*, license_id: str, organization_id: str, tx: Accounts) -> Organization | None:
    """The organization on whose account this license acts when its token names ``organization_id``.

    That is the organization named, if the license is its own. A further license of exactly one account acts for that
    account, and names it or an organization that is nobody's account. Everybody else acts for nobody.
    """
    named = await tx.organization(organization_id)
    if named is not None and named.license_id == license_id:
        return named
    accounts = await tx.accounts_of_further_license(license_id)
    if len(accounts) != 1:
        return None
    if organization_id == accounts[0]:
        return named
    return None if named is not None else await tx.organization(accounts[0])

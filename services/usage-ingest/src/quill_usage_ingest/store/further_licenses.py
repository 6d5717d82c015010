"""Which licenses are billed on whose account beside the account's own (O3)."""

from collections.abc import Collection

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from quill_usage_ingest.store.tables import organizations
from quill_usage_ingest.store.team_tables import further_licenses


class PostgresFurtherLicenses:
    """The part of `UsageTransaction` that knows them."""

    _connection: AsyncConnection

    async def has_organization(self, license_id: str) -> bool:
        found = select(organizations.c.organization_id).where(organizations.c.license_id == license_id).limit(1)
        return await self._connection.scalar(found) is not None

    async def accounts_of_further_license(self, license_id: str) -> list[str]:
        rows = await self._connection.execute(
            select(further_licenses.c.organization_id)
            .where(further_licenses.c.license_id == license_id)
            .order_by(further_licenses.c.organization_id)
        )
        return [row.organization_id for row in rows]

    async def save_further_licenses(self, organization_id: str, license_ids: Collection[str]) -> None:
        await self._connection.execute(
            delete(further_licenses).where(
                further_licenses.c.organization_id == organization_id,
                further_licenses.c.license_id.not_in(license_ids),
            )
        )
        if license_ids:
            await self._connection.execute(
                insert(further_licenses)
                .values([{"license_id": one, "organization_id": organization_id} for one in sorted(license_ids)])
                .on_conflict_do_nothing()
            )

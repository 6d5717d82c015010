"""Teams in Postgres: what each has used, and which project token belongs to which team of which organization."""

from collections.abc import Collection, Mapping, Sequence

import msgspec
from sqlalchemy import and_, bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from quill_quota_limiter.domain.project_marks import ProjectTokens
from quill_quota_limiter.domain.team_usage import TeamQuantities, TeamUsage
from quill_quota_limiter.store import tables


class TeamRows:
    """The part of `quill_quota_limiter.ports.LimitsTransaction` that speaks of teams and tokens."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def keep_team_usage(self, usages: Collection[TeamUsage]) -> None:
        if not usages:
            return
        table = tables.team_usage
        statement = insert(table)
        await self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=["organization_id", "team_id"],
                set_={"revision": statement.excluded.revision, "periods": statement.excluded.periods},
                where=table.c.revision < statement.excluded.revision,
            ),
            [
                {
                    "organization_id": usage.organization_id,
                    "team_id": usage.team_id,
                    "revision": usage.revision,
                    "periods": msgspec.to_builtins(usage.periods),
                }
                for usage in sorted(usages, key=lambda usage: (usage.organization_id, usage.team_id))
            ],
        )

    async def team_usages(self, organization_id: str) -> dict[str, TeamUsage]:
        table = tables.team_usage
        rows = await self._connection.execute(select(table).where(table.c.organization_id == organization_id))
        return {
            row.team_id: TeamUsage(
                organization_id, row.team_id, row.revision, msgspec.convert(row.periods, tuple[TeamQuantities, ...])
            )
            for row in rows
        }

    async def tokens(self, organization_ids: Collection[str]) -> dict[str, ProjectTokens]:
        table = tables.project_tokens
        rows = await self._connection.execute(
            select(table).where(table.c.organization_id == func.any(list(organization_ids))).order_by(table.c.api_token)
        )
        active: dict[str, list[str]] = {name: [] for name in organization_ids}
        retired: dict[str, list[str]] = {name: [] for name in organization_ids}
        teams: dict[str, dict[str, str]] = {name: {} for name in organization_ids}
        for row in rows:
            (active if row.is_active else retired)[row.organization_id].append(row.api_token)
            if row.is_active and row.team_id is not None:
                teams[row.organization_id][row.api_token] = row.team_id
        return {
            name: ProjectTokens(tuple(active[name]), tuple(retired[name]), teams[name]) for name in organization_ids
        }

    async def token_owners(self, tokens: Collection[str]) -> dict[str, str]:
        table = tables.project_tokens
        rows = await self._connection.execute(
            select(table.c.api_token, table.c.organization_id).where(table.c.api_token == func.any(list(tokens)))
        )
        return {row.api_token: row.organization_id for row in rows}

    async def active_token_owners(self, tokens: Collection[str]) -> dict[str, str]:
        table = tables.project_tokens
        rows = await self._connection.execute(
            select(table).where(table.c.api_token == func.any(list(tokens)), table.c.is_active)
        )
        return {row.api_token: row.organization_id for row in rows}

    async def claim_tokens(self, claimed: Mapping[str, tuple[str, str | None]]) -> None:
        """These tokens are this organization's and team's now, whoever had them."""
        if not claimed:
            return
        statement = insert(tables.project_tokens)
        await self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=["api_token"],
                set_={
                    "organization_id": statement.excluded.organization_id,
                    "team_id": statement.excluded.team_id,
                    "is_active": True,
                },
            ),
            [
                {"api_token": token, "organization_id": name, "team_id": team, "is_active": True}
                for token, (name, team) in sorted(claimed.items())
            ],
        )

    async def move_tokens(self, moved: Sequence[tuple[str, str, str | None]]) -> None:
        """Another team of the same organization has the token now, unless another organization named it since."""
        if not moved:
            return
        table = tables.project_tokens
        await self._connection.execute(
            update(table)
            .where(
                and_(
                    table.c.api_token == bindparam("of_token"), table.c.organization_id == bindparam("of_organization")
                )
            )
            .values(team_id=bindparam("to_team")),
            [
                {"of_token": token, "of_organization": name, "to_team": team}
                for token, name, team in sorted(moved, key=lambda each: each[0])
            ],
        )

    async def retire_tokens(self, retired: Sequence[tuple[str, str]]) -> None:
        """These organizations do not name these tokens any more."""
        if not retired:
            return
        table = tables.project_tokens
        await self._connection.execute(
            update(table)
            .where(
                and_(
                    table.c.api_token == bindparam("of_token"),
                    # Another organization may have named the token since; then it is not ours to retire.
                    table.c.organization_id == bindparam("of_organization"),
                )
            )
            .values(is_active=False),
            [{"of_token": token, "of_organization": name} for token, name in sorted(retired)],
        )

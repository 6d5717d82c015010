"""A long past for the ingest service: copies of what it wrote itself, under other organizations and on other days.

Copied inside Postgres, so that twenty million cells take a minute and have exactly the form of real ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

LOAD_SECONDS: Final = 600
ORGANIZATIONS_AT_ONCE: Final = 2_000
_COLUMNS: Final = """
select column_name from information_schema.columns
where table_schema = 'public' and table_name = $1 and is_generated = 'NEVER' order by ordinal_position
"""
_NAME: Final = "'history-' || lpad(cast(g.number as text), 12, '0')"


@dataclass(frozen=True, slots=True)
class History:
    """Grows the past of invented organizations.

    Attributes:
        database: asyncpg connection to the service's database.
        model: an organization whose window at ``model_day`` is copied.
        days: how many days, up to the day before ``model_day``, each copy has.
    """

    database: Any
    model: str
    model_day: datetime
    days: int

    async def grow(self, first: int, after_last: int) -> None:
        """Add organizations number ``first`` up to ``after_last``."""
        for start in range(first, after_last, ORGANIZATIONS_AT_ONCE):
            end = min(after_last, start + ORGANIZATIONS_AT_ONCE)
            async with self.database.transaction():
                await self._copy("organizations", start, end, {"organization_id": _NAME}, by_day=False)
                await self._copy("period_usage", start, end, {"organization_id": _NAME}, by_day=False)
                shifted = {
                    "organization_id": _NAME,
                    "window_start": "m.window_start - d.ago * interval '1 day'",
                    "window_end": "m.window_end - d.ago * interval '1 day'",
                }
                await self._copy("usage_windows", start, end, shifted, by_day=True)
                claim = {"report_id": f"{_NAME} || ':' || d.ago", "as_of": "m.as_of - d.ago * interval '1 day'"}
                await self._copy("usage_reports", start, end, {**shifted, **claim}, by_day=True, made_anew=("id",))

    async def settle(self) -> None:
        """As after a night's rest: statistics known, nothing waiting to be written."""
        for statement in ("vacuum analyze", "checkpoint"):
            await self.database.execute(statement, timeout=LOAD_SECONDS)

    async def _copy(
        self,
        table: str,
        first: int,
        after_last: int,
        changed: Mapping[str, str],
        *,
        by_day: bool,
        made_anew: Sequence[str] = (),
    ) -> None:
        names = [row["column_name"] for row in await self.database.fetch(_COLUMNS, table)]
        names = [name for name in names if name not in made_anew]
        values = ", ".join(changed.get(name, f'm."{name}"') for name in names)
        columns = ", ".join(f'"{name}"' for name in names)
        insert = (
            f"insert into {table} ({columns}) select {values} from {table} as m"
            " cross join generate_series($1::int, $2::int - 1) as g(number)"
        )
        arguments: list[object] = [first, after_last, self.model]
        if by_day:
            insert += " cross join generate_series(1, $4::int) as d(ago)"
            arguments += [self.days, self.model_day]
        insert += " where m.organization_id = $3" + (" and m.window_start = $5" if by_day else "")
        await self.database.execute(insert, *arguments, timeout=LOAD_SECONDS)

"""The statements of the hot path: one per table and batch, rows sent as one array a column (performance 3)."""

# ruff: noqa: S608 - what is put together here are names of columns, written in this module

from types import MappingProxyType
from typing import Final

from sqlalchemy import BigInteger, String, TextClause, text
from sqlalchemy.dialects.postgresql import JSONB

_TYPES: Final = MappingProxyType(
    {
        "organization_id": "text",
        "revision": "bigint",
        "license_id": "text",
        "tokens_revision": "bigint",
        "period_start": "timestamptz",
        "period_end": "timestamptz",
        "evaluated_at": "timestamptz",
        "next_evaluation_at": "timestamptz",
        "meters": "jsonb",
        "thresholds": "jsonb",
        "scopes": "jsonb",
        "spend_thresholds": "jsonb",
    }
)
LIMITS_COLUMNS: Final = tuple(_TYPES)


_DECIDED: Final = LIMITS_COLUMNS[1:]


def _array(name: str, kind: str) -> str:
    """Documents travel as texts, else the driver would want to encode them itself."""
    return f"cast(cast(:{name} as text[]) as jsonb[])" if kind == "jsonb" else f"cast(:{name} as {kind}[])"


SAVE_LIMITS: Final[TextClause] = text(
    f"""
    update limit_states as s
    set ({", ".join(_DECIDED)}) = ({", ".join(f"k.{name}" for name in _DECIDED)})
    from unnest({", ".join(_array(name, kind) for name, kind in _TYPES.items())}) as k({", ".join(LIMITS_COLUMNS)})
    where s.organization_id = k.organization_id
    """
)
KEEP_USAGE: Final = text(
    """
    with k as (
        select * from unnest(cast(:organization_ids as text[]), cast(:revisions as bigint[]), cast(:periods as text[]))
             as k(organization_id, revision, periods)
    ), kept as (
        insert into period_usage as held (organization_id, revision, periods)
        select k.organization_id, k.revision, cast(k.periods as jsonb) from k
        on conflict (organization_id) do update set revision = excluded.revision, periods = excluded.periods
        where held.revision < excluded.revision
    )
    select held.organization_id, held.revision, held.periods
    from period_usage as held join k on k.organization_id = held.organization_id and held.revision > k.revision
    """
).columns(organization_id=String, revision=BigInteger, periods=JSONB)
"""Keeps what is newer and returns what was newer already: the rows as they stood before."""

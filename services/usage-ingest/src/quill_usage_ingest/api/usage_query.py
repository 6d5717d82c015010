"""``/api/v2/usage``: PostHog's usage query (wire contract 1.3), GET and, when its address grew too long, POST."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Request
from quill_runtime.auth import Keyring
from quill_runtime.clock import Clock
from quill_runtime.database import Database, sqlstate
from quill_runtime.problems import Problem
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from quill_usage_ingest.api.archived import refusing_archived
from quill_usage_ingest.api.callers import Authorization, arriving_license, not_yours
from quill_usage_ingest.domain.organization import Organization
from quill_usage_ingest.domain.usage_series import Amount, series
from quill_usage_ingest.domain.usage_types import COUNTER_BY_USAGE_TYPE
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.teams import PostgresTeams
from quill_usage_ingest.usecases.accounts import find_account
from quill_usage_ingest.usecases.read_series import (
    TEAMS_LISTED_MAX,
    BreakdownTooLarge,
    amount_of,
    read_source_amounts,
    read_team_amounts,
)
from quill_usage_ingest.wire.usage_query import (
    InvalidUsageQuery,
    UsageQuery,
    UsageResult,
    from_wire_usage_query,
    to_wire_usage_answer,
)

QUERY_TIMEOUT_MS: Final = 10_000
NUMBERS_MAX: Final = 2_000_000
"""Numbers in one answer: results times intervals."""
_CANCELED: Final = "57014"
_Key = tuple[str | None, str | None]


def router(
    *,
    database: Database,
    keyring: Keyring,
    clock: Clock,
    slots: CounterSlots,
    query_timeout_ms: int = QUERY_TIMEOUT_MS,
) -> APIRouter:
    """``/api/v2/usage``."""
    routes = APIRouter(tags=["usage"])

    async def answer(read: Callable[[], Mapping[str, Any]], authorization: str | None) -> dict[str, Any]:
        now = clock.now()
        caller = await arriving_license(authorization, keyring, now)
        named: str = caller.claims["organization_id"]
        try:
            async with refusing_archived(), database.begin() as transaction:
                await transaction.connection.execute(
                    text("select set_config('statement_timeout', :timeout, true)"), {"timeout": str(query_timeout_ms)}
                )
                usage = PostgresUsage(transaction, slots)
                organization = await find_account(license_id=caller.key_id, organization_id=named, tx=usage)
                if organization is None:
                    raise not_yours()
                query = from_wire_usage_query(read())
                if query.organization_id not in (None, named):
                    raise not_yours()
                teams = PostgresTeams(transaction, slots)
                results = await _results(query, organization, usage=usage, teams=teams, now=now)
                span = query.span
                options = await teams.team_ids(
                    organization.organization_id, span.start, span.end, limit=TEAMS_LISTED_MAX
                )
        except InvalidUsageQuery as error:
            raise Problem(400, error.code, str(error), attr=error.attribute) from error
        except BreakdownTooLarge as error:
            raise Problem(400, "usage_breakdown_too_large", str(error), attr="breakdowns") from error
        except (DBAPIError, TimeoutError) as error:
            if isinstance(error, DBAPIError) and sqlstate(error) != _CANCELED:
                raise
            detail = "the query took too long; ask for fewer projects, types or days"
            raise Problem(504, "usage_query_timeout", detail) from error
        return to_wire_usage_answer(
            query, customer_id=organization.customer.customer_id, results=results, team_ids=options
        )

    @routes.get("/api/v2/usage")
    async def query_usage(request: Request, authorization: Authorization = None) -> dict[str, Any]:
        """Usage over time; lists are JSON texts."""
        return await answer(lambda: request.query_params, authorization)

    @routes.post("/api/v2/usage")
    async def query_usage_by_body(request: Request, authorization: Authorization = None) -> dict[str, Any]:
        """The same with its parameters in a JSON body, for queries too long for an address."""
        body = await request.body()
        return await answer(lambda: _parameters(body), authorization)

    return routes


def _parameters(body: bytes) -> Mapping[str, Any]:
    try:
        given = msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise Problem(400, "not_json", "the body is not JSON") from error
    if not isinstance(given, dict):
        raise Problem(400, "invalid_input", "the body must be a JSON object")
    return given


async def _results(
    query: UsageQuery, organization: Organization, *, usage: PostgresUsage, teams: PostgresTeams, now: datetime
) -> list[UsageResult]:
    """Every line of the answer, before paging."""
    amounts: dict[_Key, list[Amount]] = {key: [] for key in _keys_always_shown(query)}
    for counter, team_id, amount in await _amounts(query, organization.organization_id, usage=usage, teams=teams):
        for usage_type in query.usage_types:
            if COUNTER_BY_USAGE_TYPE[usage_type] == counter:
                key = _key(query, usage_type, team_id)
                amounts.setdefault(key, []).append(amount)
    if len(amounts) * len(query.span.starts()) > NUMBERS_MAX:
        raise BreakdownTooLarge("the answer would be too large; ask for fewer projects, types or days")
    position = {name: index for index, name in enumerate(query.usage_types)}
    return [
        UsageResult(
            (0 if usage_type is None else position[usage_type], team_id or ""),
            usage_type,
            team_id,
            series(query.span, held, now=now),
        )
        for (usage_type, team_id), held in amounts.items()
    ]


async def _amounts(
    query: UsageQuery, organization_id: str, *, usage: PostgresUsage, teams: PostgresTeams
) -> list[tuple[str, str | None, Amount]]:
    """Counter, team and amount; the team is None where the organization's own cells answer."""
    if query.needs_teams:
        rows = await read_team_amounts(
            organization_id, query.span, counters=query.counters, team_ids=query.team_ids, tx=teams
        )
        return [(row.counter, row.team_id, amount_of(row, query.span)) for row in rows]
    cells = await read_source_amounts(organization_id, query.span, counters=query.counters, tx=usage)
    return [(counter, None, amount) for _, counter, amount in cells]


def _keys_always_shown(query: UsageQuery) -> list[_Key]:
    """Lines that are there even when nothing was used; of projects only those that used something are shown."""
    if not query.breakdowns:
        return [(None, None)]
    return [] if "team" in query.breakdowns else [(usage_type, None) for usage_type in query.usage_types]


def _key(query: UsageQuery, usage_type: str, team_id: str | None) -> _Key:
    if not query.breakdowns:
        return (None, None)
    return (usage_type, team_id if "team" in query.breakdowns else None)

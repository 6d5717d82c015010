"""``/v1/report-runs``: which runs of chunk files came, and how far each was copied."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from quill_runtime.auth import ApiTokens
from quill_runtime.database import Database

from quill_usage_ingest.api.callers import Authorization
from quill_usage_ingest.store.report_runs import PostgresRuns

PAGE_MAX: Final = 500


def router(*, database: Database, tokens: ApiTokens) -> APIRouter:
    """Report runs, for operators."""
    routes = APIRouter(prefix="/v1/report-runs", tags=["report runs"])

    @routes.get("")
    async def list_runs(
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 50, authorization: Authorization = None
    ) -> dict[str, Any]:
        """The newest runs; a failed one names its reason, and its pointer waits among the dead letters."""
        tokens.require(authorization, "operator")
        async with database.begin() as transaction:
            return {"results": await PostgresRuns(transaction).newest(limit=limit)}

    return routes

"""Effects outside over HTTP, for operators: what waits, what was refused for good, and another try (L15)."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query

from quill_runtime import operations
from quill_runtime.auth import ApiTokens
from quill_runtime.clock import Clock
from quill_runtime.database import Database
from quill_runtime.operations import NoSuchOperation, NotFailed, Operation
from quill_runtime.problems import Problem

OPERATOR_SCOPE = "operator"


def router(*, database: Database, tokens: ApiTokens, clock: Clock) -> APIRouter:
    """``/v1/operations``; needs a token with the scope ``operator``. Requests are not shown: they may hold secrets."""
    routes = APIRouter(prefix="/v1/operations", tags=["operations"])

    @routes.get("")
    async def list_operations(
        authorization: Annotated[str | None, Header()] = None,
        status: Literal["planned", "sent", "done", "failed"] = "failed",
        subject: str | None = None,
        limit: Annotated[int, Query(ge=1, le=operations.PAGE_MAX)] = 100,
    ) -> dict[str, Any]:
        tokens.require(authorization, OPERATOR_SCOPE)
        async with database.begin() as transaction:
            found = await operations.standing(transaction, status=status, subject=subject, limit=limit)
        return {"results": [_summary(operation) for operation in found]}

    @routes.post("/{operation_id:path}/retry")
    async def retry(operation_id: str, authorization: Annotated[str | None, Header()] = None) -> dict[str, Any]:
        tokens.require(authorization, OPERATOR_SCOPE)
        try:
            async with database.begin() as transaction:
                operation = await operations.retry(transaction, operation_id, now=clock.now())
        except NoSuchOperation as error:
            raise Problem(404, "not_found", str(error), attr="operation_id") from error
        except NotFailed as error:
            raise Problem(409, "not_failed", str(error), attr="operation_id") from error
        return _summary(operation)

    return routes


def _summary(operation: Operation) -> dict[str, Any]:
    return {
        "operation_id": operation.operation_id,
        "kind": operation.kind,
        "subject": operation.subject,
        "status": operation.status,
        "attempts": operation.attempts,
        "error": operation.error,
    }

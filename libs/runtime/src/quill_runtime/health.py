"""Live: the process runs. Ready: its stores answer and its tables are read. With lag and outbox age in numbers."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from quill_runtime import outbox, tallies
from quill_runtime.consumer import Consumer
from quill_runtime.database import Database

CHECK_TIMEOUT_SECONDS = 2.0

Check = Callable[[], Awaitable[None]]
"""Returns when all is well and raises otherwise."""


@dataclass(slots=True)
class Health:
    """What to look at before saying "ready"."""

    checks: dict[str, Check] = field(default_factory=dict)
    consumers: Sequence[Consumer[Any]] = ()
    database: Database | None = None
    started: bool = False

    async def report(self) -> tuple[bool, dict[str, Any]]:
        """Whether the service can do its work, and the numbers behind the answer."""
        outcomes = await asyncio.gather(*(_outcome(check) for check in self.checks.values()))
        checks: Mapping[str, str] = dict(zip(self.checks, outcomes, strict=True))
        lag = {
            f"{partition.topic}[{partition.number}]": behind
            for consumer in self.consumers
            for partition, behind in consumer.lag().items()
        }
        age = None
        if self.database is not None and checks.get("database") == "ok":
            async with self.database.begin() as transaction:
                age = await outbox.oldest_age_seconds(transaction)
        ready = self.started and all(outcome == "ok" for outcome in outcomes)
        return ready, {
            "ready": ready,
            "started": self.started,
            "checks": checks,
            "consumer_lag_records": lag,
            "outbox_age_seconds": age,
        }


async def _outcome(check: Check) -> str:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            await check()
    except Exception as error:  # noqa: BLE001 - whatever is wrong is the answer
        return f"{type(error).__name__}: {error}"[:200]
    return "ok"


def router(health: Health) -> APIRouter:
    """``/health/live``, ``/health/ready`` and ``/metrics``."""
    routes = APIRouter(tags=["health"])

    @routes.get("/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @routes.get("/health/ready")
    async def ready() -> JSONResponse:
        is_ready, report = await health.report()
        return JSONResponse(report, 200 if is_ready else 503)

    @routes.get("/metrics")
    async def metrics() -> Response:
        tallies.hand_over_all()
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return routes

"""The simulator as a web application: the one place that knows every resource and every background task."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
from fastapi import FastAPI
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from quill_stripesim.call import Route
from quill_stripesim.clock import SimulatedClock
from quill_stripesim.control import control_router
from quill_stripesim.engine.announcing import API_VERSION
from quill_stripesim.engine.drafting import DEFAULT_GRACE_HOURS, set_grace
from quill_stripesim.faults import Faults
from quill_stripesim.hanging_up import OpenLines
from quill_stripesim.journal import Journal
from quill_stripesim.resources import (
    customers,
    events,
    invoice_items,
    invoice_line_items,
    invoice_payments,
    invoices,
    meter_event_summaries,
    meter_events,
    meters,
    payment_intents,
    payment_methods,
    prices,
    products,
    subscription_items,
    subscriptions,
    testclocks,
    webhook_endpoints,
)
from quill_stripesim.simulator import Request, Simulator
from quill_stripesim.stripe_error import StripeError
from quill_stripesim.webhooks import WebhookCourier
from quill_stripesim.world import World

TICK_SECONDS = 0.2
PRUNE_EVERY_TICKS = 300
MAX_BODY_BYTES = 1_000_000

RESOURCES = (
    customers,
    events,
    invoice_items,
    invoice_line_items,
    invoice_payments,
    invoices,
    meter_event_summaries,
    meter_events,
    meters,
    payment_intents,
    payment_methods,
    prices,
    products,
    subscription_items,
    subscriptions,
    testclocks,
    webhook_endpoints,
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """How a simulator is started.

    Attributes:
        state_file: Journal that survives a kill; None keeps everything in memory.
        clock_file: File holding the seconds to add to the system clock.
        webhook_url: An endpoint that hears every event from the start.
        webhook_secret: Its signing secret.
        grace_hours: How long automatic drafts wait before they are finalized, 1 to 72.
    """

    state_file: Path | None = None
    clock_file: Path | None = None
    webhook_url: str | None = None
    webhook_secret: str | None = None
    grace_hours: int = DEFAULT_GRACE_HOURS


def routes() -> list[Route]:
    """Returns every endpoint of Stripe that is simulated."""
    return [route for resource in RESOURCES for route in resource.ROUTES]


def build(settings: Settings) -> FastAPI:
    """Builds the application; files are read here, nothing runs before its lifespan."""
    world = World(None if settings.state_file is None else Journal(settings.state_file))
    clock = SimulatedClock(world, file=settings.clock_file)
    simulator = Simulator(world, clock, Faults())
    set_grace(world, hours=settings.grace_hours)
    _register_endpoint(world, settings, now=clock.now())
    world.commit()

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with httpx.AsyncClient(trust_env=False) as client:
            courier = WebhookCourier(world, clock, simulator.faults, client)
            tasks = [asyncio.create_task(courier.run()), asyncio.create_task(_keep_time(simulator))]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                world.close()

    app = FastAPI(title="quill-stripesim", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    lines = OpenLines()
    app.state.lines = lines
    app.include_router(control_router(simulator))
    for route in routes():
        app.add_route(route.path, _endpoint(simulator, route, lines), methods=[route.method])
    app.add_route("/{rest:path}", _unknown, methods=["GET", "POST", "DELETE", "PUT", "PATCH"])
    app.add_exception_handler(StripeError, _refused)
    return app


class _HangUp(Response):
    """Says nothing and closes the line, as a connection lost after the commit does."""

    def __init__(self, lines: OpenLines) -> None:
        super().__init__()
        self._lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - the ASGI signature
        self._lines.cut(tuple(scope["client"]))
        await receive()  # the server now knows that nobody waits for an answer


def _endpoint(simulator: Simulator, route: Route, lines: OpenLines) -> Callable[[HttpRequest], Awaitable[Response]]:
    async def answer(http: HttpRequest) -> Response:
        body = await http.body()
        if len(body) > MAX_BODY_BYTES:
            too_large = StripeError("The request body is too large.", status=413)
            return JSONResponse(too_large.body(), status_code=too_large.status)
        request = Request(
            method=route.method,
            path=http.url.path,
            ids={name: str(value) for name, value in http.path_params.items()},
            encoded=body.decode(errors="replace") if route.method == "POST" else http.url.query,
            headers=dict(http.headers),
        )
        answered = await simulator.answer(route, request)
        if answered.hangs_up:
            return _HangUp(lines)
        return Response(answered.encoded(), answered.status, answered.headers, media_type="application/json")

    return answer


async def _unknown(http: HttpRequest) -> Response:
    refusal = StripeError(f"Unrecognized request URL ({http.method}: {http.url.path}).", status=404)
    return JSONResponse(refusal.body(), status_code=refusal.status)


async def _refused(_http: HttpRequest, error: Exception) -> Response:
    if not isinstance(error, StripeError):
        raise error
    return JSONResponse(error.body(), status_code=error.status)


async def _keep_time(simulator: Simulator) -> None:
    """Ticks, so that time passes while nobody asks. A tick that fails says so and the next one tries again."""
    ticks = 0
    while True:
        try:
            simulator.tick()
            if ticks % PRUNE_EVERY_TICKS == 0:
                simulator.prune()
        except Exception:  # noqa: BLE001 - one bad tick must not stop the clock for everyone
            simulator.world.rollback()
            _log.exception("a tick failed")
        ticks += 1
        await asyncio.sleep(TICK_SECONDS)


def _register_endpoint(world: World, settings: Settings, *, now: int) -> None:
    if settings.webhook_url is None:
        return
    if all(endpoint["url"] != settings.webhook_url for endpoint in world.all("webhook_endpoint")):
        webhook_endpoints.register(
            world,
            url=settings.webhook_url,
            secret=settings.webhook_secret,
            enabled_events=["*"],
            api_version=API_VERSION,
            at=now,
        )

"""The control API: what Stripe would never let a caller do. Beside Stripe's paths, under `/_control`."""

import asyncio
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from quill_stripesim.faults import RequestFault, RequestFaultKind, WebhookFaults
from quill_stripesim.simulator import Simulator

MAX_SETTLE_SECONDS = 60.0
_POLL_SECONDS = 0.02


class _Command(BaseModel):
    model_config = ConfigDict(extra="forbid")


class MoveClock(_Command):
    """Moves the simulator's own clock, by a number of seconds or to a unix second."""

    advance_seconds: int = 0
    set_to: int | None = None


class FailPayments(_Command):
    """Makes a customer's next payments fail, whatever the card."""

    count: Annotated[int, Field(ge=0, le=1_000)] = 1


class FailRequests(_Command):
    """Makes the next matching requests fail; the kinds are those of `RequestFault`."""

    kind: RequestFaultKind
    count: Annotated[int, Field(ge=1, le=100_000)] = 1
    method: str | None = None
    path_prefix: str = "/v1/"
    delay_seconds: Annotated[float, Field(ge=0, le=30)] = 0.0


class MisdeliverWebhooks(_Command):
    """Sets how deliveries misbehave from now on; an empty body makes them behave."""

    duplicate_every: Annotated[int, Field(ge=0)] = 0
    drop_every: Annotated[int, Field(ge=0)] = 0
    reorder: bool = False
    delay_seconds: Annotated[float, Field(ge=0, le=60)] = 0.0
    api_version: str | None = None


class Settle(_Command):
    """Waits until nothing is due and every webhook is delivered, or the time is up."""

    timeout_seconds: Annotated[float, Field(gt=0, le=MAX_SETTLE_SECONDS)] = 10.0


class State(BaseModel):
    """What the simulator says about itself.

    Attributes:
        now: Simulated unix seconds.
        pending_webhooks: Deliveries still to be made.
        pending_faults: Requests that will still be hit by an injected fault.
    """

    now: int
    pending_webhooks: int
    pending_faults: int


def control_router(simulator: Simulator) -> APIRouter:
    """Returns the control endpoints over one simulator."""
    router = APIRouter(prefix="/_control")
    _add_time(router, simulator)
    _add_faults(router, simulator)
    return router


def _state(simulator: Simulator) -> State:
    return State(
        now=simulator.clock.now(),
        pending_webhooks=len(simulator.world.all("_delivery")),
        pending_faults=sum(fault.remaining for fault in simulator.faults.requests),
    )


def _add_time(router: APIRouter, simulator: Simulator) -> None:
    @router.get("/state")
    async def show() -> State:
        return _state(simulator)

    @router.post("/clock")
    async def move_clock(command: MoveClock) -> State:
        seconds = command.advance_seconds
        if command.set_to is not None:
            seconds = command.set_to - simulator.clock.now()
        simulator.clock.move(seconds)
        simulator.tick()
        return _state(simulator)

    @router.post("/settle")
    async def settle(command: Settle) -> State:
        rounds = int(command.timeout_seconds / _POLL_SECONDS) + 1
        for _ in range(rounds):
            simulator.tick()
            if not simulator.world.all("_delivery"):
                break
            await asyncio.sleep(_POLL_SECONDS)
        return _state(simulator)


def _add_faults(router: APIRouter, simulator: Simulator) -> None:
    @router.post("/customers/{customer}/fail-next-payments")
    async def fail_next_payments(customer: str, command: FailPayments) -> State:
        found = simulator.world.require("customer", customer)
        simulator.world.put({**found, "_fail_next_payments": command.count})
        simulator.world.commit()
        return _state(simulator)

    @router.post("/faults/requests")
    async def fail_requests(command: FailRequests) -> State:
        simulator.faults.requests.append(
            RequestFault(
                kind=command.kind,
                remaining=command.count,
                method=command.method,
                path_prefix=command.path_prefix,
                delay_seconds=command.delay_seconds,
            )
        )
        return _state(simulator)

    @router.post("/faults/webhooks")
    async def misdeliver(command: MisdeliverWebhooks) -> State:
        simulator.faults.webhooks = WebhookFaults(**command.model_dump())
        return _state(simulator)

    @router.delete("/faults")
    async def behave() -> State:
        simulator.faults.requests.clear()
        simulator.faults.webhooks = WebhookFaults()
        return _state(simulator)

"""One request from its bytes to its answer, and one tick of time: everything but sockets."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from quill_stripesim.call import Call, Route
from quill_stripesim.clock import SimulatedClock
from quill_stripesim.engine.announcing import API_VERSION
from quill_stripesim.engine.passage import pass_time
from quill_stripesim.faults import Faults, RequestFault
from quill_stripesim.form import decode_form
from quill_stripesim.idempotency import IdempotencyKeys, Result, fingerprint_of
from quill_stripesim.parameters import check
from quill_stripesim.presentation import expand, present
from quill_stripesim.resources.testclocks import finish_advancing, moving_clocks, start_advancing
from quill_stripesim.stripe_error import StripeError
from quill_stripesim.world import Cause, Resource, World

EVENTS_KEPT_SECONDS = 30 * 86_400
_SERVER_ERROR = 500
_VALIDATION_CODES = frozenset({"parameter_unknown", "parameter_missing", "not_simulated"})


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came.

    Attributes:
        encoded: The form body, or the query string of a GET or DELETE.
        headers: By lower-case name.
    """

    method: str
    path: str
    ids: dict[str, str]
    encoded: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to send, or a line to drop when `hangs_up`."""

    status: int
    body: Resource
    headers: dict[str, str] = field(default_factory=dict)
    hangs_up: bool = False

    def encoded(self) -> bytes:
        """Returns the body as JSON."""
        return json.dumps(self.body, indent=2).encode()


class Simulator:
    """Stripe without its sockets.

    Every request runs alone from its first read to its commit: nothing here awaits in between.
    """

    def __init__(self, world: World, clock: SimulatedClock, faults: Faults) -> None:
        self.world = world
        self.clock = clock
        self.faults = faults
        self._keys = IdempotencyKeys(world)
        self._requests = 0
        self._ticked_at: int | None = None

    async def answer(self, route: Route, request: Request) -> Answer:
        """Answers one request as Stripe would, or as the next injected fault says."""
        self._requests += 1
        request_id = f"req_{self._requests:014d}"
        headers = {"Request-Id": request_id, "Stripe-Version": API_VERSION}
        key = request.headers.get("idempotency-key") if request.method == "POST" else None
        if key is not None:
            headers["Idempotency-Key"] = key
        try:
            answer = await self._answer(route, request, key=key, request_id=request_id)
        except StripeError as error:
            self.world.rollback()
            answer = Answer(error.status, error.body())
        except Exception:
            self.world.rollback()  # a bug of ours must not leave half a change behind for the next commit
            raise
        return Answer(answer.status, answer.body, {**headers, **answer.headers}, answer.hangs_up)

    def tick(self) -> None:
        """Lets time pass: test clocks on their way arrive, and whatever became due happens."""
        now = self.clock.now()
        self.world.cause = None
        self._ticked_at = now
        moving = start_advancing(self.world)
        pass_time(self.world, now=now)
        finish_advancing(self.world, moving, now=now)
        self.world.commit()

    def prune(self) -> None:
        """Forgets idempotent results after a day and events after 30."""
        now = self.clock.now()
        self._keys.prune(now=now)
        pending = {delivery["event"] for delivery in self.world.all("_delivery")}
        for event in self.world.all("event"):
            if now - event["created"] >= EVENTS_KEPT_SECONDS and event["id"] not in pending:
                self.world.remove("event", event["id"])
        self.world.commit()

    async def _answer(self, route: Route, request: Request, *, key: str | None, request_id: str) -> Answer:
        _refuse_stranger(request.headers)
        fault = self.faults.take(request.method, request.path)
        _refuse_by_fault(fault)
        received = decode_form(request.encoded)
        fingerprint = fingerprint_of(request.method, request.path, received)
        if key is not None:
            replayed = self._keys.find(key, fingerprint, now=self.clock.now())
            if replayed is not None:
                return _replay(replayed)
        params = check(received, route.spec)
        route.refuse_ignored(params)
        if key is not None and fault is not None and fault.kind == "slow":
            self._keys.hold(key)
            try:
                await asyncio.sleep(fault.delay_seconds)
            finally:
                self._keys.release(key)
        elif fault is not None and fault.kind == "slow":
            await asyncio.sleep(fault.delay_seconds)
        now = self.clock.now()
        if now != self._ticked_at or moving_clocks(self.world):
            self.tick()  # nothing becomes due within one second, so a burst of requests pays for time once
        self.world.cause = Cause(request_id, key)
        result = self._execute(route, request, params, fault, now=now)
        if key is not None and _is_remembered(result):
            self._keys.remember(key, fingerprint, result, now=now)
        self.world.commit()
        return _answer_for(result, fault)

    def _execute(
        self, route: Route, request: Request, params: dict[str, Any], fault: RequestFault | None, *, now: int
    ) -> Result:
        if fault is not None and fault.kind == "error_500":
            return _internal_error()
        asked = params.pop("expand", [])
        call = Call(world=self.world, params=params, ids=request.ids, now=now, path=request.path)
        try:
            shown = expand(self.world, present(self.world, route.answer(call)), asked)
        except StripeError as error:
            if not error.keeps_changes:
                self.world.rollback()
            return Result(error.status, error.body())
        if fault is not None and fault.kind == "error_500_after_commit":
            return _internal_error()
        return Result(200, shown)


def _refuse_stranger(headers: Mapping[str, str]) -> None:
    """Wants a secret test key and the pinned API version: a live key has no business here, whatever sent it."""
    scheme, _, api_key = headers.get("authorization", "").partition(" ")
    if scheme != "Bearer" or not api_key.startswith(("sk_test_", "rk_test_")):
        raise StripeError("Invalid API Key provided: quill-stripesim takes test keys only.", status=401)
    version = headers.get("stripe-version", API_VERSION)
    if version != API_VERSION:
        raise StripeError(f"Invalid Stripe API version: {version}; this simulator speaks {API_VERSION}.")


def _refuse_by_fault(fault: RequestFault | None) -> None:
    if fault is None:
        return
    if fault.kind == "rate_limit":
        raise StripeError("Too many requests hit the API too quickly.", status=429, code="rate_limit")
    if fault.kind == "lock_timeout":
        raise StripeError(
            "This object cannot be accessed right now because another API request or Stripe process is accessing it.",
            status=429,
            code="lock_timeout",
        )


def _internal_error() -> Result:
    error = StripeError("An unknown error occurred.", status=_SERVER_ERROR, kind="api_error")
    return Result(_SERVER_ERROR, error.body())


def _is_remembered(result: Result) -> bool:
    code = result.body.get("error", {}).get("code") or ""
    return code not in _VALIDATION_CODES and not code.startswith("parameter_invalid")


def _replay(result: Result) -> Answer:
    headers = {"Idempotent-Replayed": "true"}
    if result.status >= _SERVER_ERROR:
        headers["Stripe-Should-Retry"] = "false"
    return Answer(result.status, result.body, headers)


def _answer_for(result: Result, fault: RequestFault | None) -> Answer:
    hangs_up = fault is not None and fault.kind == "timeout_after_commit"
    return Answer(result.status, result.body, hangs_up=hangs_up)

"""Webhook delivery: at least once, in no promised order, signed anew on each attempt, tried again with back-off."""

import asyncio
import hashlib
import hmac
import json
import logging
import time

import httpx

from quill_stripesim.clock import SimulatedClock
from quill_stripesim.faults import Faults
from quill_stripesim.presentation import present
from quill_stripesim.world import Resource, World

MAX_ATTEMPTS = 12
FIRST_RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 60.0
TIMEOUT_SECONDS = 10.0
AT_ONCE = 8
_POLL_SECONDS = 0.05
_log = logging.getLogger(__name__)


def sign(body: bytes, *, secret: str, at: int) -> str:
    """Returns the `Stripe-Signature` header for a body at a unix second."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


class WebhookCourier:
    """Carries deliveries from the world to the endpoints.

    What is still to be delivered is part of the world, so a killed simulator goes on after its restart. Back-off runs
    in real seconds; signatures carry the time that receivers live in too, the system's or that of the shared file.
    """

    def __init__(self, world: World, clock: SimulatedClock, faults: Faults, client: httpx.AsyncClient) -> None:
        self._world = world
        self._clock = clock
        self._faults = faults
        self._client = client
        self._not_before: dict[str, float] = {}
        self._counted: set[str] = set()
        self._twice: set[str] = set()
        self._count = 0

    async def run(self) -> None:
        """Delivers until cancelled."""
        while True:
            if not await self.deliver_due():
                await asyncio.sleep(_POLL_SECONDS)

    async def deliver_due(self) -> bool:
        """Makes one round of attempts and says whether there were any."""
        pending = [each for each in self._world.all("_delivery") if self._is_due(each)]
        if not pending or self._waits_for_more(pending):
            return False
        if self._faults.webhooks.reorder:
            for delivery in reversed(pending):
                await self._attempt(delivery)
        else:
            await asyncio.gather(*(self._attempt(delivery) for delivery in pending[:AT_ONCE]))
        return True

    def _waits_for_more(self, due: list[Resource]) -> bool:
        """Turned around is what is delivered together: hold it back until what follows closely is due as well."""
        faults = self._faults.webhooks
        if not faults.reorder:
            return False
        now = time.monotonic()
        held = {delivery["id"] for delivery in due}
        is_more_coming = any(at > now for identifier, at in self._not_before.items() if identifier not in held)
        oldest = min(self._not_before[delivery["id"]] for delivery in due)
        return is_more_coming and now - oldest < faults.delay_seconds

    def _is_due(self, delivery: Resource) -> bool:
        identifier = delivery["id"]
        if identifier not in self._counted:
            self._counted.add(identifier)
            self._count += 1
            faults = self._faults.webhooks
            if faults.drop_every and self._count % faults.drop_every == 0:
                self._forget(delivery)
                return False
            if faults.duplicate_every and self._count % faults.duplicate_every == 0:
                self._twice.add(identifier)
            self._not_before[identifier] = time.monotonic() + faults.delay_seconds
        return self._not_before[identifier] <= time.monotonic()

    async def _attempt(self, delivery: Resource) -> None:
        endpoint = self._world.get("webhook_endpoint", delivery["endpoint"])
        event = self._world.get("event", delivery["event"])
        if endpoint is None or event is None:
            self._forget(delivery)
            return
        shown = present(self._world, event)
        if self._faults.webhooks.api_version is not None:
            shown = {**shown, "api_version": self._faults.webhooks.api_version}
        body = json.dumps(shown, indent=2).encode()
        was_taken = await self._post(endpoint, body)
        if was_taken and delivery["id"] in self._twice:
            await self._post(endpoint, body)
        if self._world.get("_delivery", delivery["id"]) is None:
            return
        if was_taken:
            self._settle(delivery)
        else:
            self._retry_later(delivery)

    async def _post(self, endpoint: Resource, body: bytes) -> bool:
        signature = sign(body, secret=endpoint["_secret"], at=self._clock.shared_now())
        headers = {"Content-Type": "application/json; charset=utf-8", "Stripe-Signature": signature}
        try:
            response = await self._client.post(endpoint["url"], content=body, headers=headers, timeout=TIMEOUT_SECONDS)
        except httpx.HTTPError as error:
            _log.info("webhook to %s failed: %s", endpoint["url"], error)
            return False
        return response.is_success

    def _settle(self, delivery: Resource) -> None:
        event = self._world.get("event", delivery["event"])
        if event is not None:
            self._world.put({**event, "pending_webhooks": max(0, event["pending_webhooks"] - 1)})
        invoice = None if delivery["invoice"] is None else self._world.get("invoice", delivery["invoice"])
        if invoice is not None:
            self._world.put({**invoice, "webhooks_delivered_at": self._clock.now()})
        self._forget(delivery)

    def _retry_later(self, delivery: Resource) -> None:
        attempts = delivery["attempts"] + 1
        if attempts >= MAX_ATTEMPTS:
            _log.warning("webhook %s given up after %d attempts", delivery["event"], attempts)
            self._forget(delivery)
            return
        wait = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** (attempts - 1))
        self._not_before[delivery["id"]] = time.monotonic() + wait
        self._world.put({**delivery, "attempts": attempts})
        self._world.commit()

    def _forget(self, delivery: Resource) -> None:
        self._world.remove("_delivery", delivery["id"])
        self._world.commit()
        self._not_before.pop(delivery["id"], None)
        self._counted.discard(delivery["id"])
        self._twice.discard(delivery["id"])

"""Carries deliveries to their endpoints: leases what is due, sends many at once, keeps what became of each."""

import asyncio
import time
from collections import Counter as Tally
from typing import Final

import structlog
from prometheus_client import Counter, Gauge, Histogram
from quill_runtime.background import BackgroundTask
from quill_runtime.clock import Clock
from quill_runtime.sealing import CannotOpen, Sealer

from quill_quota_limiter.domain.webhook_delivery import DeliveryOutcome
from quill_quota_limiter.gateways.webhook_signature import signed_headers
from quill_quota_limiter.ports import LimitsStore, WebhookSender
from quill_quota_limiter.usecases.change_webhooks import stream_of
from quill_quota_limiter.usecases.deliver_webhooks import LeasedDelivery, lease_due, settle_delivery

AT_ONCE: Final = 32
IDLE_SECONDS: Final = 0.3
FAILURE_SECONDS: Final = 1.0

TRIES = Counter("quill_webhook_tries", "Tries to deliver a webhook, by what came of them", ["outcome"])
TRY_SECONDS = Histogram("quill_webhook_try_seconds", "How long a try to deliver a webhook took")
DISABLED = Counter(
    "quill_webhook_endpoints_disabled", "Endpoints disabled because nothing was taken there", ["because"]
)
IN_HAND = Gauge("quill_webhook_deliveries_in_hand", "Webhooks being sent by this process")

log = structlog.get_logger(__name__)


class WebhookCourier(BackgroundTask):
    """Sends at most 32 at once, and four to one endpoint. A crash at any point repeats a try with the same id (L15)."""

    def __init__(self, *, store: LimitsStore, sender: WebhookSender, sealer: Sealer, clock: Clock) -> None:
        super().__init__("webhook-courier")
        self._store = store
        self._sender = sender
        self._sealer = sealer
        self._clock = clock
        self._in_hand: Tally[str] = Tally()
        self._trips: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """Stop leasing and let go of what is being sent; it is due again when its lease ends."""
        await super().stop()
        for trip in self._trips:
            trip.cancel()
        await asyncio.gather(*self._trips, return_exceptions=True)

    async def deliver_due(self) -> int:
        """Lease and send what is due now, and wait for it; returns how many tries there were."""
        leased = await self._lease()
        await asyncio.gather(*(self._carry(each) for each in leased))
        return len(leased)

    async def _run(self) -> None:
        while True:
            try:
                leased = await self._lease()
                for each in leased:
                    trip = asyncio.create_task(self._carry(each))
                    self._trips.add(trip)
                    trip.add_done_callback(self._trips.discard)
                if not leased:
                    await asyncio.sleep(IDLE_SECONDS)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - the courier outlives every fault; rows stay due
                log.warning("webhooks.courier_failed", error=repr(error))
                await asyncio.sleep(FAILURE_SECONDS)

    async def _lease(self) -> list[LeasedDelivery]:
        room = AT_ONCE - self._in_hand.total()
        if room <= 0:
            return []
        leased = await lease_due(in_hand=dict(self._in_hand), room=room, store=self._store, now=self._clock.now())
        self._in_hand.update(each.endpoint.endpoint_id for each in leased)
        IN_HAND.set(self._in_hand.total())
        return leased

    async def _carry(self, leased: LeasedDelivery) -> None:
        name = leased.endpoint.endpoint_id
        try:
            started = time.perf_counter()
            outcome = await self._try(leased)
            TRY_SECONDS.observe(time.perf_counter() - started)
            await self._settle(leased, outcome)
        except Exception as error:  # noqa: BLE001 - the outcome is lost; the lease ends and the same id goes out again
            TRIES.labels("unsettled").inc()
            log.warning("webhooks.unsettled", delivery=leased.delivery.delivery_id, error=repr(error))
        finally:
            self._in_hand[name] -= 1
            if not self._in_hand[name]:
                del self._in_hand[name]
            IN_HAND.set(self._in_hand.total())

    async def _try(self, leased: LeasedDelivery) -> DeliveryOutcome:
        endpoint, delivery, now = leased.endpoint, leased.delivery, self._clock.now()
        try:
            secrets = [
                self._sealer.open(sealed, context=stream_of(endpoint.endpoint_id)) for sealed in endpoint.signing(now)
            ]
        except CannotOpen:
            return DeliveryOutcome(error="the secret was sealed by a key we do not hold; rotate it")
        headers = signed_headers(delivery_id=delivery.delivery_id, body=delivery.body, secrets=secrets, now=now)
        return await self._sender.send(endpoint.url, headers=headers, body=delivery.body)

    async def _settle(self, leased: LeasedDelivery, outcome: DeliveryOutcome) -> None:
        async with self._store.begin() as tx:
            settled = await settle_delivery(leased, outcome, tx=tx, now=self._clock.now())
        if settled is None:
            TRIES.labels("lease_lost").inc()
            return
        after, because = settled.delivery, settled.disabled_because
        TRIES.labels({"pending": "retry"}.get(after.status, after.status)).inc()
        if not outcome.is_taken:
            log.info(
                "webhooks.not_taken",
                delivery=after.delivery_id,
                endpoint=after.endpoint_id,
                status=outcome.status,
                error=outcome.error,
                attempts=after.attempts,
                verdict=after.status,
            )
        if because is not None:
            DISABLED.labels(because).inc()
            log.error("webhooks.endpoint_disabled", endpoint=after.endpoint_id, because=because)

"""Telling a region of its customers: due updates, built from what holds now, handed to the region's queue (L15).

A crash at any point repeats an update, which is harmless: it says the current state. One sender per queue, so that a
queue that is away holds up no other; replicas share the work by claims.
"""

import asyncio
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Final, Protocol

import structlog
from prometheus_client import Counter
from quill_runtime.background import BackgroundTask
from quill_runtime.clock import Clock
from quill_runtime.database import is_unavailable
from quill_runtime.queues import MessageRefused, QueueAway

from quill_subscriptions.domain.billing_update import ClaimedUpdate, back_off
from quill_subscriptions.domain.customer import Customer
from quill_subscriptions.ports import SubscriptionsStore, SubscriptionsTransaction
from quill_subscriptions.usecases.billing_updates import view_update
from quill_subscriptions.usecases.changes import UnknownCustomer
from quill_subscriptions.usecases.reading import BillingView
from quill_subscriptions.wire.billing_object import billing_object
from quill_subscriptions.wire.billing_update import QueuedUpdate, UpdateTooLarge, queued_update

SENT_AT_ONCE: Final = 4
"""Updates on their way to one queue at the same time; each needs a connection of the pool while it is built."""
SEND_SECONDS_MAX: Final = 40.0
"""Two tries with their timeouts. With what reading may take it stays under `IN_FLIGHT`: nobody else sends the update
meanwhile, so an older state never follows a newer one from here."""

UPDATES = Counter("quill_billing_updates", "Customers that regions were told of", ("outcome",))

log = structlog.get_logger(__name__)


class UpdateQueue(Protocol):
    """Where updates go; see `quill_runtime.queues.SqsQueue.send`."""

    async def send(self, body: str, *, attributes: "dict[str, str]", group: str, message_key: str) -> str: ...


OpenQueue = Callable[[], AbstractAsyncContextManager[UpdateQueue]]
LicenseTypeOf = Callable[[Customer], str]
"""The type of a customer's license as its tokens would say it."""


class BillingUpdateSender(BackgroundTask):
    """Sends the due updates of the customers of some licenses to one queue."""

    def __init__(
        self,
        *,
        store: SubscriptionsStore,
        open_queue: OpenQueue,
        license_ids: Collection[str],
        license_type_of: LicenseTypeOf,
        packed: bool,
        every_seconds: float,
        clock: Clock,
    ) -> None:
        super().__init__("billing-updates:" + ",".join(sorted(license_ids)))
        self._store = store
        self._open_queue = open_queue
        self._license_ids = frozenset(license_ids)
        self._license_type_of = license_type_of
        self._packed = packed
        self._every_seconds = every_seconds
        self._clock = clock

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                async with self._open_queue() as queue:
                    while True:
                        taken = await self.send_due(queue, now=self._clock.now())
                        failures = 0
                        if not taken:
                            await asyncio.sleep(self._every_seconds)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - the sender outlives every fault; rows stay due
                failures += 1
                wait = back_off(failures).total_seconds()
                log.warning("billing_updates.away", sender=self.name, seconds=wait, error=repr(error))
                await asyncio.sleep(wait)

    async def send_due(self, queue: UpdateQueue, *, now: datetime) -> int:
        """Claim a batch and send each; returns how many were claimed.

        Raises:
            QueueAway: what was not sent is due again; wait.
        """
        claimed = await self._store.run(lambda tx: tx.updates.claim(self._license_ids, now=now, count_max=SENT_AT_ONCE))
        outcomes = await asyncio.gather(
            *(self._send_one(each, queue, now=now) for each in claimed), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return len(claimed)

    async def _send_one(self, claimed: ClaimedUpdate, queue: UpdateQueue, *, now: datetime) -> None:
        try:
            message = await self._build(claimed, now=now)
            async with asyncio.timeout(SEND_SECONDS_MAX):
                await queue.send(
                    message.body,
                    attributes=dict(message.attributes),
                    group=claimed.organization_id,
                    message_key=f"{claimed.organization_id}/{claimed.generation}/{claimed.attempts}",
                )
        except (UpdateTooLarge, MessageRefused, UnknownCustomer) as fault:
            reason = str(fault)
            UPDATES.labels("failed").inc()
            log.error("billing_updates.failed", organization_id=claimed.organization_id, reason=reason)  # noqa: TRY400 - its state, not a fault of ours
            await self._store.run(lambda tx: tx.updates.give_up(claimed, reason, now=now))
        except Exception as error:
            UPDATES.labels("postponed").inc()
            await self._let_go(claimed, error, now=now)
            if isinstance(error, QueueAway) or is_unavailable(error):
                raise
            log.warning("billing_updates.retry", organization_id=claimed.organization_id, error=repr(error))
        else:
            UPDATES.labels("sent").inc()
            await self._store.run(lambda tx: tx.updates.conclude(claimed, now=now))

    async def _build(self, claimed: ClaimedUpdate, *, now: datetime) -> QueuedUpdate:
        async def work(tx: SubscriptionsTransaction) -> BillingView:
            return await view_update(claimed.organization_id, tx=tx, now=now)

        view = await self._store.run(work)
        customer = view.record.customer
        data = billing_object(customer, view.standing, license_type=self._license_type_of(customer), forecast=True)
        return queued_update(claimed.organization_id, data, packed=self._packed)

    async def _let_go(self, unsent: ClaimedUpdate, error: Exception, *, now: datetime) -> None:
        until = now + back_off(unsent.attempts)
        await self._store.run(lambda tx: tx.updates.postpone(unsent, repr(error), until=until))

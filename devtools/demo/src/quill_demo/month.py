"""The month as it is lived: the clock moves, sources send, billing keeps up."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby

from quill_regions.misbehaviour import Delivery
from quill_regions.queue_region import QueueRegion
from quill_regions.sources import CloudRegion, Instance

from quill_demo.billing_client import BillingClient
from quill_demo.entrance import in_parallel
from quill_demo.sandbox_time import SandboxTime
from quill_demo.world import World

STEP = timedelta(hours=6)
"""Sandbox time moves in steps of a quarter of a day; what is due within a step is handed over at its end."""


class Month:
    """Sends every delivery at its time."""

    def __init__(
        self, *, world: World, client: BillingClient, time: SandboxTime, queues: QueueRegion | None = None
    ) -> None:
        self._world = world
        self._client = client
        self._time = time
        self._queues = queues
        self._queued_until = world.start
        self._sent_until = world.start
        self.sent_over_kafka = 0
        self.sent_over_http = 0

    async def live(self, region: CloudRegion, *, until: datetime, progress: Callable[[int], None]) -> None:
        """Everything that is due before ``until`` and was not sent yet."""
        for step, due in self._steps(until):
            self._time.reach(step)
            self._sent_until = step
            cloud = [delivery for delivery in due if not delivery.day.organization.self_hosted]
            instances = [delivery for delivery in due if delivery.day.organization.self_hosted]
            await self._send_queued(step)
            await region.send(cloud)
            await in_parallel([partial(self._post, delivery) for delivery in instances])
            self.sent_over_kafka += len(cloud)
            self.sent_over_http += len(instances)
            progress(len(due))
        await self._send_queued(until)

    async def _send_queued(self, until: datetime) -> None:
        """What the region of queues has ready by now."""
        if self._queues is None:
            return
        due = [each for each in self._world.queues.deliveries if self._queued_until < each.at <= until]
        if due:
            self._time.reach(until)
        await self._queues.send(due)
        self._queued_until = max(self._queued_until, until)

    def _steps(self, until: datetime) -> Iterator[tuple[datetime, list[Delivery]]]:
        start = self._world.start

        def step_of(delivery: Delivery) -> datetime:
            return start + STEP * (-(-(delivery.at - start) // STEP))

        due = [
            delivery
            for delivery in self._world.deliveries
            if step_of(delivery) <= until and step_of(delivery) > self._sent_until
        ]
        for step, group in groupby(sorted(due, key=step_of), key=step_of):
            yield step, list(group)

    async def _post(self, delivery: Delivery) -> None:
        organization = delivery.day.organization
        instance = Instance(client=self._client.http, license_key=self._world.license_keys[organization.source])
        await instance.send(delivery, now=self._time.now())

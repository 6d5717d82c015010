"""From PostHog's queue to Kafka: copied, confirmed, and only then forgotten by the queue (L4)."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

import structlog
from quill_contracts.intakes import DailyReport, ReportRun
from quill_contracts.topics import DAILY_REPORTS, REPORT_RUNS
from quill_runtime.background import BackgroundTask
from quill_runtime.publisher import Outgoing, Publisher, PublishFailed
from quill_runtime.queues import QueueAway, QueueMessage, SqsQueue

BACK_OFF_SECONDS: Final = (0.5, 2.0, 10.0, 30.0)

log = structlog.get_logger(__name__)


Copy = Callable[[QueueMessage], Outgoing]
"""What a message becomes in Kafka."""


class OpenQueue(Protocol):
    """Opens the queue anew; called again after it was away."""

    def __call__(self) -> AbstractAsyncContextManager[SqsQueue]: ...


class QueueIntake(BackgroundTask):
    """Takes messages whose instant is the queue's, since they have none of their own.

    A message whose body makes no sense is copied all the same: what cannot be read is parked behind Kafka, with its
    bytes, its reason and a way to replay it.
    """

    def __init__(self, *, copy: Copy, open_queue: OpenQueue, publisher: Publisher) -> None:
        super().__init__("queue-intake")
        self._copy = copy
        self._open_queue = open_queue
        self._publisher = publisher

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                async with self._open_queue() as queue:
                    while True:
                        await self.take(queue)
                        failures = 0
            except (QueueAway, PublishFailed) as error:
                wait = BACK_OFF_SECONDS[min(failures, len(BACK_OFF_SECONDS) - 1)]
                failures += 1
                log.warning("queue.away", seconds=wait, error=repr(error))
                await asyncio.sleep(wait)

    async def take(self, queue: SqsQueue) -> int:
        """One turn: receive, copy, delete; returns how many messages there were.

        Raises:
            QueueAway | PublishFailed: the messages come again.
        """
        messages = await queue.receive()
        if messages:
            await self._publisher.publish_all([self._copy(message) for message in messages])
            await queue.delete(messages)
        return len(messages)


def report_from(source: str) -> Copy:
    """A message of generation v1 is one organization's report, on behalf of the region ``source``."""

    def copy(message: QueueMessage) -> Outgoing:
        is_packed = message.attributes.get("content_encoding") == "gzip"
        report = DailyReport(
            generation="v1",
            source=source,
            as_of=message.sent_at,
            encoding="base64-gzip" if is_packed else "identity",
            body=message.body,
        )
        # Reports need no order among each other (L1), and finding out whose this is would mean opening it.
        return Outgoing(DAILY_REPORTS.name, message.message_id, report.to_bytes())

    return copy


def pointer_from(source: str) -> Copy:
    """A message of generation v2 points to a run of chunk files."""

    def copy(message: QueueMessage) -> Outgoing:
        run = ReportRun(source=source, sent_at=message.sent_at, body=message.body)
        return Outgoing(REPORT_RUNS.name, message.message_id, run.to_bytes())

    return copy

"""Bringing current snapshots to Kafka, never an older one after a newer one.

The topic is compacted by organization, so the last snapshot written is the one that stays. Each snapshot is therefore
read and sent while its organization's row is locked: a writer with a newer revision waits, and can only publish later.
Messages saved in an outbox beforehand could not promise that, so a row state (`is_publication_due`) takes its place.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import structlog
from quill_contracts.topics import LATE_USAGE, PERIOD_USAGE
from quill_runtime.database import Database
from quill_runtime.publisher import Outgoing, Publisher, PublishFailed
from quill_runtime.shared_question import SharedQuestion
from sqlalchemy.exc import DBAPIError

from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.ports import SNAPSHOT_PERIODS
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.cut_rows import meters_before
from quill_usage_ingest.store.meter_places import MeterPlaces, counters_of
from quill_usage_ingest.store.organization_sources import Published
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.stored_period import StoredPeriod
from quill_usage_ingest.wire.snapshots import CutsOf, PackedPeriod, encode_late_usage, encode_snapshot

_NEVER: Final = datetime(9999, 1, 1, tzinfo=UTC)
DUE_BATCH: Final = 200
"""Organizations published under one set of locks."""
CONFIRM_SECONDS: Final = 1.0
"""How long the answer to a report waits for Kafka's confirmation of its snapshot, and a lock for it at most."""
CONFIRMED_MAX: Final = 200_000
"""Organizations whose newest confirmed revision is remembered; forgetting costs one needless message each."""

log = structlog.get_logger(__name__)


class SnapshotPublication:
    """Publishes ``usage.period-usage.v1``."""

    def __init__(self, *, database: Database, publisher: Publisher, slots: CounterSlots) -> None:
        self._database = database
        self._publisher = publisher
        self._slots = slots
        self._confirmed: dict[str, int] = {}
        self._passes = SharedQuestion(self._publish_due)
        self._late: tuple[asyncio.Task[None], frozenset[str]] | None = None
        """An attempt that Kafka has not confirmed in time, and whose snapshots are in it."""

    async def publish_current(self, organization_ids: Collection[str]) -> int:
        """Send the present state of these organizations, changed or not; returns how many were sent.

        Called again after a crash between commit and publishing, it sends what was missed. A revision that Kafka has
        confirmed to this very process is not sent twice: re-sent reports change nothing, and there are many of them.

        Raises:
            PublishFailed: Kafka did not confirm; call again.
        """
        async with self._database.begin() as transaction:
            usage = PostgresUsage(transaction, self._slots)
            locked = await usage.share_lock_revisions(organization_ids)
            news = {key: held for key, held in locked.items() if self._confirmed.get(key) != held.revision}
            return await self._send(usage, news)

    async def publish_due(self) -> int:
        """Send the organizations whose new revision nobody else has promised to send, and remember that it was done.

        All who call at the same time share one pass, which begins after their call. It locks the organizations for
        `CONFIRM_SECONDS` at most, so that reports of them are taken while Kafka is away.

        Raises:
            PublishFailed: Kafka did not confirm; they stay due.
        """
        return await self._passes.answer()

    async def confirm_due(self) -> bool:
        """Whether Kafka has confirmed what is due now, waiting `CONFIRM_SECONDS` at most. Never raises (D16).

        What is not confirmed stays due.
        """
        try:
            async with asyncio.timeout(CONFIRM_SECONDS):
                await self.publish_due()
        except (PublishFailed, TimeoutError, DBAPIError, OSError) as error:
            log.info("publication.not_confirmed", error=repr(error))
            return False
        return True

    async def _publish_due(self) -> int:
        await self._finish_late_attempt()
        published = 0
        while True:
            async with self._database.begin() as transaction:
                usage = PostgresUsage(transaction, self._slots)
                due = await usage.lock_due_for_publication(limit=DUE_BATCH)
                late_usage = await usage.packed_late_periods(due.keys())
                published += await self._send(usage, due, late_usage=late_usage, publish=self._publish_in_time)
                await usage.publication_done(due.keys())
                await usage.late_usage_published(due.keys())
            if len(due) < DUE_BATCH:
                return published

    async def _publish_in_time(self, messages: Sequence[Outgoing]) -> None:
        """Publish, but wait no longer than `CONFIRM_SECONDS`: locks are held meanwhile."""
        attempt = asyncio.create_task(self._publisher.publish_all(messages))
        try:
            done, _ = await asyncio.wait([attempt], timeout=CONFIRM_SECONDS)
        except asyncio.CancelledError:
            attempt.cancel()
            raise
        if not done:
            self._late = attempt, frozenset(message.key for message in messages)
            raise PublishFailed(f"{len(messages)} snapshots not confirmed within {CONFIRM_SECONDS:g} s")
        attempt.result()

    async def _finish_late_attempt(self) -> None:
        """Make everything due again that a late attempt may have written after a newer snapshot.

        Raises:
            PublishFailed: the attempt is still under way; a second one could overtake it.
        """
        if self._late is None:
            return
        attempt, organization_ids = self._late
        if not attempt.done():
            raise PublishFailed("an earlier attempt is still under way")
        if not attempt.cancelled():
            attempt.exception()
        async with self._database.begin() as transaction:
            await PostgresUsage(transaction, self._slots).make_publication_due(organization_ids)
        self._late = None

    async def _send(
        self,
        usage: PostgresUsage,
        locked: Mapping[str, Published],
        *,
        late_usage: Sequence[StoredPeriod] = (),
        publish: Callable[[Sequence[Outgoing]], Awaitable[None]] | None = None,
    ) -> int:
        due = {key: held for key, held in locked.items() if held.revision > 0}
        if not due:
            return 0
        newest = await usage.packed_newest_periods(sorted(due), newest=SNAPSHOT_PERIODS)
        told = await _Telling.of([*newest, *late_usage], due, usage)
        periods: dict[str, list[PackedPeriod]] = {}
        for row in newest:
            periods.setdefault(row.organization_id, []).append(row)
        await (publish or self._publisher.publish_all)(
            [
                *(told.snapshot(key, held, periods.get(key, ())) for key, held in due.items()),
                *(told.late_usage(due[row.organization_id], row) for row in late_usage),
            ]
        )
        if len(self._confirmed) > CONFIRMED_MAX:
            self._confirmed.clear()
        self._confirmed |= {key: held.revision for key, held in due.items()}
        return len(due)


@dataclass(frozen=True, slots=True)
class _Telling:
    """What messages are made with beside the rows: read once for all of them."""

    places: MeterPlaces
    cuts: CutsOf

    @classmethod
    async def of(cls, rows: Sequence[StoredPeriod], due: Mapping[str, Published], usage: PostgresUsage) -> "_Telling":
        meters = MeterMap.of(await usage.metered_products())
        oldest = min((row.period_start for row in rows), default=_NEVER)
        events = await usage.event_usage(meters, due.keys(), since=oldest)
        carried = await usage.carried_values(meters, due.keys())
        places = MeterPlaces.of(meters, await usage.slots_of(counters_of(meters)), events, carried)
        cuts = await usage.cuts_since([key for key, held in due.items() if held.cuts], oldest)
        return cls(places, meters_before(cuts, meters, carried))

    def snapshot(self, organization_id: str, held: Published, periods: Sequence[PackedPeriod]) -> Outgoing:
        value = encode_snapshot(
            organization_id,
            revision=held.revision,
            periods=periods,
            places=self.places.everywhere,
            further=self.places.further if self.places.has_further else None,
            sources=held.sources,
            customer_revision=held.customer_revision,
            cuts=self.cuts if held.cuts else None,
        )
        return Outgoing(PERIOD_USAGE.name, organization_id, value)

    def late_usage(self, held: Published, period: StoredPeriod) -> Outgoing:
        value = encode_late_usage(
            period.organization_id,
            revision=held.revision,
            period=period,
            places=self.places.everywhere,
            further=self.places.further if self.places.has_further else None,
            customer_revision=held.customer_revision,
            cuts=self.cuts if held.cuts else None,
        )
        return Outgoing(LATE_USAGE.name, period.organization_id, value)

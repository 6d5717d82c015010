"""How a batch of claims ends: what was refused is parked with it, and whom it touched is published after it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from quill_runtime import dead_letters
from quill_runtime.consumption import FollowUp, Record, Rejected
from quill_runtime.database import Transaction
from quill_runtime.outbox import Outbox

from quill_usage_ingest.domain.usage_book import Refusal
from quill_usage_ingest.ports import Arrival
from quill_usage_ingest.store.publication import SnapshotPublication


def arrival_of(record: Record) -> Arrival:
    """A record of the log as evidence: its bytes and where they stood (L5)."""
    return Arrival("kafka", record.value or b"", record.topic, record.partition, record.offset)


def rejected_by(refusal: Refusal) -> Rejected:
    """The refusal in the runtime's words."""
    return Rejected(refusal.code, refusal.detail, attribute=refusal.attribute, subject=refusal.subject)


@dataclass(frozen=True, slots=True)
class BatchSettlement:
    """What the consumers of reports and of events do alike.

    Refused records are parked in the batch's own transaction, under the consumer group ``park_as``: a burst of claims
    for organizations still unknown then costs no halving of batches (L4).
    """

    outbox: Outbox
    publication: SnapshotPublication
    park_as: str

    async def park(self, transaction: Transaction, record: Record, rejected: Rejected, *, now: datetime) -> None:
        """Park one record."""
        await dead_letters.park(
            transaction, outbox=self.outbox, group=self.park_as, record=record, rejected=rejected, now=now
        )

    async def settle(
        self, transaction: Transaction, outcomes: Iterable[tuple[Record, str, object]], *, now: datetime
    ) -> FollowUp | None:
        """Park what was refused; publish the organizations of the rest once the batch is committed.

        Args:
            transaction: the batch's own.
            outcomes: of each record the organization it is about, and a `Refusal` or what became of it.
            now: when it was parked.
        """
        touched: set[str] = set()
        for record, organization_id, outcome in outcomes:
            if isinstance(outcome, Refusal):
                await self.park(transaction, record, rejected_by(outcome), now=now)
            else:
                touched.add(organization_id)
        if not touched:
            return None

        async def publish() -> None:
            await self.publication.publish_current(touched)

        return publish

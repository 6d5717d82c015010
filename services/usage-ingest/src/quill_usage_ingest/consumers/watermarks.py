"""Watermarks from Kafka: kept until what they speak for has been entered."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from quill_contracts.sources import SourceWatermark
from quill_contracts.topics import WATERMARKS
from quill_runtime.consumption import Consumption, Received, Record, Rejected
from quill_runtime.database import Transaction
from quill_runtime.outbox import Outbox

from quill_usage_ingest.domain.usage_book import CLOCK_TOLERANCE
from quill_usage_ingest.store.heard_sources import HeardSources
from quill_usage_ingest.store.sources import PostgresSources
from quill_usage_ingest.wire.sources import from_wire_watermark

AHEAD_MAX: Final[timedelta] = CLOCK_TOLERANCE
"""How far ahead of our clock a watermark may be: one of the year 9999 would hide every hole to come."""


def watermarks(group: str, *, outbox: Outbox, heard: HeardSources) -> Consumption[SourceWatermark]:
    """Words of sources; one about the future is parked."""

    async def apply(transaction: Transaction, received: Sequence[Received[SourceWatermark]], now: datetime) -> None:
        for item in received:
            if item.message.complete_through > now + AHEAD_MAX:
                detail = f"complete_through: is more than {AHEAD_MAX.days} days ahead of {now.isoformat()}"
                raise Rejected("watermark_in_the_future", detail, attribute="complete_through")
        claims = [from_wire_watermark(item.message, now=now) for item in received]
        await PostgresSources(transaction, outbox).add_claims(claims, now=now)
        for claim in claims:
            heard.note(claim.source, now)

    return Consumption(topic=WATERMARKS.name, group=group, decode=_decode, apply=apply)


def _decode(record: Record) -> SourceWatermark:
    if record.value is None:
        raise Rejected("empty_value", "the record has no value")
    return SourceWatermark.from_bytes(record.value)

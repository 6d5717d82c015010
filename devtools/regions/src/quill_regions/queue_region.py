"""The region that reports through queues and a bucket, in both generations (wire contract 5).

Generation v2: partial runs during the day, a final one after it, each a set of gzip chunks with a manifest and a
pointer; pointers come twice or after later ones. Generation v1 beside it for some days: a message per organization
with usage. On one day v1 says something else of one counter that nobody pays for.
"""

import base64
import gzip
import json
import random
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from quill_regions.days import Day, live_through
from quill_regions.organizations import QUEUE_REGION, Organization
from quill_regions.posthog_report import usage_report

PARTIAL_PERCENT: Final = {6: 20, 12: 45, 18: 75}
"""How much of a day a run at this hour has seen."""
FINAL_AT: Final = time(0, 30)
V1_AT: Final = time(3, 45)
CHUNK_LINES: Final = 10
REPEATED: Final = 0.2
"""Share of final pointers that come twice."""
OVERTAKEN: Final = 0.15
"""Share of partial pointers that come after their day's final run."""
PLANTED_COUNTER: Final = "mobile_recording_count_in_period"
PLANTED_MORE: Final = 7
CALL_SECONDS: Final = 20


@dataclass(frozen=True, slots=True)
class Planted:
    """The one thing that v1 and v2 do not agree on."""

    organization_id: str
    date: date
    counter: str
    v1: int
    v2: int


@dataclass(frozen=True, slots=True)
class QueueDelivery:
    """A run and its pointer, or one message of v1 per organization, handed over at ``at``."""

    at: datetime
    generation: str
    run_id: str
    date: date
    started: datetime
    complete: bool
    days: tuple[Day, ...]


@dataclass(frozen=True, slots=True)
class QueuePlan:
    """Everything the region sends, and what it planted."""

    deliveries: tuple[QueueDelivery, ...]
    v1_from: date
    planted: Planted | None


def plan_queues(
    organizations: Sequence[Organization], dates: Sequence[date], *, seed: int, misbehave: bool, deadline: datetime
) -> QueuePlan:
    """The month of the region's organizations; v1 takes part in its last two thirds."""
    own = [each for each in organizations if each.source == QUEUE_REGION]
    v1_from = dates[len(dates) // 3]
    planted = _plant(own, dates[len(dates) * 2 // 3], seed) if misbehave else None
    sent: list[QueueDelivery] = []
    for on in dates if own else ():
        randomness = random.Random(f"queues:{seed}:{on.isoformat()}")
        days = tuple(live_through(each, on, seed=seed) for each in own)
        sent.extend(_runs(on, days, randomness, misbehave=misbehave))
        if on >= v1_from:
            at = _next_day(on, V1_AT)
            said = tuple(_as_v1_says(day, planted) for day in days if any(day.totals.values()))
            sent.append(QueueDelivery(at, "v1", f"v1-{on.isoformat()}", on, at, complete=True, days=said))
    due = [each for each in sent if each.at <= deadline]
    return QueuePlan(tuple(sorted(due, key=lambda each: each.at)), v1_from, planted)


def _runs(on: date, days: tuple[Day, ...], randomness: random.Random, *, misbehave: bool) -> Iterable[QueueDelivery]:
    final_at = _next_day(on, FINAL_AT)
    for hour, percent in PARTIAL_PERCENT.items():
        started = datetime.combine(on, time(hour), UTC)
        at = started + timedelta(minutes=10)
        if misbehave and randomness.random() < OVERTAKEN:
            at = final_at + timedelta(hours=7)
        seen = tuple(day.scaled(percent) for day in days)
        yield QueueDelivery(at, "v2", f"{on.isoformat()}-{hour:02}", on, started, complete=False, days=seen)
    final = QueueDelivery(final_at, "v2", f"{on.isoformat()}-final", on, final_at, complete=True, days=days)
    yield final
    if misbehave and randomness.random() < REPEATED:
        yield QueueDelivery(final_at + timedelta(hours=5), "v2", final.run_id, on, final_at, complete=True, days=days)


def _next_day(on: date, at: time) -> datetime:
    return datetime.combine(on + timedelta(days=1), at, UTC)


def _plant(own: Sequence[Organization], on: date, seed: int) -> Planted | None:
    if not own:
        return None
    organization = max(own, key=lambda each: each.appetite["recording_count_in_period"])
    true = live_through(organization, on, seed=seed).totals[PLANTED_COUNTER]
    return Planted(organization.organization_id, on, PLANTED_COUNTER, true + PLANTED_MORE, true)


def _as_v1_says(day: Day, planted: Planted | None) -> Day:
    if planted is None or (day.organization.organization_id, day.date) != (planted.organization_id, planted.date):
        return day
    first, *others = day.teams.items()
    team, counters = first
    more = {**counters, planted.counter: counters[planted.counter] + planted.v1 - planted.v2}
    return Day(day.organization, day.date, {team: more, **dict(others)})


class QueueRegion:
    """The region at work: puts files into its bucket and messages into its queues."""

    def __init__(self, *, endpoint_url: str, queue_v1: str, queue_v2: str, bucket: str, key: str, secret: str) -> None:
        self._given = {
            "endpoint_url": endpoint_url,
            "region_name": "us-east-1",
            "aws_access_key_id": key,
            "aws_secret_access_key": secret,
            "config": AioConfig(
                connect_timeout=CALL_SECONDS, read_timeout=CALL_SECONDS, s3={"addressing_style": "path"}
            ),
        }
        self._queues = {"v1": queue_v1, "v2": queue_v2}
        self._bucket = bucket
        self._open = AsyncExitStack()
        self._sqs: Any = None
        self._s3: Any = None
        self._written: set[str] = set()
        self.messages = 0
        self.runs = 0

    async def start(self) -> None:
        session = get_session()
        self._sqs = await self._open.enter_async_context(session.create_client("sqs", **self._given))
        self._s3 = await self._open.enter_async_context(session.create_client("s3", **self._given))

    async def stop(self) -> None:
        await self._open.aclose()

    async def send(self, deliveries: Iterable[QueueDelivery]) -> None:
        """Return when bucket and queues have everything."""
        for delivery in deliveries:
            if delivery.generation == "v1":
                for day in delivery.days:
                    await self._send_v1(day)
            else:
                await self._send_run(delivery)

    async def _send_v1(self, day: Day) -> None:
        packed = base64.b64encode(gzip.compress(_line(day), mtime=0)).decode()
        attributes = {
            "content_encoding": {"DataType": "String", "StringValue": "gzip"},
            "content_type": {"DataType": "String", "StringValue": "application/json"},
        }
        await self._sqs.send_message(QueueUrl=self._queues["v1"], MessageBody=packed, MessageAttributes=attributes)
        self.messages += 1

    async def _send_run(self, run: QueueDelivery) -> None:
        prefix = f"tasks/billing/usage_reports/{run.date.isoformat()}/{run.run_id}/"
        chunks = [run.days[start : start + CHUNK_LINES] for start in range(0, len(run.days), CHUNK_LINES)]
        keys = [f"{prefix}chunk_{number:05}.jsonl.gz" for number in range(len(chunks))]
        pointer: dict[str, Any] = {
            "version": 2,
            "run_id": run.run_id,
            "date": run.date.isoformat(),
            "period_start": datetime.combine(run.date, time(), UTC).isoformat(),
            "period_end": datetime.combine(run.date, time.max, UTC).isoformat(),
            "report_completeness": "complete" if run.complete else "partial",
            "region": QUEUE_REGION.upper(),
            "site_url": f"https://{QUEUE_REGION}.example.test",
            "bucket": self._bucket,
            "manifest_key": f"{prefix}manifest.json",
            "chunk_prefix": prefix,
            "chunk_count": len(keys),
            "total_orgs": len(run.days),
            "total_orgs_with_usage": sum(1 for day in run.days if any(day.totals.values())),
            "workflow_started_at": run.started.isoformat(),
        }
        if run.run_id not in self._written:
            for key, days in zip(keys, chunks, strict=True):
                await self._put(key, gzip.compress(b"".join(_line(day) + b"\n" for day in days), mtime=0))
            await self._put(pointer["manifest_key"], json.dumps({**pointer, "chunk_keys": keys}).encode())
            self._written.add(run.run_id)
            self.runs += 1
        attributes = {
            "content_type": {"DataType": "String", "StringValue": "application/json"},
            "schema_version": {"DataType": "String", "StringValue": "2"},
            "run_id": {"DataType": "String", "StringValue": run.run_id},
        }
        await self._sqs.send_message(
            QueueUrl=self._queues["v2"], MessageBody=json.dumps(pointer), MessageAttributes=attributes
        )

    async def _put(self, key: str, content: bytes) -> None:
        await self._s3.put_object(Bucket=self._bucket, Key=key, Body=content)


def _line(day: Day) -> bytes:
    report = usage_report(day)
    return json.dumps(
        {"organization_id": report["organization_id"], "usage_report": report}, separators=(",", ":")
    ).encode()

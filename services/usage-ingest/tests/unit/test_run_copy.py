"""Runs of chunk files: wherever the copying is killed, every line arrives; what is not as promised is named (L1, L4)."""

import base64
import gzip
import json
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

import pytest
from quill_contracts.intakes import DailyReport
from quill_contracts.intakes import ReportRun as WireReportRun
from quill_usage_ingest.consumers import run_copy
from quill_usage_ingest.consumers.run_copy import copy_run
from quill_usage_ingest.domain.completeness import Completeness
from quill_usage_ingest.domain.report_run import BrokenRun, ReportRun, RunPosition, check_lines
from quill_usage_ingest.wire.report_runs import InvalidPointer, from_wire_pointer

SENT = datetime(2026, 10, 6, 0, 41, tzinfo=UTC)
STARTED = datetime(2026, 10, 6, 0, 30, tzinfo=UTC)
PREFIX = "billing/usage_reports/2026-10-05/r1/"
POINTER = {
    "version": 2,
    "run_id": "r1",
    "date": "2026-10-05",
    "period_start": "2026-10-05T00:00:00Z",
    "period_end": "2026-10-05T23:59:59.999999Z",
    "report_completeness": "complete",
    "region": "EU",
    "site_url": "https://eu.example.test",
    "bucket": "reports",
    "manifest_key": PREFIX + "manifest.json",
    "chunk_prefix": PREFIX,
    "chunk_count": 2,
    "total_orgs": 5,
    "total_orgs_with_usage": 5,
    "workflow_started_at": STARTED.isoformat(),
}


def pointer(**changed: Any) -> WireReportRun:
    return WireReportRun(source="eu", sent_at=SENT, body=json.dumps({**POINTER, **changed}))


def line(number: int) -> bytes:
    return json.dumps(
        {"organization_id": f"org-{number}", "usage_report": {"date": "2026-10-05", "n": number}}
    ).encode()


CHUNKS = {PREFIX + "a.jsonl.gz": [line(1), line(2), line(3)], PREFIX + "b.jsonl.gz": [line(4), line(5)]}


class Killed(Exception):
    """The process is gone."""


@dataclass
class FakeBucket:
    """Objects in memory, handed out a few bytes at a time."""

    objects: dict[str, bytes]
    piece: int = 7

    async def pieces(self, bucket: str, key: str) -> AsyncIterator[bytes]:
        if key not in self.objects:
            raise BrokenRun("missing_object", key)
        content = self.objects[key]
        for start in range(0, len(content), self.piece):
            yield content[start : start + self.piece]


@dataclass
class Target:
    """What arrived, and where the copying was; dies at the step it is told to."""

    arrived: list[DailyReport] = field(default_factory=list)
    position: RunPosition = field(default_factory=RunPosition)
    steps_left: int = 10**9

    def _step(self) -> None:
        if self.steps_left == 0:
            raise Killed
        self.steps_left -= 1

    async def send(self, reports: list[DailyReport]) -> None:
        self._step()
        self.arrived += reports
        self._step()

    async def reached(self, position: RunPosition) -> None:
        self._step()
        self.position = position
        self._step()


def bucket(**changed: Any) -> FakeBucket:
    manifest = {**POINTER, "chunk_keys": list(CHUNKS), **changed}
    packed = {key: gzip.compress(b"\n".join(lines) + b"\n") for key, lines in CHUNKS.items()}
    return FakeBucket({POINTER["manifest_key"]: json.dumps(manifest).encode(), **packed})


RUN = from_wire_pointer(pointer())


def test_a_pointer_becomes_a_run_whose_claims_rank_by_its_start():
    assert (
        ReportRun(
            "r1",
            "eu",
            date(2026, 10, 5),
            Completeness.COMPLETE,
            STARTED,
            "reports",
            PREFIX + "manifest.json",
            PREFIX,
            2,
            5,
        )
        == RUN
    )
    assert from_wire_pointer(pointer(workflow_started_at=None)).as_of == SENT


@pytest.mark.parametrize(
    ("field_name", "value"),
    [
        ("version", 1),
        ("run_id", ""),
        ("run_id", None),
        ("date", "yesterday"),
        ("report_completeness", "corrected"),
        ("region", "a b"),
        ("bucket", 7),
        ("chunk_count", -1),
        ("chunk_count", 2**70),
        ("workflow_started_at", "2026-10-06T00:30:00"),
    ],
)
def test_a_pointer_that_makes_no_sense_names_the_field(field_name, value):
    with pytest.raises(InvalidPointer, match=field_name) as refused:
        from_wire_pointer(pointer(**{field_name: value}))
    assert refused.value.attribute == field_name


@pytest.mark.parametrize("missing", ["version", "run_id", "date", "report_completeness", "manifest_key", "total_orgs"])
def test_a_pointer_that_lacks_a_field_names_it(missing):
    body = json.dumps({name: value for name, value in POINTER.items() if name != missing})
    with pytest.raises(InvalidPointer) as refused:
        from_wire_pointer(WireReportRun(source="eu", sent_at=SENT, body=body))
    assert refused.value.attribute == missing


@pytest.mark.parametrize("body", ["", "%%%", "[]", "[" * 100_000, '{"version": NaN}'])
def test_a_pointer_that_is_no_json_object_is_to_blame_itself(body):
    with pytest.raises(InvalidPointer) as refused:
        from_wire_pointer(WireReportRun(source="eu", sent_at=SENT, body=body))
    assert refused.value.attribute == "body"


async def test_every_line_arrives_as_it_was_with_its_place():
    target = Target()
    assert await copy_run(RUN, RunPosition(), bucket=bucket(), target=target) == 5
    assert [(each.body.encode(), each.chunk_key, each.line) for each in target.arrived] == [
        (content, key, number) for key, lines in CHUNKS.items() for number, content in enumerate(lines, start=1)
    ]
    assert {(each.source, each.as_of, each.completeness, each.run_id) for each in target.arrived} == {
        ("eu", STARTED, "complete", "r1")
    }
    assert target.position == RunPosition(2, 0)


@pytest.mark.parametrize("batch", [1, 2, 3, 200])
async def test_killed_at_any_step_it_goes_on_where_it_was_and_loses_nothing(monkeypatch, batch):
    monkeypatch.setattr(run_copy, "BATCH_LINES", batch)
    for steps in range(30):
        target = Target(steps_left=steps)
        for _ in range(40):
            try:
                await copy_run(RUN, target.position, bucket=bucket(), target=target)
                break
            except Killed:
                target.steps_left = 1 + steps % 5 + 2
        else:
            pytest.fail("it never came to the end")
        assert {each.body.encode() for each in target.arrived} == {line(number) for number in range(1, 6)}
        again = await copy_run(RUN, target.position, bucket=bucket(), target=Target())
        assert again == 0


@pytest.mark.parametrize(
    ("changed", "code", "attribute"),
    [
        ({"run_id": "r2"}, "wrong_manifest", "run_id"),
        ({"date": "2026-10-04"}, "wrong_manifest", "date"),
        ({"report_completeness": "partial"}, "wrong_manifest", "report_completeness"),
        ({"chunk_keys": [PREFIX + "a.jsonl.gz"]}, "wrong_manifest", "chunk_count"),
        ({"chunk_keys": [PREFIX + "a.jsonl.gz", PREFIX + "a.jsonl.gz"]}, "wrong_manifest", "chunk_keys"),
        ({"chunk_keys": ["elsewhere/a.jsonl.gz", PREFIX + "b.jsonl.gz"]}, "wrong_manifest", "chunk_keys"),
        ({"chunk_keys": [PREFIX + "a.jsonl.gz", PREFIX + "c.jsonl.gz"]}, "missing_object", "chunk_keys"),
        ({"total_orgs": 6}, "wrong_manifest", "total_orgs"),
        ({"chunk_keys": "a"}, "wrong_manifest", "chunk_keys"),
        ({"total_orgs": 2**70}, "wrong_manifest", "total_orgs"),
        ({"total_orgs": 5.5}, "wrong_manifest", "total_orgs"),
    ],
)
async def test_a_manifest_that_is_not_as_promised_is_named(changed, code, attribute):
    with pytest.raises(BrokenRun) as broken:
        await copy_run(RUN, RunPosition(), bucket=bucket(**changed), target=Target())
    assert (broken.value.code, broken.value.attribute) == (code, attribute)


@pytest.mark.parametrize("content", [b"", b"not json", b"[" * 100_000, b"[]", b"\xff\xfe", b'{"total_orgs": NaN}'])
async def test_a_manifest_that_cannot_be_read_is_to_blame_itself(content):
    unreadable = bucket()
    unreadable.objects[POINTER["manifest_key"]] = content
    with pytest.raises(BrokenRun) as broken:
        await copy_run(RUN, RunPosition(), bucket=unreadable, target=Target())
    assert (broken.value.code, broken.value.attribute) == ("wrong_manifest", "manifest_key")


async def test_a_missing_manifest_is_named():
    empty = bucket()
    del empty.objects[POINTER["manifest_key"]]
    with pytest.raises(BrokenRun) as broken:
        await copy_run(RUN, RunPosition(), bucket=empty, target=Target())
    assert (broken.value.code, broken.value.attribute) == ("missing_object", "manifest_key")


async def test_empty_lines_without_an_end_are_not_counted_to_the_end():
    """A few kilobytes open to fifty million line ends."""
    bomb, target = bucket(), Target()
    bomb.objects[PREFIX + "b.jsonl.gz"] = gzip.compress(b"\n" * 50_000_000)
    bomb.piece = 1_024
    with pytest.raises(BrokenRun) as broken:
        await copy_run(RUN, RunPosition(), bucket=bomb, target=target)
    assert (broken.value.code, broken.value.attribute, len(target.arrived)) == ("wrong_line_count", "total_orgs", 3)


def test_chunks_that_lack_an_organization_are_named():
    check_lines(5, RUN)
    for lines in (0, 4, 6):
        with pytest.raises(BrokenRun, match="total_orgs"):
            check_lines(lines, RUN)


@pytest.mark.parametrize(
    ("content", "code", "arrived"),
    [
        (b"plain text", "bad_gzip", 3),
        (gzip.compress(line(4) + b"\n" + line(5) * 50)[:-12], "truncated_gzip", 3),
        (gzip.compress(line(4))[:5], "truncated_gzip", 3),
    ],
)
async def test_a_broken_chunk_is_named_and_what_came_before_it_stays_sent(content, code, arrived):
    broken_bucket, target = bucket(), Target()
    broken_bucket.objects[PREFIX + "b.jsonl.gz"] = content
    with pytest.raises(BrokenRun) as broken:
        await copy_run(RUN, RunPosition(), bucket=broken_bucket, target=target)
    assert (broken.value.code, len(target.arrived)) == (code, arrived)
    assert target.position.chunk == 1
    assert await copy_run(RUN, target.position, bucket=bucket(), target=target) == 2


async def test_chunks_of_several_gzip_members_and_without_a_last_newline_are_read_whole():
    several, target = bucket(), Target()
    several.objects[PREFIX + "b.jsonl.gz"] = gzip.compress(line(4)[:9]) + gzip.compress(line(4)[9:] + b"\n" + line(5))
    await copy_run(RUN, RunPosition(), bucket=several, target=target)
    assert [each.body.encode() for each in target.arrived[3:]] == [line(4), line(5)]


async def test_long_lines_travel_packed_and_lines_that_are_no_text_stay_what_they_were():
    odd, target = bucket(), Target()
    long_line, no_text = b'{"x":"' + b"y" * 300_000 + b'"}', b"\xff\xfe"
    odd.objects[PREFIX + "b.jsonl.gz"] = gzip.compress(long_line + b"\n" + no_text)
    odd.piece = 4_096
    await copy_run(RUN, RunPosition(), bucket=odd, target=target)
    assert [(each.encoding, gzip.decompress(base64.b64decode(each.body))) for each in target.arrived[3:]] == [
        ("base64-gzip", long_line),
        ("base64-gzip", no_text),
    ]


async def test_a_line_without_an_end_is_not_held_for_ever(monkeypatch):
    monkeypatch.setattr(run_copy, "LINE_BYTES_MAX", 1_000_000)
    bomb = bucket()
    bomb.objects[PREFIX + "b.jsonl.gz"] = gzip.compress(b" " * 50_000_000)
    bomb.piece = 1_024
    with pytest.raises(BrokenRun, match="longer than") as broken:
        await copy_run(RUN, RunPosition(), bucket=bomb, target=Target())
    assert broken.value.code == "line_too_long"


async def test_memory_does_not_grow_with_the_chunk():
    """Sixty megabytes of lines, of which the copying holds a batch at a time."""
    big, target = bucket(total_orgs=5_003), Target()
    body = b'{"organization_id":"o","usage_report":{"padding":"' + b"x" * 12_000 + b'"}}\n'
    big.objects[PREFIX + "b.jsonl.gz"] = gzip.compress(body * 5_000, compresslevel=1)
    big.piece = 262_144
    counted = 0

    async def forget(reports: list[DailyReport]) -> None:
        nonlocal counted
        counted += len(reports)

    target.send = forget  # type: ignore[method-assign]
    tracemalloc.start()
    try:
        await copy_run(replace(RUN, organizations=5_003), RunPosition(), bucket=big, target=target)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert counted == 5_003
    assert peak < 20_000_000

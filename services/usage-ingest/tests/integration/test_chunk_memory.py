"""A gibibyte of chunk files is copied within bounded memory.

This is the copy stage, from the bucket to records ready for Kafka. The whole path, with Kafka, cells and snapshots, is
tested with thousands of lines in `test_intake_crashes.py`; a gibibyte through all of it is not measured yet.
"""

import asyncio
import gzip
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(480)]

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
YESTERDAY = TODAY - timedelta(days=1)
CHUNKS, LINES = 16, 3_200
TEAMS = 400
GIBIBYTE = 1024**3
PEAK_BYTES_MAX = 256 * 1024**2
"""The interpreter with its libraries takes a good 100 MiB; a batch of 8 MiB is held as text, record and packed."""


def chunk(number: int) -> bytes:
    """Reports of 400 teams each, about 21 KB a line, 65 MiB in all."""
    teams = {str(team): {"event_count_in_period": team, "recording_count_in_period": 1} for team in range(TEAMS)}
    report = {"date": YESTERDAY.date().isoformat(), "event_count_in_period": 79_800, "teams": teams}
    tail = orjson.dumps(report)
    lines = (
        b'{"organization_id":"org-%08d","usage_report":%s}\n' % (number * LINES + line, tail) for line in range(LINES)
    )
    return gzip.compress(b"".join(lines), compresslevel=1)


async def test_a_gibibyte_of_chunks_is_copied_within_bounded_memory(region):
    packed = chunk(0)
    opened_bytes = CHUNKS * len(gzip.decompress(packed))
    assert opened_bytes >= GIBIBYTE
    pointer = await region.write_run("big", day=YESTERDAY, started=TODAY, chunks=[[]] * CHUNKS)
    pointer["total_orgs"] = CHUNKS * LINES
    keys = [f"{pointer['chunk_prefix']}chunk_{number:04d}.jsonl.gz" for number in range(CHUNKS)]
    await region.put(pointer["manifest_key"], orjson.dumps({**pointer, "chunk_keys": keys}))
    for key in keys:
        await region.put(key, packed)
    script = Path(__file__).with_name("copy_process.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, script, region.address, json.dumps(pointer), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    found = json.loads(said)
    assert found["lines"] == CHUNKS * LINES
    assert found["bytes"] > opened_bytes, "every byte was on its way to Kafka"
    assert found["peak_bytes"] < PEAK_BYTES_MAX

"""A process of its own that copies one run from a bucket and says how much memory it took at most.

``python copy_process.py <endpoint> <pointer as JSON>`` prints ``{"lines", "bytes", "peak_bytes"}``. The target serializes
every line as the worker does, and counts.
"""

import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from quill_contracts.intakes import DailyReport
from quill_contracts.intakes import ReportRun as WireReportRun
from quill_usage_ingest.consumers.run_copy import copy_run
from quill_usage_ingest.domain.report_run import RunPosition
from quill_usage_ingest.gateways import bucket
from quill_usage_ingest.wire.report_runs import from_wire_pointer


class Counting:
    """Where the lines go."""

    lines = 0
    bytes = 0

    async def send(self, reports: list[DailyReport]) -> None:
        records = [report.to_bytes() for report in reports]
        self.lines += len(records)
        self.bytes += sum(map(len, records))

    async def reached(self, position: RunPosition) -> None:
        """Nobody asks."""


async def copy(endpoint: str, pointer: str) -> dict[str, int]:
    run = from_wire_pointer(WireReportRun(source="eu", sent_at=datetime.now(UTC), body=pointer))
    target = Counting()
    async with bucket.opened(endpoint_url=endpoint, region="us-east-1") as objects:
        await copy_run(run, RunPosition(), bucket=objects, target=target)
    return {"lines": target.lines, "bytes": target.bytes, "peak_bytes": peak_bytes()}


def peak_bytes() -> int:
    """The most this process ever had in memory. ``getrusage`` would count what its parent had before the exec."""
    status = Path("/proc/self/status").read_text("ascii")
    (kibibytes,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(kibibytes) * 1024


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(copy(sys.argv[1], sys.argv[2]))))

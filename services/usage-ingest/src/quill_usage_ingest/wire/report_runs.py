"""Pointers and manifests of generation v2, and the lines of their chunks."""

import base64
import gzip
import re
from datetime import date, datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct
from quill_contracts.intakes import DailyReport
from quill_contracts.intakes import ReportRun as WireReportRun

from quill_usage_ingest.domain.completeness import Completeness
from quill_usage_ingest.domain.report_run import BrokenRun, Manifest, ReportRun

PLAIN_LINE_BYTES_MAX: Final = 256 * 1024
"""Longer lines travel packed."""

_FIELD: Final = re.compile(r"at `\$\.(\w+)|required field `(\w+)`")

_Text = Annotated[str, Meta(min_length=1, max_length=1_024)]


class _Pointer(Struct, frozen=True):
    version: Literal[2]
    run_id: Annotated[str, Meta(min_length=1, max_length=200)]
    date: date
    report_completeness: Literal["partial", "complete"]
    region: Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_.:-]+\Z")]
    bucket: _Text
    manifest_key: _Text
    chunk_prefix: _Text
    chunk_count: Annotated[int, Meta(ge=0, le=100_000)]
    total_orgs: Annotated[int, Meta(ge=0)]
    workflow_started_at: Annotated[datetime, Meta(tz=True)] | None = None


class _Manifest(Struct, frozen=True):
    run_id: str
    date: date
    report_completeness: Literal["partial", "complete"]
    chunk_keys: Annotated[list[_Text], Meta(max_length=100_000)]
    total_orgs: int


class InvalidPointer(ValueError):
    """The pointer makes no sense; ``attribute`` is the field, ``body`` when it is no JSON object."""

    def __init__(self, detail: str, attribute: str = "body") -> None:
        super().__init__(detail)
        self.attribute = attribute


def from_wire_pointer(wire: WireReportRun) -> ReportRun:
    """The run that a pointer tells of; a source is its region's name in lower case.

    Raises:
        InvalidPointer: naming the field.
    """
    try:
        pointer = msgspec.json.decode(wire.body.encode(), type=_Pointer)
    except (ValueError, RecursionError) as error:
        raise InvalidPointer(f"body: {error}", _field_in(error) or "body") from error
    return ReportRun(
        run_id=pointer.run_id,
        source=pointer.region.lower(),
        date=pointer.date,
        completeness=Completeness(pointer.report_completeness),
        as_of=pointer.workflow_started_at or wire.sent_at,
        bucket=pointer.bucket,
        manifest_key=pointer.manifest_key,
        chunk_prefix=pointer.chunk_prefix,
        chunk_count=pointer.chunk_count,
        organizations=pointer.total_orgs,
    )


def from_wire_manifest(body: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        BrokenRun: naming the field.
    """
    try:
        wire = msgspec.json.decode(body, type=_Manifest)
    except (ValueError, RecursionError) as error:
        detail = f"the manifest cannot be read: {error}"
        raise BrokenRun("wrong_manifest", detail, _field_in(error) or "manifest_key") from error
    return Manifest(
        wire.run_id, wire.date, Completeness(wire.report_completeness), tuple(wire.chunk_keys), wire.total_orgs
    )


def to_wire_daily_report(line: bytes, run: ReportRun, *, chunk_key: str, number: int) -> DailyReport:
    """A line of a chunk, as it was, on its way to the consumer that reads it."""
    is_plain = len(line) <= PLAIN_LINE_BYTES_MAX and _is_text(line)
    return DailyReport(
        generation="v2",
        source=run.source,
        as_of=run.as_of,
        completeness="complete" if run.completeness is Completeness.COMPLETE else "partial",
        encoding="identity" if is_plain else "base64-gzip",
        body=line.decode() if is_plain else base64.b64encode(gzip.compress(line, mtime=0)).decode(),
        run_id=run.run_id,
        chunk_key=chunk_key,
        line=number,
    )


def _field_in(error: Exception) -> str | None:
    """The field that a decoder's text names: ``… - at `$.date` ``, or ``… required field `date` ``."""
    found = _FIELD.search(str(error))
    return found[1] or found[2] if found else None


def _is_text(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True

"""PostHog's daily reports as a queue or a chunk file holds them: opened within bounds, read as claims."""

import base64
import binascii
import gzip
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
from quill_contracts.intakes import DailyReport as QueuedReport
from quill_contracts.licenses import LicenseType

from quill_usage_ingest.domain.completeness import Completeness
from quill_usage_ingest.domain.usage_report import UsageReport
from quill_usage_ingest.wire.daily_reports import InvalidDailyReport, from_wire_daily_report, to_usage_report

OPENED_BYTES_MAX: Final = 64 * 1024 * 1024
"""What a packed body may grow to: ten times the largest honest report, and a thousandth of a bomb."""
INTAKES: Final = {"v1": "queue-v1", "v2": "bucket-v2"}
PLAIN_BYTES_MAX: Final = 16 * 1024
"""A longer body travels packed."""
_GZIP: Final = 16 + zlib.MAX_WBITS


@dataclass(frozen=True, slots=True)
class ReadReport:
    """What a queued report claims, the fields of its report, its bytes once opened, and what to note of it."""

    report: UsageReport
    fields: Mapping[str, Any]
    body: bytes
    note: dict[str, Any]


def read_queued_report(queued: QueuedReport, metered_counters: Collection[str]) -> ReadReport:
    """Open a body and read the claim in it.

    Its as-of instant is its carrier's, not its arrival, so that a redelivery is the same claim.

    Raises:
        InvalidDailyReport: naming the field.
    """
    body, fields = opened_report(queued)
    daily = from_wire_daily_report(msgspec.json.encode(fields, order="deterministic"))
    report, left_out = to_usage_report(
        daily,
        source=queued.source,
        metered_counters=metered_counters,
        now=queued.as_of,
        completeness=Completeness(queued.completeness) if queued.completeness else None,
    )
    carrier = {"run_id": queued.run_id, "chunk_key": queued.chunk_key, "line": queued.line}
    note = {**(left_out or {}), **{name: value for name, value in carrier.items() if value is not None}}
    return ReadReport(report, fields, body, note)


def opened_report(queued: QueuedReport) -> tuple[bytes, dict[str, Any]]:
    """The bytes of a body, opened, and the fields of the report in it, with its organization.

    Raises:
        InvalidDailyReport: it cannot be opened, or is no report.
    """
    body = _opened(queued)
    if queued.license_id is not None:
        return body, dict(from_wire_daily_report(body).fields)
    try:
        carried = msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise InvalidDailyReport("not_json", f"body: is not JSON: {error}", "body") from error
    if not isinstance(carried, dict) or not isinstance(carried.get("usage_report"), dict):
        raise InvalidDailyReport("required", "usage_report: must be an object", "usage_report")
    return body, _whole(carried)


def to_queued_report(body: bytes, report: UsageReport, *, license_id: str, license_type: LicenseType) -> QueuedReport:
    """A license's report on its way to the log, with what was read of it when it arrived."""
    is_plain = len(body) <= PLAIN_BYTES_MAX
    return QueuedReport(
        generation="v1",
        source=report.source,
        as_of=report.as_of,
        completeness=report.completeness.value,
        encoding="identity" if is_plain else "base64-gzip",
        body=body.decode() if is_plain else base64.b64encode(gzip.compress(body, mtime=0)).decode(),
        license_id=license_id,
        license_type=license_type,
    )


def intake_of(queued: QueuedReport) -> str:
    """How it reached us, as the kept report tells."""
    return INTAKES[queued.generation] if queued.license_id is None else "http"


def daily_report_of(
    queued: QueuedReport, metered_counters: Collection[str], now: datetime
) -> tuple[UsageReport, Mapping[str, Any]]:
    """The claim and the fields, as the teams' consumer asks for them."""
    del now
    read = read_queued_report(queued, metered_counters)
    return read.report, read.fields


def _whole(carried: Mapping[str, Any]) -> dict[str, Any]:
    """The report with the organization that its carrier names; the two must not disagree."""
    fields = dict(carried["usage_report"])
    named = carried.get("organization_id", fields.get("organization_id"))
    if fields.get("organization_id", named) != named:
        detail = "organization_id: the message names another organization than its report"
        raise InvalidDailyReport("invalid_input", detail, "organization_id")
    fields["organization_id"] = named
    return fields


def _opened(queued: QueuedReport) -> bytes:
    if queued.encoding == "identity":
        return queued.body.encode()
    try:
        packed = base64.b64decode(queued.body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidDailyReport("bad_base64", f"body: is not base64: {error}", "body") from error
    opening = zlib.decompressobj(_GZIP)
    try:
        body = opening.decompress(packed, OPENED_BYTES_MAX)
    except zlib.error as error:
        raise InvalidDailyReport("bad_gzip", f"body: is not gzip: {error}", "body") from error
    if opening.unconsumed_tail:
        raise InvalidDailyReport("too_large", f"body: opens to more than {OPENED_BYTES_MAX} bytes", "body")
    if not opening.eof:
        raise InvalidDailyReport("truncated_gzip", "body: the gzip stream ends too early", "body")
    return body

"""Whose report a dead letter is, as far as its bytes still say."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from pydantic import ValidationError
from quill_contracts.intakes import DailyReport, ReportRun
from quill_contracts.topics import DAILY_REPORTS, METER_EVENTS, REPORT_RUNS, USAGE_REPORTS

from quill_usage_ingest.wire.daily_reports import InvalidDailyReport
from quill_usage_ingest.wire.queued_reports import opened_report
from quill_usage_ingest.wire.report_runs import InvalidPointer, from_wire_pointer

_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,200}")
_NOTHING: Final[Mapping[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class ParkedReport:
    """What could be read; None is what could not."""

    source: str | None = None
    organization_id: str | None = None
    window_start: datetime | None = None


def read_parked_report(topic: str, key: bytes | None, value: bytes | None) -> ParkedReport:
    """Read as much of a parked record as can be read; never fails."""
    if topic == USAGE_REPORTS.name:
        return _native(key, value or b"", organization="organization_id", begun="window_start")
    if topic == METER_EVENTS.name:
        return _native(key, value or b"", organization="subject", begun="time")
    try:
        if topic == DAILY_REPORTS.name:
            return _daily(DailyReport.from_bytes(value or b""))
        if topic == REPORT_RUNS.name:
            return _run(ReportRun.from_bytes(value or b""))
    except ValidationError:
        pass
    return ParkedReport()


def _native(key: bytes | None, value: bytes, *, organization: str, begun: str) -> ParkedReport:
    try:
        read = msgspec.json.decode(value)
    except (ValueError, RecursionError):
        read = None
    fields = read if isinstance(read, dict) else _NOTHING
    return ParkedReport(
        _name(fields.get("source")),
        _name(fields.get(organization)) or _name((key or b"").decode("utf-8", "replace")),
        _instant(fields.get(begun)),
    )


def _daily(daily: DailyReport) -> ParkedReport:
    try:
        _, fields = opened_report(daily)
    except InvalidDailyReport:
        return ParkedReport(daily.source)
    period = fields.get("period")
    begun = period.get("start_inclusive") if isinstance(period, dict) else None
    day = fields.get("date")
    return ParkedReport(
        daily.source,
        _name(fields.get("organization_id")),
        _instant(begun if day is None else f"{day}T00:00:00+00:00"),
    )


def _run(run: ReportRun) -> ParkedReport:
    try:
        read = from_wire_pointer(run)
    except InvalidPointer:
        return ParkedReport(run.source)
    return ParkedReport(read.source, None, datetime(read.date.year, read.date.month, read.date.day, tzinfo=UTC))


def _name(given: object) -> str | None:
    return given if isinstance(given, str) and _NAME.fullmatch(given) else None


def _instant(given: object) -> datetime | None:
    if not isinstance(given, str):
        return None
    try:
        instant = datetime.fromisoformat(given)
    except ValueError:
        return None
    # Another offset is refused anyway; what a parked report may mean is not guessed at.
    return instant if instant.utcoffset() == timedelta(0) else None

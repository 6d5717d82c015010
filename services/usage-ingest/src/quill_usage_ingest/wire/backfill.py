"""Reports from a file: native ones, or ``{organization_id, usage_report}`` as in PostHog's queue and chunk files."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw, Struct
from pydantic import ValidationError

from quill_usage_ingest.domain.usage_book import Refusal
from quill_usage_ingest.domain.usage_report import UsageReport
from quill_usage_ingest.wire.daily_reports import InvalidDailyReport, from_wire_daily_report, to_usage_report
from quill_usage_ingest.wire.usage_reports import UnstorableText, from_wire_usage_report

REPORTS_MAX: Final = 500


class BackfillAsked(Struct, frozen=True, forbid_unknown_fields=True):
    """A batch. ``source``, ``day`` and ``as_of`` complete PostHog's lines; a native line must agree with the first two.

    ``as_of`` stays the same when a file is sent again, so that a repeat is a repeat; absent, it is the arrival.
    """

    reports: Annotated[list[Raw], Meta(min_length=1, max_length=REPORTS_MAX)]
    dry_run: bool = False
    source: Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_.:-]+\Z")] | None = None
    day: date | None = None
    as_of: Annotated[datetime, Meta(tz=True)] | None = None


class InvalidBackfill(ValueError):
    """The batch as a whole cannot be read."""


@dataclass(frozen=True, slots=True)
class BackfillLine:
    """A line that was read: its report, its exact bytes, and what was left out of it."""

    report: UsageReport
    body: bytes
    note: dict[str, Any] | None = None


def from_wire_backfill(body: bytes) -> BackfillAsked:
    """Read a batch as far as its lines.

    Raises:
        InvalidBackfill: naming the field.
    """
    try:
        return msgspec.json.decode(body, type=BackfillAsked)
    except (ValueError, RecursionError) as error:
        raise InvalidBackfill(f"body: {error}") from error


def from_wire_backfill_line(
    line: Raw, asked: BackfillAsked, *, metered_counters: Collection[str], now: datetime
) -> BackfillLine | Refusal:
    """The report of a line, or why it cannot be read: one bad line does not hold the others up (L4)."""
    body = bytes(line)
    try:
        fields = msgspec.json.decode(body)
        if isinstance(fields, dict) and "usage_report" in fields:
            return _daily(fields, body, asked, metered_counters=metered_counters, now=now)
        report = from_wire_usage_report(body)
    except InvalidDailyReport as error:
        return Refusal(error.code, str(error), error.attribute or "", "")
    except UnstorableText as error:
        return Refusal("invalid_input", str(error), error.attribute, "")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        attribute = "__".join(str(part) for part in first["loc"])
        return Refusal("invalid_input", f"{attribute or 'line'}: {first['msg']}", attribute, "")
    except (ValueError, RecursionError) as error:
        return Refusal("not_json", f"the line cannot be read: {error}", "", "")
    return _agreeing(report, asked) or BackfillLine(report, body)


def _daily(
    fields: dict[str, Any], body: bytes, asked: BackfillAsked, *, metered_counters: Collection[str], now: datetime
) -> BackfillLine | Refusal:
    if asked.source is None:
        return Refusal("required", "source: a line of PostHog's shape needs --source", "source", "")
    usage_report = fields["usage_report"]
    if not isinstance(usage_report, dict):
        return Refusal("invalid_input", "usage_report: must be an object", "usage_report", "")
    whole = {**usage_report, "organization_id": fields.get("organization_id", usage_report.get("organization_id"))}
    if asked.day is not None and "date" not in whole and "period" not in whole:
        whole["date"] = asked.day.isoformat()
    daily = from_wire_daily_report(msgspec.json.encode(whole, order="deterministic"))
    report, note = to_usage_report(
        daily, source=asked.source, metered_counters=metered_counters, now=asked.as_of or now
    )
    return _agreeing(report, asked) or BackfillLine(report, body, note)


def _agreeing(report: UsageReport, asked: BackfillAsked) -> Refusal | None:
    if asked.source is not None and report.source != asked.source:
        detail = f"source: the line is of {report.source}, the backfill of {asked.source}"
        return Refusal("another_source", detail, "source", report.organization_id)
    if asked.day is not None and report.window.day.date() != asked.day:
        detail = f"window_start: the line is of {report.window.day.date()}, the backfill of {asked.day}"
        return Refusal("another_day", detail, "window_start", report.organization_id)
    return None

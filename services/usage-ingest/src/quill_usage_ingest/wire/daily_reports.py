"""PostHog's daily usage report, as its instances send it to ``POST /api/usage`` (wire contract 5).

Which of its fields are counters: every top-level field whose name ends in ``_in_period``, and every field that the
catalog names as the counter of a meter. All else describes the instance and is only kept with the raw report. A
catalogued counter that arrives as a fraction (storage in MiB) cannot be a cell, since quantities are integers (L11); it
is left out and noted.
"""

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import msgspec
from quill_runtime.auth import CLOCK_LEEWAY

from quill_usage_ingest.domain.completeness import Completeness, completeness_of_window
from quill_usage_ingest.domain.usage_report import DAY, QUANTITY_MAX, UsageReport, UsageWindow

COUNTER_SUFFIX: Final = "_in_period"
COUNTERS_MAX: Final = 1_000
COUNTER_NAME_MAX: Final = 200
TEAMS_MAX: Final = 100_000
_ORGANIZATION_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,200}\Z")
"""As in the contract: no customer can have another id, so such a report would wait for ever."""
_LAST_INSTANT: Final = timedelta(microseconds=1)


class InvalidDailyReport(ValueError):
    """A field of the report is wrong.

    Args:
        code: ``not_json``, ``required`` or ``invalid_input``.
        detail: for people, naming the field.
        attribute: the field, nested names joined with two underscores.
    """

    def __init__(self, code: str, detail: str, attribute: str | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.attribute = attribute


@dataclass(frozen=True, slots=True)
class DailyReport:
    """A body that is JSON and an object, with the organization it names; nothing else was looked at yet."""

    body: bytes
    fields: Mapping[str, Any]
    organization_id: str


def from_wire_daily_report(body: bytes) -> DailyReport:
    """Read the body as far as it takes to see whose report it is.

    Raises:
        InvalidDailyReport: not JSON, not an object, or without ``organization_id``.
    """
    try:
        fields = msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise InvalidDailyReport("not_json", f"the body is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise InvalidDailyReport("invalid_input", "the body must be a JSON object")
    organization_id = fields.get("organization_id")
    if organization_id is None:
        raise InvalidDailyReport("required", "organization_id: this field is required", "organization_id")
    if not isinstance(organization_id, str):
        raise InvalidDailyReport("invalid_input", "organization_id: must be a string", "organization_id")
    if not _ORGANIZATION_ID.match(organization_id):
        detail = "organization_id: must be 1 to 200 letters, digits, or any of _.:-"
        raise InvalidDailyReport("invalid_input", detail, "organization_id")
    return DailyReport(body, fields, organization_id)


def to_usage_report(
    daily: DailyReport,
    *,
    source: str,
    metered_counters: Collection[str],
    now: datetime,
    completeness: Completeness | None = None,
) -> tuple[UsageReport, dict[str, Any] | None]:
    """The report as a claim, with a note of what was left out.

    It says neither when it was counted nor whether the day is over. So its as-of instant is ``now``, its arrival: a
    later report for the day replaces an earlier one, as PostHog expects. And it is complete once its day has ended,
    unless its carrier says otherwise by ``completeness``.

    Raises:
        InvalidDailyReport: naming the field.
    """
    window = _window(daily.fields)
    # A sender whose clock is a little fast reports its new day before ours begins.
    if window.start > now + CLOCK_LEEWAY:
        raise InvalidDailyReport("invalid_input", f"{_DATE_FIELD}: the day has not begun yet", _DATE_FIELD)
    counters, left_out = _counters(daily.fields, metered_counters)
    _check_teams(daily.fields.get("teams"))
    # The same bytes at another instant are another claim: what was partial at noon is complete on the day after.
    said = completeness or completeness_of_window(window_end=window.end, now=now)
    content_hash = hashlib.sha256(daily.body + f"{now.isoformat()} {said}".encode()).digest()
    report = UsageReport(
        report_id=f"daily:{window.start.date().isoformat()}:{content_hash.hex()[:32]}",
        organization_id=daily.organization_id,
        source=source,
        window=window,
        completeness=said,
        as_of=now,
        counters=counters,
        content_hash=content_hash,
    )
    return report, {"left_out_not_integer": left_out} if left_out else None


_DATE_FIELD: Final = "date"


def _window(fields: Mapping[str, Any]) -> UsageWindow:
    """The UTC day, from ``period``, ``date`` or both if they agree."""
    days: list[UsageWindow] = []
    if (named := fields.get(_DATE_FIELD)) is not None:
        days.append(_day_of_date(named))
    if (period := fields.get("period")) is not None:
        days.append(_day_of_period(period))
    if not days:
        raise InvalidDailyReport("required", "date: give the day as date, or as period", _DATE_FIELD)
    if days[0] != days[-1]:
        raise InvalidDailyReport("invalid_input", "date: is another day than period.start_inclusive", _DATE_FIELD)
    return days[0]


def _day_of_date(named: object) -> UsageWindow:
    try:
        day = date.fromisoformat(named)  # type: ignore[arg-type]
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        return UsageWindow(start, start + DAY)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidDailyReport("invalid_input", "date: must be a day like 2026-10-05", _DATE_FIELD) from error


def _day_of_period(period: object) -> UsageWindow:
    if not isinstance(period, dict):
        raise InvalidDailyReport("invalid_input", "period: must be an object", "period")
    start = _instant(period, "start_inclusive")
    end = _instant(period, "end_inclusive")
    if start != datetime(start.year, start.month, start.day, tzinfo=UTC):
        raise InvalidDailyReport(
            "invalid_input", "period__start_inclusive: must be midnight UTC", "period__start_inclusive"
        )
    if not start < end <= start + DAY - _LAST_INSTANT:
        raise InvalidDailyReport(
            "invalid_input", "period__end_inclusive: must be in the same UTC day as the start", "period__end_inclusive"
        )
    return UsageWindow(start, start + DAY)


def _instant(period: Mapping[str, Any], name: str) -> datetime:
    attribute = f"period__{name}"
    given = period.get(name)
    if given is None:
        raise InvalidDailyReport("required", f"{attribute}: this field is required", attribute)
    wrong = InvalidDailyReport("invalid_input", f"{attribute}: must be an instant in UTC with its offset", attribute)
    try:
        instant = datetime.fromisoformat(given)
    except (TypeError, ValueError, OverflowError) as error:
        raise wrong from error
    if instant.utcoffset() != timedelta(0):
        raise wrong
    return instant.astimezone(UTC)


def _counters(fields: Mapping[str, Any], metered: Collection[str]) -> tuple[dict[str, int], list[str]]:
    counters: dict[str, int] = {}
    left_out: list[str] = []
    for name, given in fields.items():
        if name.endswith(COUNTER_SUFFIX):
            counters[name] = _quantity(given, attribute=name)
        elif name in metered:
            if isinstance(given, float):
                left_out.append(name)
            else:
                counters[name] = _quantity(given, attribute=name)
    if len(counters) > COUNTERS_MAX:
        raise InvalidDailyReport("invalid_input", f"the report has more than {COUNTERS_MAX} counters")
    return counters, left_out


def _check_teams(teams: object) -> None:
    """Team counters stay in the raw report and obey the same rules, so that nobody finds nonsense there later."""
    if teams is None:
        return
    if not isinstance(teams, dict) or len(teams) > TEAMS_MAX:
        raise InvalidDailyReport("invalid_input", "teams: must be an object of counters by team id", "teams")
    for team_id, counters in teams.items():
        if not isinstance(counters, dict):
            raise InvalidDailyReport("invalid_input", f"teams__{team_id}: must be an object", f"teams__{team_id}")
        for name, given in counters.items():
            if name.endswith(COUNTER_SUFFIX):
                _quantity(given, attribute=f"teams__{team_id}__{name}")


def _quantity(given: object, *, attribute: str) -> int:
    if len(attribute) > COUNTER_NAME_MAX or "\x00" in attribute:
        named = attribute[:COUNTER_NAME_MAX].replace("\x00", "\\0")
        raise InvalidDailyReport("invalid_input", f"{named}: is no counter name", named)
    if type(given) is not int or not 0 <= given <= QUANTITY_MAX:
        detail = f"{attribute}: must be an integer from 0 to {QUANTITY_MAX}"
        raise InvalidDailyReport("invalid_input", detail, attribute)
    return given

"""PostHog's usage query and its answer (wire contract 1.3). Lists come as JSON texts in GET, as themselves in POST."""

import base64
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

import msgspec

from quill_usage_ingest.domain.usage_report import DAY
from quill_usage_ingest.domain.usage_series import SeriesInterval, SeriesPoint, SeriesSpan
from quill_usage_ingest.domain.usage_types import COUNTER_BY_USAGE_TYPE

RANGE_DAYS_MAX: Final = 366
"""A year, also one with a 29 February in it."""
PAGE_SIZE_MAX: Final = 10_000
LIST_MAX: Final = 10_000
_BREAKDOWNS: Final = ((), ("type",), ("type", "team"))
_CURSOR_BYTES_MAX: Final = 2_000


class InvalidUsageQuery(ValueError):
    """A parameter is wrong.

    Args:
        code: ``required``, ``invalid_input``, ``invalid_choice`` or ``usage_date_range_too_long``.
        detail: for people, naming the parameter.
        attribute: the parameter.
    """

    def __init__(self, code: str, detail: str, attribute: str) -> None:
        super().__init__(f"{attribute}: {detail}")
        self.code = code
        self.attribute = attribute


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """A query whose parameters are good. ``after`` is the key of the last result of the page before."""

    span: SeriesSpan
    usage_types: tuple[str, ...]
    team_ids: frozenset[str] | None
    breakdowns: tuple[str, ...]
    page_size: int
    after: tuple[int, str] | None
    organization_id: str | None
    fingerprint: str

    @property
    def counters(self) -> frozenset[str]:
        """Every counter that is asked for."""
        return frozenset(counter for name in self.usage_types if (counter := COUNTER_BY_USAGE_TYPE[name]) is not None)

    @property
    def needs_teams(self) -> bool:
        return self.team_ids is not None or "team" in self.breakdowns


@dataclass(frozen=True, slots=True)
class UsageResult:
    """One line of the answer. ``key`` orders the lines: position of the usage type, then team."""

    key: tuple[int, str]
    usage_type: str | None
    team_id: str | None
    points: Sequence[SeriesPoint]


def from_wire_usage_query(given: Mapping[str, Any]) -> UsageQuery:
    """Read the parameters. Those this query does not know are let be: PostHog sends one set to usage and spend.

    Raises:
        InvalidUsageQuery: naming the parameter.
    """
    start, last = _day(given, "start_date"), _day(given, "end_date")
    if last < start:
        raise InvalidUsageQuery("invalid_input", "must not lie before start_date", "end_date")
    if (last - start).days >= RANGE_DAYS_MAX:
        raise InvalidUsageQuery(
            "usage_date_range_too_long", f"ask for at most {RANGE_DAYS_MAX} days at a time", "end_date"
        )
    interval = _interval(given.get("interval"))
    usage_types = _usage_types(given.get("usage_types"))
    breakdowns = tuple(_texts(given.get("breakdowns"), "breakdowns") or ())
    if breakdowns not in _BREAKDOWNS:
        raise InvalidUsageQuery("invalid_choice", 'must be [], ["type"] or ["type", "team"]', "breakdowns")
    team_ids = _team_ids(given.get("team_ids"))
    span = SeriesSpan(start, last + DAY, interval)
    asked = [start.isoformat(), last.isoformat(), interval.value, usage_types, sorted(team_ids or ()), breakdowns]
    fingerprint = hashlib.sha256(msgspec.json.encode(asked)).hexdigest()[:16]
    return UsageQuery(
        span=span,
        usage_types=usage_types,
        team_ids=team_ids,
        breakdowns=breakdowns,
        page_size=_page_size(given.get("page_size")),
        after=_after(given.get("after"), fingerprint),
        organization_id=_optional_text(given.get("organization_id"), "organization_id"),
        fingerprint=fingerprint,
    )


def to_wire_usage_answer(
    query: UsageQuery, *, customer_id: str, results: Sequence[UsageResult], team_ids: Collection[str]
) -> dict[str, Any]:
    """One page of the results, in order of their keys."""
    ordered = sorted(results, key=lambda result: _order(result.key))
    after = None if query.after is None else _order(query.after)
    rest = [result for result in ordered if after is None or _order(result.key) > after]
    page = rest[: query.page_size]
    return {
        "status": "ok",
        "type": "timeseries",
        "customer_id": customer_number(customer_id),
        "results": [_result(result, len(ordered) - len(rest) + index) for index, result in enumerate(page)],
        "team_id_options": [_team(team_id) for team_id in sorted(team_ids, key=_team_order)],
        "next": _cursor(page[-1].key, query.fingerprint) if len(rest) > len(page) else None,
        "total_count": len(ordered),
    }


def customer_number(customer_id: str) -> int:
    """The customer id as the integer that PostHog's answer has there.

    Ours are texts, in the billing object too. One that is a number stands for itself; of any other a number is derived
    that is always the same for the same customer and fits a JavaScript number. Nothing may be looked up by it.
    """
    if customer_id.isascii() and customer_id.isdigit() and int(customer_id) < 2**53:
        return int(customer_id)
    return int.from_bytes(hashlib.sha256(customer_id.encode()).digest()[:8], "big") >> 11


def _result(result: UsageResult, index: int) -> dict[str, Any]:
    shown = {
        "id": index,
        "data": [point.quantity for point in result.points],
        "dates": [point.start.date().isoformat() for point in result.points],
    }
    if result.usage_type is None:
        return {**shown, "label": "Total", "breakdown_type": None, "breakdown_value": None}
    if result.team_id is None:
        return {**shown, "label": result.usage_type, "breakdown_type": "type", "breakdown_value": result.usage_type}
    return {
        **shown,
        "label": f"{result.team_id}::{result.usage_type}",
        "breakdown_type": "multiple",
        "breakdown_value": [result.usage_type, result.team_id],
    }


def _day(given: Mapping[str, Any], name: str) -> datetime:
    value = given.get(name)
    if value in (None, ""):
        raise InvalidUsageQuery("required", "this parameter is required", name)
    try:
        day = date.fromisoformat(value)
        return datetime(day.year, day.month, day.day, tzinfo=UTC)
    except (TypeError, ValueError) as error:
        raise InvalidUsageQuery("invalid_input", "must be a day like 2026-10-05", name) from error


def _interval(value: object) -> SeriesInterval:
    if value in (None, ""):
        return SeriesInterval.DAY
    try:
        return SeriesInterval(value)  # type: ignore[arg-type]
    except ValueError as error:
        raise InvalidUsageQuery("invalid_choice", "must be day, week or month", "interval") from error


def _usage_types(value: object) -> tuple[str, ...]:
    names = _texts(value, "usage_types")
    if not names:
        return tuple(COUNTER_BY_USAGE_TYPE)
    for name in names:
        if name not in COUNTER_BY_USAGE_TYPE:
            known = ", ".join(COUNTER_BY_USAGE_TYPE)
            raise InvalidUsageQuery("invalid_choice", f"{name[:100]!r} is none of {known}", "usage_types")
    return tuple(dict.fromkeys(names))


def _team_ids(value: object) -> frozenset[str] | None:
    listed = _list(value, "team_ids")
    for team_id in listed or ():
        if isinstance(team_id, bool) or not isinstance(team_id, int | str) or "\x00" in str(team_id):
            raise InvalidUsageQuery("invalid_input", "must be a list of project ids", "team_ids")
    return frozenset(str(team_id) for team_id in listed) if listed else None


def _texts(value: object, name: str) -> list[str] | None:
    listed = _list(value, name)
    if listed is not None and not all(isinstance(item, str) for item in listed):
        raise InvalidUsageQuery("invalid_input", "must be a list of texts", name)
    return listed


def _list(value: object, name: str) -> list[Any] | None:
    if value in (None, ""):
        return None
    try:
        listed = msgspec.json.decode(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise InvalidUsageQuery("invalid_input", "must be a list, in GET as JSON", name) from error
    if listed is None:
        return None
    if not isinstance(listed, list) or len(listed) > LIST_MAX:
        raise InvalidUsageQuery("invalid_input", f"must be a list of at most {LIST_MAX}, in GET as JSON", name)
    return listed


def _page_size(value: object) -> int:
    if value in (None, ""):
        return PAGE_SIZE_MAX
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit()) or not 0 < int(text[:9]) <= PAGE_SIZE_MAX:
        raise InvalidUsageQuery("invalid_input", f"must be a number from 1 to {PAGE_SIZE_MAX}", "page_size")
    return int(text)


def _optional_text(value: object, name: str) -> str | None:
    if value in (None, ""):
        return None
    if not isinstance(value, str):
        raise InvalidUsageQuery("invalid_input", "must be a text", name)
    return value


def _cursor(key: tuple[int, str], fingerprint: str) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode([*key, fingerprint])).decode()


def _after(value: object, fingerprint: str) -> tuple[int, str] | None:
    if value in (None, ""):
        return None
    wrong = InvalidUsageQuery("invalid_input", "is no cursor of this query; begin without one", "after")
    if not isinstance(value, str) or len(value) > _CURSOR_BYTES_MAX:
        raise wrong
    try:
        position, team_id, made_for = msgspec.json.decode(
            base64.b64decode(value, altchars=b"-_", validate=True), type=tuple[int, str, str]
        )
    except (ValueError, RecursionError) as error:
        raise wrong from error
    if made_for != fingerprint:
        raise wrong
    return position, team_id


def _order(key: tuple[int, str]) -> tuple[int, tuple[int, int, str]]:
    return key[0], _team_order(key[1])


def _team_order(team_id: str) -> tuple[int, int, str]:
    """Numbers by their size, before names."""
    number = _team(team_id)
    return (0, number, team_id) if isinstance(number, int) else (1, 0, team_id)


def _team(team_id: str) -> int | str:
    return int(team_id) if team_id.isascii() and team_id.isdigit() and len(team_id) < 16 else team_id  # noqa: PLR2004

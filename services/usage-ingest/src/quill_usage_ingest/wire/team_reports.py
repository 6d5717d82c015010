"""What reports say of teams, in each of their forms. A wrong counter is named ``teams__<team id>__<counter>``."""

from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec

from quill_usage_ingest.domain.team_cells import TeamCounters, TeamsReport
from quill_usage_ingest.domain.usage_report import QUANTITY_MAX, UsageReport
from quill_usage_ingest.ports import KeptClaim
from quill_usage_ingest.wire.daily_reports import COUNTER_NAME_MAX, COUNTER_SUFFIX, COUNTERS_MAX, TEAMS_MAX
from quill_usage_ingest.wire.usage_reports import from_wire_usage_report

TEAM_ID_MAX: Final = 200


class InvalidTeams(ValueError):
    """A team or one of its counters is wrong; ``attribute`` names it."""

    def __init__(self, detail: str, attribute: str) -> None:
        super().__init__(f"{attribute}: {detail}")
        self.attribute = attribute


class _TeamsPart(msgspec.Struct, frozen=True):
    teams: Any = None


_decoder: Final = msgspec.json.Decoder(_TeamsPart)


def teams_of_native_report(value: bytes) -> TeamsReport:
    """The teams of a ``usage.reports.v1`` record; every counter they have is kept.

    Raises:
        InvalidTeams: naming the counter.
        ValueError | UnstorableText: the report itself is wrong.
    """
    try:
        part = _decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        part = _TeamsPart()
    teams = team_counters(part.teams, takes=None)
    return TeamsReport(from_wire_usage_report(value), teams)


def teams_of_daily_report(
    fields: Mapping[str, Any], report: UsageReport, *, metered_counters: Collection[str]
) -> TeamsReport:
    """The teams of a report in PostHog's form, whose counters are chosen as the organization's are.

    Raises:
        InvalidTeams: naming the counter.
    """
    return TeamsReport(report, team_counters(fields.get("teams"), takes=metered_counters))


def teams_of_kept_claim(claim: KeptClaim, *, metered_counters: Collection[str]) -> TeamsReport:
    """What a kept report says of teams, in whichever form it came; malformed teams were parked and not entered."""
    try:
        fields = msgspec.json.decode(claim.body)
        if isinstance(fields, dict) and isinstance(fields.get("usage_report"), dict):
            fields = fields["usage_report"]
        if not isinstance(fields, dict):
            return TeamsReport(claim.report, {})
        is_native = "window_start" in fields and "counters" in fields
        teams = team_counters(fields.get("teams"), takes=None if is_native else metered_counters)
    except (ValueError, RecursionError):
        return TeamsReport(claim.report, {})
    return TeamsReport(claim.report, teams)


def team_counters(teams: object, *, takes: Collection[str] | None) -> TeamCounters:
    """Check teams and their counters by the rules that the organization's obey.

    Args:
        teams: What the report holds there; None for none.
        takes: Counters to take beside those ending in ``_in_period``; None takes every one. Of the ones named here, a
            fraction is left out, since quantities are integers (L11).

    Raises:
        InvalidTeams: naming the counter.
    """
    if teams is None:
        return {}
    if not isinstance(teams, dict) or len(teams) > TEAMS_MAX:
        raise InvalidTeams("must be an object of counters by team id", "teams")
    return {team_id: _counters(team_id, given, takes) for team_id, given in teams.items()}


def _counters(team_id: str, given: object, takes: Collection[str] | None) -> dict[str, int]:
    attribute = f"teams__{team_id}"
    if not 0 < len(team_id) <= TEAM_ID_MAX or "\x00" in team_id:
        shown = team_id[:TEAM_ID_MAX].replace("\x00", "\\0")
        raise InvalidTeams(f"a team id has 1 to {TEAM_ID_MAX} characters and no NUL", f"teams__{shown}")
    if not isinstance(given, dict):
        raise InvalidTeams("must be an object", attribute)
    counters = {}
    for name, quantity in given.items():
        if takes is None or name.endswith(COUNTER_SUFFIX) or (name in takes and not isinstance(quantity, float)):
            counters[name] = _quantity(name, quantity, attribute)
    if len(counters) > COUNTERS_MAX:
        raise InvalidTeams(f"has more than {COUNTERS_MAX} counters", attribute)
    return counters


def _quantity(name: str, given: object, team: str) -> int:
    if not 0 < len(name) <= COUNTER_NAME_MAX or "\x00" in name:
        shown = name[:COUNTER_NAME_MAX].replace("\x00", "\\0")
        raise InvalidTeams("is no counter name", f"{team}__{shown}")
    if type(given) is not int or not 0 <= given <= QUANTITY_MAX:
        raise InvalidTeams(f"must be an integer from 0 to {QUANTITY_MAX}", f"{team}__{name}")
    return given

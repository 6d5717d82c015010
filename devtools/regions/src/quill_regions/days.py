"""What each organization did on each day, per team, from the seed: the facts that reports will claim."""

import random
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from quill_regions.organizations import Organization

Counters = dict[str, int]

WEEKEND_PERCENT = 55
NOON_PERCENT = 45


@dataclass(frozen=True, slots=True)
class Day:
    """A finished UTC day of one organization: counts per team. The organization's are their sums."""

    organization: Organization
    date: date
    teams: dict[str, Counters]

    @property
    def start(self) -> datetime:
        return datetime(self.date.year, self.date.month, self.date.day, tzinfo=UTC)

    @property
    def end(self) -> datetime:
        return self.start + timedelta(days=1)

    @property
    def totals(self) -> Counters:
        totals: Counters = {}
        for counters in self.teams.values():
            for name, count in counters.items():
                totals[name] = totals.get(name, 0) + count
        return totals

    def scaled(self, percent: int) -> "Day":
        """The same day with every count at ``percent`` of it: what was counted by noon, or counted wrongly."""
        teams = {
            team: {name: count * percent // 100 for name, count in counters.items()}
            for team, counters in self.teams.items()
        }
        return Day(self.organization, self.date, teams)


def live_through(organization: Organization, on: date, *, seed: int) -> Day:
    """One day of one organization; independent of every other day, so days can be asked for in any order."""
    randomness = random.Random(f"day:{seed}:{organization.organization_id}:{on.isoformat()}")
    share = WEEKEND_PERCENT if on.weekday() >= 5 else 100  # noqa: PLR2004 - Saturday and Sunday
    teams: dict[str, Counters] = {}
    for place, team in enumerate(organization.teams, start=1):
        counters = {
            name: int(appetite * randomness.uniform(0.5, 1.5)) * share // (100 * place)
            for name, appetite in organization.appetite.items()
        }
        teams[team] = _with_companions(counters)
    return Day(organization, on, teams)


def _with_companions(counters: Counters) -> Counters:
    """Counters that come along in real reports and that nobody pays for."""
    events = counters["event_count_in_period"]
    flags = counters["billable_feature_flag_requests_count_in_period"]
    exceptions = counters["exceptions_captured_in_period"]
    recordings = counters["recording_count_in_period"]
    return {
        **counters,
        "enhanced_persons_event_count_in_period": events * 7 // 10,
        "decide_requests_count_in_period": flags * 6 // 10,
        "local_evaluation_requests_count_in_period": flags // 25,
        "mobile_recording_count_in_period": recordings // 9,
        "zero_duration_recording_count_in_period": recordings // 40,
        "web_events_count_in_period": events * 8 // 10,
        "node_events_count_in_period": events // 10,
        "python_events_count_in_period": events // 20,
        "web_exceptions_captured_in_period": exceptions * 6 // 10,
        "node_exceptions_captured_in_period": exceptions * 3 // 10,
        "hog_function_calls_in_period": events // 30,
        "cdp_billable_invocations_in_period": events // 300,
        "workflow_billable_invocations_in_period": counters["workflow_emails_sent_in_period"] * 2,
        "query_api_rows_read": events * 11,
        "active_hog_destinations_in_period": 3,
    }

"""What usage-ingest takes of teams from Kafka: groups of their own, so that no limit ever waits for a team (L4)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from pydantic import ValidationError
from quill_contracts.topics import USAGE_REPORTS
from quill_runtime.consumption import Consumption, Received, Record, Rejected
from quill_runtime.database import Transaction

from quill_usage_ingest.domain.team_cells import TeamsReport
from quill_usage_ingest.ports import TooManyCounters
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.teams import PostgresTeams
from quill_usage_ingest.usecases.record_teams import record_teams
from quill_usage_ingest.wire.team_reports import InvalidTeams, teams_of_native_report

BATCH_RECORDS_MAX: Final = 200
FETCH_WAIT_MS: Final = 100
"""Nobody waits for teams, so larger batches are worth a tenth of a second."""


def report_teams(group: str, *, slots: CounterSlots) -> Consumption[TeamsReport | None]:
    """The teams of usage reports, merged into team cells."""

    async def apply(transaction: Transaction, received: Sequence[Received[TeamsReport | None]], now: datetime) -> None:
        await enter_teams(
            transaction, [item.message for item in received if item.message is not None], slots=slots, now=now
        )

    return Consumption(
        topic=USAGE_REPORTS.name,
        group=group,
        decode=decode_report_teams,
        apply=apply,
        max_records=BATCH_RECORDS_MAX,
        max_wait_ms=FETCH_WAIT_MS,
    )


def decode_report_teams(record: Record) -> TeamsReport | None:
    """The teams of a report; None for a record whose report is wrong itself, which the reports' own group parks.

    Raises:
        Rejected: a team is wrong, naming ``teams__<team id>__<counter>``.
    """
    try:
        return teams_of_native_report(record.value or b"")
    except InvalidTeams as error:
        raise rejected_teams(error) from error
    except (ValidationError, ValueError):
        return None


def rejected_teams(error: InvalidTeams) -> Rejected:
    """A malformed team, to be parked by the teams' own group."""
    return Rejected("invalid_teams", str(error), attribute=error.attribute)


async def enter_teams(
    transaction: Transaction, claims: Sequence[TeamsReport], *, slots: CounterSlots, now: datetime
) -> None:
    """Enter what reports say of teams.

    Raises:
        Rejected: a new counter name found no slot.
    """
    try:
        await record_teams(claims, tx=PostgresTeams(transaction, slots), now=now)
    except TooManyCounters as error:
        raise Rejected("too_many_counters", str(error), attribute=f"teams__{error.counter}") from error

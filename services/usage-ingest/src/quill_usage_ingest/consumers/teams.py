"""What usage-ingest takes of teams from Kafka: groups of their own, so that no limit ever waits for a team (L4)."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError
from quill_contracts.intakes import DailyReport
from quill_contracts.topics import DAILY_REPORTS, USAGE_REPORTS
from quill_runtime.consumption import Consumption, FollowUp, Received, Record, Rejected
from quill_runtime.database import Transaction

from quill_usage_ingest.domain.generation import Generation, ShadowedGenerations
from quill_usage_ingest.domain.meters import MeterMap
from quill_usage_ingest.domain.team_cells import TeamsReport
from quill_usage_ingest.domain.usage_report import UsageReport
from quill_usage_ingest.ports import TooManyCounters
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.team_publication import TeamUsagePublication
from quill_usage_ingest.store.teams import PostgresTeams
from quill_usage_ingest.usecases.accounts import find_account
from quill_usage_ingest.usecases.record_teams import record_teams
from quill_usage_ingest.wire.team_reports import InvalidTeams, teams_of_daily_report, teams_of_native_report

BATCH_RECORDS_MAX: Final = 200


def report_teams(
    group: str, *, slots: CounterSlots, publication: TeamUsagePublication
) -> Consumption[TeamsReport | None]:
    """The teams of usage reports, merged into team cells; then what the touched organizations' teams used."""

    async def apply(
        transaction: Transaction, received: Sequence[Received[TeamsReport | None]], now: datetime
    ) -> FollowUp | None:
        claims = [item.message for item in received if item.message is not None]
        await enter_teams(transaction, claims, slots=slots, now=now)
        return _publishing(claims, publication, now)

    return Consumption(
        topic=USAGE_REPORTS.name,
        group=group,
        decode=decode_report_teams,
        apply=apply,
        max_records=BATCH_RECORDS_MAX,
    )


ReadDailyReport = Callable[[DailyReport, Collection[str], datetime], tuple[UsageReport, Mapping[str, Any]]]
"""A daily report as a claim, with the fields of its JSON: given the record's message, the counters that the catalog
names, and now. Raises ``ValueError`` when the report itself is wrong."""


class LooksOn(ValueError):
    """The report is of a shadowed generation; its teams do not count either."""


def counting_reports(read: ReadDailyReport, shadowed: ShadowedGenerations) -> ReadDailyReport:
    """Read only reports of generations that count."""

    def read_counting(
        daily: DailyReport, metered: Collection[str], now: datetime
    ) -> tuple[UsageReport, Mapping[str, Any]]:
        if shadowed.holds(daily.source, Generation(daily.generation)):
            raise LooksOn(daily.source)
        return read(daily, metered, now)

    return read_counting


def daily_report_teams(
    group: str, *, slots: CounterSlots, read: ReadDailyReport, publication: TeamUsagePublication
) -> Consumption[DailyReport | None]:
    """The teams of reports that came through a queue or a bucket, merged into the same cells."""

    async def apply(
        transaction: Transaction, received: Sequence[Received[DailyReport | None]], now: datetime
    ) -> FollowUp | None:
        usage = PostgresUsage(transaction, slots)
        metered = MeterMap.of(await usage.metered_products()).counters
        claims = []
        for daily in (item.message for item in received if item.message is not None):
            try:
                report, fields = read(daily, metered, now)
            except ValueError:
                # The reports' own group parks it.
                continue
            if daily.license_id is not None:
                named = report.organization_id
                account = await find_account(license_id=daily.license_id, organization_id=named, tx=usage)
                if account is None:
                    # The reports' own group parks it, and it comes again once the organization is known.
                    continue
                report = replace(report, organization_id=account.organization_id)
            try:
                claims.append(teams_of_daily_report(fields, report, metered_counters=metered))
            except InvalidTeams as error:
                raise rejected_teams(error) from error
        await enter_teams(transaction, claims, slots=slots, now=now)
        return _publishing(claims, publication, now)

    return Consumption(
        topic=DAILY_REPORTS.name,
        group=group,
        decode=_decode_daily,
        apply=apply,
        max_records=BATCH_RECORDS_MAX,
    )


def _publishing(claims: Sequence[TeamsReport], publication: TeamUsagePublication, now: datetime) -> FollowUp | None:
    """Once the batch is committed: repeated by a redelivery, and what it leaves is the job's."""
    touched = {claim.report.organization_id for claim in claims if claim.teams}
    if not touched:
        return None

    async def publish() -> None:
        await publication.publish_teams_of(touched, now)

    return publish


def _decode_daily(record: Record) -> DailyReport | None:
    try:
        return DailyReport.from_bytes(record.value or b"")
    except ValueError:
        return None


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

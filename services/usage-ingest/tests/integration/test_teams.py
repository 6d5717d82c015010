"""Teams and the usage queries, on Postgres: one behaviour on both stores, and the HTTP side as PostHog asks it."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import jwt
import orjson
import pytest
from quill_runtime import http
from quill_runtime.auth import ApiTokens, Key, Keyring
from quill_runtime.database import Database
from quill_runtime.outbox import Outbox
from quill_runtime.publisher import Outgoing
from quill_usage_ingest.api import daily_report, usage, usage_query
from quill_usage_ingest.domain.meters import MeteredProduct
from quill_usage_ingest.domain.team_cells import TeamKey, TeamsReport, join_claims
from quill_usage_ingest.domain.usage_book import Verdict
from quill_usage_ingest.domain.usage_report import DayKey
from quill_usage_ingest.domain.usage_series import TeamAmount
from quill_usage_ingest.ports import Arrival, ArrivedReport, TeamTransaction, TooManyCounters
from quill_usage_ingest.store import counter_slots
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.heard_sources import HeardSources
from quill_usage_ingest.store.memory_teams import MemoryTeams
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.publication import SnapshotPublication
from quill_usage_ingest.store.team_rebuilds import SETTLED_AFTER, TeamRebuilds
from quill_usage_ingest.store.team_tables import team_rebuilds
from quill_usage_ingest.store.teams import PostgresTeams, teams_lock
from quill_usage_ingest.usecases.project_customers import project_customers
from quill_usage_ingest.usecases.project_products import project_products
from quill_usage_ingest.usecases.record_reports import record_reports
from quill_usage_ingest.usecases.record_teams import rebuild_team_windows, record_teams
from quill_usage_ingest.wire.team_reports import teams_of_native_report
from quill_usage_ingest.wire.usage_reports import from_wire_usage_report
from sqlalchemy import insert, text

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 5, tzinfo=UTC)
DAY = timedelta(days=1)
SECRETS = {name: name.encode() * 8 for name in ("license-1", "license-2", "further-1", "stranger-1")}

WAITS_FOR_A_LOCK = text(
    "select exists (select from pg_locks where locktype = 'advisory' and not granted"
    " and database = (select oid from pg_database where datname = current_database()))"
)

Begin = Callable[[], AbstractAsyncContextManager[TeamTransaction]]


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.integration)])
def begin(request: pytest.FixtureRequest) -> Begin:
    if request.param == "memory":
        memory = MemoryTeams()

        @asynccontextmanager
        async def begin() -> AsyncIterator[TeamTransaction]:
            yield memory

        return begin
    database: Database = request.getfixturevalue("database")
    slots = CounterSlots()

    @asynccontextmanager
    async def begin() -> AsyncIterator[TeamTransaction]:
        async with database.begin() as transaction:
            yield PostgresTeams(transaction, slots)

    return begin


@pytest.fixture
def teams_of(claim) -> Callable[..., TeamsReport]:
    """``teams_of({"1": {"events": 3}}, day=2)``: a claim of what teams used."""

    def build(teams: dict[str, dict[str, int]], organization_id: str = "acme", **given) -> TeamsReport:
        return TeamsReport(claim(organization_id, **given), teams)

    return build


def many_claims(teams_of, organization_id: str) -> list[TeamsReport]:
    return [
        teams_of(
            {"1": {"events": 3 * day + at}, "2": {"events": at, f"c{day}": 1}, "web": {}},
            organization_id,
            day=day,
            at=at,
            source=source,
            complete=complete,
        )
        for day in (1, 2, 40)
        for at in (0, 1)
        for source in ("us", "eu")
        for complete in (False, True)
    ]


async def all_rows(begin: Begin, claims: list[TeamsReport]):
    async with begin() as tx:
        return await tx.team_rows_of_days({claim.report.day_key for claim in claims})


async def test_any_order_repetition_and_cut_gives_the_same_team_rows(begin, teams_of):
    claims = many_claims(teams_of, "acme")
    shuffled = claims * 2
    random.Random(3).shuffle(shuffled)
    while shuffled:
        batch, shuffled = shuffled[:5], shuffled[5:]
        async with begin() as tx:
            await record_teams(batch, tx=tx, now=NOW + 30 * DAY)
    assert await all_rows(begin, claims) == join_claims(claims)


async def test_a_rebuild_takes_one_claim_out_and_leaves_other_windows_alone(begin, teams_of):
    first = teams_of({"1": {"events": 3}}, at=1)
    wrong = teams_of({"1": {"events": 99}, "2": {"events": 9}}, at=2)
    other = teams_of({"1": {"events": 1}}, day=2)
    async with begin() as tx:
        await record_teams([first, wrong, other], tx=tx, now=NOW)
    async with begin() as tx:
        assert await rebuild_team_windows([wrong.report.window_key], [first, other], tx=tx) == 1
    assert await all_rows(begin, [first, other]) == join_claims([first, other])
    async with begin() as tx:
        assert await rebuild_team_windows([first.report.window_key], [], tx=tx) == 0
    assert await all_rows(begin, [first, other]) == join_claims([other])


async def test_amounts_add_up_by_interval_and_team(begin, teams_of):
    async with begin() as tx:
        await record_teams(
            [
                teams_of({"1": {"events": 5, "other": 1}, "2": {"events": 7}}, day=1),
                teams_of({"1": {"events": 2}}, day=1, source="eu"),
                teams_of({"1": {"events": 1}}, day=2, complete=False),
                teams_of({"1": {"events": 4}}, day=32),
                teams_of({"1": {"events": 1000}}, "globex"),
            ],
            tx=tx,
            now=NOW,
        )

    async def amounts(interval: str, team_ids: set[str] | None = None, limit: int = 100) -> list[TeamAmount]:
        async with begin() as tx:
            return await tx.team_amounts(
                "acme",
                OCTOBER,
                OCTOBER + 40 * DAY,
                interval=interval,
                counters={"events", "unheard of"},
                team_ids=team_ids,
                limit=limit,
            )

    november = OCTOBER + 31 * DAY
    assert await amounts("month") == [
        TeamAmount(OCTOBER, "1", "events", 8, is_partial=True),
        TeamAmount(OCTOBER, "2", "events", 7, is_partial=False),
        TeamAmount(november, "1", "events", 4, is_partial=False),
    ]
    assert [row.quantity for row in await amounts("day", {"1"})] == [7, 1, 4]
    assert [row.start.weekday() for row in await amounts("week", {"2"})] == [0]
    assert await amounts("day", limit=1) == [TeamAmount(OCTOBER, "1", "events", 7, is_partial=False)]
    assert await amounts("day", {"nobody"}) == []
    async with begin() as tx:
        assert await tx.team_ids("acme", OCTOBER, OCTOBER + DAY, limit=10) == ["1", "2"]
        assert await tx.team_ids("acme", november, november + DAY, limit=10) == ["1"]


async def test_too_many_counters_are_refused_by_name(begin, teams_of, monkeypatch):
    monkeypatch.setattr(counter_slots, "SLOTS_MAX", 512)
    with pytest.raises(TooManyCounters):
        async with begin() as tx:
            await record_teams([teams_of({"1": {f"c{n}": 1 for n in range(600)}})], tx=tx, now=NOW)


@pytest.mark.integration
async def test_concurrent_writers_of_one_organization_lose_nothing(database: Database, teams_of):
    slots = CounterSlots()
    claims = many_claims(teams_of, "acme") + many_claims(teams_of, "globex")
    random.Random(5).shuffle(claims)

    async def write(batch: list[TeamsReport]) -> None:
        await database.run(lambda t: record_teams(batch, tx=PostgresTeams(t, slots), now=NOW + 30 * DAY))

    await asyncio.gather(*(write(claims[n::6]) for n in range(6)))
    async with database.begin() as transaction:
        days = {DayKey(c.report.organization_id, c.report.window.day, c.report.source) for c in claims}
        assert await PostgresTeams(transaction, slots).team_rows_of_days(days) == join_claims(claims)


@pytest.mark.integration
async def test_team_rows_lie_in_the_partition_of_their_month(database: Database, teams_of):
    async with database.begin() as transaction:
        claims = [teams_of({"1": {"events": 3}}), teams_of({"1": {"events": 3}}, day=-20_000)]
        await record_teams(claims, tx=PostgresTeams(transaction, CounterSlots()), now=NOW)
        rows = await transaction.connection.execute(
            text("select tableoid::regclass::text from team_windows order by 1")
        )
        assert [row[0] for row in rows] == ["team_windows_2026_10", "team_windows_default"]


def native(teams, *, report_id: str, at: int) -> ArrivedReport:
    body = orjson.dumps(
        {
            "report_id": report_id,
            "source": "us",
            "organization_id": "acme",
            "window_start": OCTOBER,
            "window_end": OCTOBER + DAY,
            "completeness": "complete",
            "as_of": OCTOBER + timedelta(hours=at),
            "counters": {"events": sum(each["events"] for each in teams.values())},
            "teams": teams,
        }
    )
    return ArrivedReport(from_wire_usage_report(body), Arrival("kafka", body, "usage.reports.v1", 0, at))


@pytest.mark.integration
async def test_a_voided_report_takes_its_team_rows_out_and_does_not_come_back_by_redelivery(
    database: Database, organization
):
    slots = CounterSlots()
    right = native({"1": {"events": 7}}, report_id="right", at=1)
    wrong = native({"1": {"events": 100}, "2": {"events": 9}}, report_id="wrong", at=2)
    claims = [teams_of_native_report(each.arrival.body) for each in (right, wrong)]

    async def rows():
        async with database.begin() as transaction:
            return await PostgresTeams(transaction, slots).team_rows_of_days({right.report.day_key})

    async def enter_teams(*entered: TeamsReport) -> None:
        await database.run(lambda t: record_teams(entered, tx=PostgresTeams(t, slots), now=NOW))

    async def judge(verdict: Verdict) -> None:
        async with database.begin() as transaction:
            tx = PostgresUsage(transaction, slots)
            kept = await tx.kept_claims("acme", OCTOBER, OCTOBER + DAY)
            await tx.set_verdict([each.kept.id for each in kept if each.kept.report_id == "wrong"], verdict)

    async with database.begin() as transaction:
        tx = PostgresUsage(transaction, slots)
        await project_customers([organization()], tx=tx)
        await record_reports([right, wrong], tx=tx, now=NOW, is_publication_due=False)
    await enter_teams(*claims)
    assert await rows() == join_claims(claims)
    rebuilds = TeamRebuilds(database, slots)
    assert await rebuilds.run(NOW) == 0
    await judge(Verdict.VOIDED)
    assert await rebuilds.run(NOW) == 1
    assert await rows() == join_claims(claims[:1])
    await enter_teams(*claims)
    assert await rows() == join_claims(claims[:1]), "a redelivery does not bring it back"
    assert await rebuilds.run(NOW) == 0
    assert await rebuilds.run(NOW + SETTLED_AFTER) == 1, "once more, for reports that were on their way"
    assert await rebuilds.run(NOW + 2 * SETTLED_AFTER) == 0
    assert await rows() == join_claims(claims[:1])
    await judge(Verdict.APPLIED)
    await rebuilds.run(NOW)
    assert await rows() == join_claims(claims)


@pytest.mark.integration
async def test_windows_are_made_again_in_the_order_in_which_reports_take_organizations(database):
    """Else the two wait for each other, and Postgres has to send one of them back."""
    first, second = "acme", "beta"
    while not teams_lock(first) > teams_lock(second):
        second = f"{second}."  # by name the other way round than by lock
    slots = CounterSlots()
    async with database.begin() as transaction:
        for name in (first, second):
            mark = insert(team_rebuilds).values(organization_id=name, window_start=OCTOBER, source="us")
            await transaction.connection.execute(mark)
    async with database.begin() as transaction:
        # Whoever looks for a deadlock first is sent back; let it be this one, so that the test sees it.
        await transaction.connection.execute(text("set local deadlock_timeout = '10ms'"))
        teams = PostgresTeams(transaction, slots)
        await teams.hold_teams({second}, counters=())
        rebuilding = asyncio.create_task(TeamRebuilds(database, slots).run(NOW))
        async with asyncio.timeout(10):
            while not await transaction.connection.scalar(WAITS_FOR_A_LOCK):
                await asyncio.sleep(0.01)
        await teams.hold_teams({first}, counters=())
    assert await rebuilding == 2


# -- over HTTP ---------------------------------------------------------------------------------------------------------


class FixedClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
YESTERDAY = TODAY - DAY
IS_SAME_PERIOD = YESTERDAY.month == TODAY.month


class Unheard:
    """A publisher that nobody listens to."""

    async def publish_all(self, messages: Sequence[Outgoing]) -> None:
        pass


class Caller:
    """A client that signs as PostHog does."""

    def __init__(self, database: Database, *, timeout_ms: int = 10_000) -> None:
        self.database = database
        self.slots = CounterSlots()
        keyring = Keyring()
        for name, secret in SECRETS.items():
            attributes = {"type": "scale", "source": f"instance-{name}"}
            keyring.put(Key(name, secret, revoked=False, attributes=attributes), revision=1)
        shared = {"database": database, "keyring": keyring, "clock": FixedClock(), "slots": self.slots}
        publication = SnapshotPublication(database=database, publisher=Unheard(), slots=self.slots)
        app = http.create_app(
            title="usage-ingest",
            routers=[
                daily_report.router(**shared, outbox=Outbox(), heard=HeardSources(), publication=publication),
                usage_query.router(**shared, query_timeout_ms=timeout_ms),
                usage.router(**shared, tokens=ApiTokens(())),
            ],
        )
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://billing")

    def signed(self, organization_id: str = "acme", license_id: str = "license-1") -> dict[str, str]:
        claims = {
            "id": license_id,
            "organization_id": organization_id,
            "aud": "posthog:license-key",
            "exp": int(time.time()) + 600,
        }
        return {"Authorization": f"Bearer {jwt.encode(claims, SECRETS[license_id], algorithm='HS256')}"}

    async def report(self, organization_id: str = "acme", license_id: str = "license-1", **fields) -> httpx.Response:
        body = {"organization_id": organization_id, "date": YESTERDAY.date().isoformat(), **fields}
        return await self.http.post(
            "/api/usage", content=orjson.dumps(body), headers=self.signed(organization_id, license_id)
        )

    async def query(
        self, path: str = "/api/v2/usage", *, organization_id: str = "acme", license_id="license-1", **asked
    ):
        days = {"start_date": (TODAY - 2 * DAY).date().isoformat(), "end_date": TODAY.date().isoformat()}
        headers = self.signed(organization_id, license_id)
        return await self.http.get(path, params={**days, **asked}, headers=headers)


@pytest.fixture
async def caller(database: Database, organization) -> AsyncIterator[Caller]:
    """``acme`` with the license ``license-1`` and the further license ``further-1``; ``globex`` with ``license-2``."""
    made = Caller(database)
    acme, globex = organization(), organization("globex", license_id="license-2")
    acme = replace(acme, customer=replace(acme.customer, further_license_ids=("further-1",)))
    async with database.begin() as transaction:
        tx = PostgresUsage(transaction, made.slots)
        await project_customers([acme, globex], tx=tx)
        await project_products([MeteredProduct("analytics", 1, "events", "event_count_in_period")], tx=tx)
    async with made.http:
        yield made


TEAMS = {"17": {"event_count_in_period": 30, "rows_synced_in_period": 1}, "4": {"event_count_in_period": 12}}


@pytest.mark.integration
async def test_teams_of_a_report_over_http_answer_the_usage_query(caller: Caller):
    answer = await caller.report(event_count_in_period=42, rows_synced_in_period=1, teams=TEAMS)
    assert answer.status_code == 200
    for path in ("/api/v2/usage", "/api/v2/usage/"):
        shown = (await caller.query(path, usage_types='["event_count_in_period"]', breakdowns='["type","team"]')).json()
        assert [(line["label"], line["data"]) for line in shown["results"]] == [
            ("4::event_count_in_period", [0, 12, 0]),
            ("17::event_count_in_period", [0, 30, 0]),
        ]
        assert (shown["team_id_options"], shown["total_count"], shown["next"]) == ([4, 17], 2, None)
    by_type = (
        await caller.query(usage_types='["event_count_in_period","data_pipelines"]', breakdowns='["type"]')
    ).json()
    assert [(line["label"], line["data"]) for line in by_type["results"]] == [
        ("event_count_in_period", [0, 42, 0]),
        ("data_pipelines", [0, 0, 0]),
    ]
    total = (await caller.query(team_ids="[17]")).json()["results"]
    assert [(line["breakdown_type"], sum(line["data"])) for line in total] == [(None, 31)]


@pytest.mark.integration
async def test_the_query_by_body_answers_the_same(caller: Caller):
    await caller.report(event_count_in_period=42, teams=TEAMS)
    lists = {"usage_types": ["event_count_in_period"], "breakdowns": ["type", "team"], "team_ids": [4]}
    days = {"start_date": YESTERDAY.date().isoformat(), "end_date": YESTERDAY.date().isoformat()}
    posted = await caller.http.post("/api/v2/usage/", json={**days, **lists}, headers=caller.signed())
    got = await caller.query(**days, **{name: orjson.dumps(value).decode() for name, value in lists.items()})
    assert posted.status_code == 200
    assert posted.json() == got.json()
    assert [line["data"] for line in posted.json()["results"]] == [[12]]


@pytest.mark.integration
async def test_a_refused_query_says_why_in_posthogs_shape(caller: Caller):
    year_ago = (TODAY - 400 * DAY).date().isoformat()
    too_long = (await caller.query(start_date=year_ago)).json()
    assert too_long["code"] == "usage_date_range_too_long"
    assert (await caller.query(interval="hour")).json() == {
        "type": "validation_error",
        "code": "invalid_choice",
        "detail": "interval: must be day, week or month",
        "attr": "interval",
    }
    foreign = await caller.query(organization_id="globex")
    assert (foreign.status_code, foreign.json()["code"]) == (403, "permission_denied")
    other = await caller.http.get(
        "/api/v2/usage",
        params={"start_date": year_ago, "end_date": year_ago, "organization_id": "globex"},
        headers=caller.signed(),
    )
    assert other.json()["code"] == "permission_denied"
    not_json = await caller.http.post("/api/v2/usage", content=b"{", headers=caller.signed())
    assert (not_json.status_code, not_json.json()["code"]) == (400, "not_json")


@pytest.mark.integration
async def test_a_query_that_takes_too_long_says_so(caller: Caller):
    hurried = Caller(caller.database, timeout_ms=50)
    async with hurried.http, caller.database.begin() as blocking:
        await blocking.connection.execute(text("lock table team_windows in access exclusive mode"))
        answer = await hurried.query(breakdowns='["type","team"]')
    assert (answer.status_code, answer.json()["code"]) == (504, "usage_query_timeout")


@pytest.mark.integration
async def test_malformed_teams_over_http_are_refused_whole(caller: Caller):
    refused = await caller.report(event_count_in_period=1, teams={"17": {"event_count_in_period": -1}})
    assert (refused.status_code, refused.json()["attr"]) == (400, "teams__17__event_count_in_period")
    assert sum((await caller.query()).json()["results"][0]["data"]) == 0


@pytest.mark.integration
async def test_instances_of_one_account_add_up_under_their_own_sources(caller: Caller):
    await caller.report(event_count_in_period=42, teams=TEAMS)
    own = await caller.report(
        "acme-eu", "further-1", event_count_in_period=100, teams={"900": {"event_count_in_period": 100}}
    )
    assert own.status_code == 200
    assert own.json()["customer"]["customer_id"] == "customer-of-acme"
    assert own.json()["customer"]["usage_summary"]["events"]["usage"] == (142 if IS_SAME_PERIOD else 0)
    by_source = await caller.http.get("/v1/usage/acme?meter=events&by=source&interval=month", headers=caller.signed())
    again = await caller.report("acme", "further-1", event_count_in_period=101)
    assert again.status_code == 200, "it may name the account as well"
    totals = {line["key"]: line["total"] for line in by_source.json()["series"]["series"]}
    assert totals == ({"instance-license-1": 42, "instance-further-1": 100} if IS_SAME_PERIOD else {})
    shown = (await caller.query(usage_types='["event_count_in_period"]')).json()["results"]
    assert shown[0]["data"] == [0, 143, 0]
    reports = (await caller.http.get("/v1/usage/acme/reports", headers=caller.signed())).json()["results"]
    assert [report["note"] for report in reports] == [None, {"named_organization_id": "acme-eu"}, None]


@pytest.mark.integration
async def test_a_license_reaches_its_own_account_and_no_other(caller: Caller):
    denied = [
        await caller.report("globex", "further-1", event_count_in_period=1),
        await caller.report("acme", "license-2", event_count_in_period=1),
        await caller.report("acme", "stranger-1", event_count_in_period=1),
        await caller.query(organization_id="globex", license_id="further-1"),
        await caller.query(organization_id="acme", license_id="stranger-1"),
    ]
    assert {answer.status_code for answer in denied} == {403}
    assert {answer.json()["code"] for answer in denied} == {"permission_denied"}
    assert len({answer.text for answer in denied}) == 1
    assert (await caller.query(organization_id="acme-eu", license_id="further-1")).status_code == 200
    assert await is_kept_only(caller, "nobody", "stranger-1"), "it may become the stranger's own (K15)"


async def is_kept_only(caller: Caller, organization_id: str, license_id: str) -> bool:
    """Whether a report is kept for later, and nothing of it entered."""

    async def entered() -> int:
        async with caller.database.begin() as transaction:
            return await transaction.connection.scalar(text("select count(*) from usage_reports"))

    before = await entered()
    answer = await caller.report(organization_id, license_id, event_count_in_period=1)
    return (answer.status_code, answer.json()["customer"]["customer_id"], await entered()) == (200, None, before)


@pytest.mark.integration
async def test_a_license_that_two_accounts_name_reaches_neither_and_one_that_was_let_go_reports_no_more(
    caller: Caller, organization
):
    contradictory = organization("globex", license_id="license-2", revision=2)
    contradictory = replace(contradictory, customer=replace(contradictory.customer, further_license_ids=("further-1",)))

    async def project(*snapshots) -> None:
        async with caller.database.begin() as transaction:
            await project_customers(snapshots, tx=PostgresUsage(transaction, caller.slots))

    await project(contradictory)
    assert (await caller.report("own", "further-1", event_count_in_period=1)).status_code == 403
    await project(organization(revision=2))
    answer = await caller.report("own", "further-1", event_count_in_period=1)
    assert answer.json()["customer"]["customer_id"] == "customer-of-globex"
    await project(organization("globex", license_id="license-2", revision=3))
    assert await is_kept_only(caller, "own", "further-1"), "like a license that no account ever named (K15)"


@pytest.mark.integration
async def test_a_series_is_exact_and_marks_today(caller: Caller):
    await caller.report(event_count_in_period=10**15 - 1, teams=TEAMS)
    await caller.report(date=TODAY.date().isoformat(), event_count_in_period=0)
    asked = {"meter": "events", "from": YESTERDAY.date().isoformat(), "interval": "day"}
    shown = (await caller.http.get("/v1/usage/acme", params=asked, headers=caller.signed())).json()
    assert [(p["quantity"], p["is_partial"]) for p in shown["series"]["series"][0]["points"]] == [
        (10**15 - 1, False),
        (0, True),
    ]
    assert shown["meter"] == "events", "what the endpoint answered before is still there"
    by_team = await caller.http.get("/v1/usage/acme", params={**asked, "by": "team"}, headers=caller.signed())
    assert {line["key"]: line["total"] for line in by_team.json()["series"]["series"]} == {"17": 30, "4": 12}


@pytest.mark.integration
@pytest.mark.parametrize(
    ("asked", "code", "attr"),
    [
        ({"interval": "day"}, "required", "meter"),
        ({"meter": "events", "from": "2026-10-02", "to": "2026-10-02"}, "invalid_input", "to"),
        ({"meter": "events", "from": "2024-10-02", "to": "2026-10-02"}, "usage_date_range_too_long", "from"),
        ({"meter": "events", "from": "soon"}, "invalid_input", "from"),
        ({"meter": "events", "by": "colour"}, "invalid_input", "by"),
    ],
)
async def test_a_wrong_series_is_refused_by_name(caller: Caller, asked, code, attr):
    answer = await caller.http.get("/v1/usage/acme", params=asked, headers=caller.signed())
    assert (answer.status_code, answer.json()["code"], answer.json()["attr"]) == (400, code, attr)


def test_team_keys_name_their_organizations_row():
    key = TeamKey("acme", OCTOBER, "us", "1")
    assert key.window_key == ("acme", OCTOBER, "us")

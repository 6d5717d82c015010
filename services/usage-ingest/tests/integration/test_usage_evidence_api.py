"""Explain, as-of, corrections and backfill over HTTP, on Postgres."""

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
import orjson
import pytest
from quill_runtime import dead_letters
from quill_runtime.auth import ApiTokens, Keyring
from quill_runtime.consumption import Record, Rejected
from quill_runtime.database import Database
from quill_runtime.http import create_app
from quill_runtime.outbox import Outbox
from quill_usage_ingest.api import backfill, corrections, explanation, usage
from quill_usage_ingest.domain.event_meter import Aggregation, EventMeter
from quill_usage_ingest.domain.meters import MeteredProduct
from quill_usage_ingest.ports import Arrival, ArrivedEvent
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.meter_events import PostgresEvents
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.usecases.project_customers import project_customers
from quill_usage_ingest.usecases.project_products import project_products
from quill_usage_ingest.usecases.record_events import record_events
from quill_usage_ingest.usecases.recount_events import project_event_meters
from quill_usage_ingest.wire.meter_events import from_wire_event

pytestmark = pytest.mark.integration

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
COUNTER = "event_count_in_period"


@dataclass
class HandClock:
    at: datetime

    def now(self) -> datetime:
        return self.at


@pytest.fixture
def clock() -> HandClock:
    return HandClock(datetime(2026, 10, 20, tzinfo=UTC))


@pytest.fixture
async def api(database: Database, clock, organization) -> AsyncIterator[httpx.AsyncClient]:
    slots = CounterSlots()
    async with database.begin() as transaction:
        tx = PostgresUsage(transaction, slots)
        await project_customers([organization(quotas={"events": 100})], tx=tx)
        await project_products([MeteredProduct("analytics", 1, "events", COUNTER)], tx=tx)
    token = "operator-token"
    tokens = ApiTokens.parse(f"ops:operator:{hashlib.sha256(token.encode()).hexdigest()}")
    writers = {"database": database, "tokens": tokens, "clock": clock, "slots": slots}
    app = create_app(
        title="usage",
        routers=[
            backfill.router(**writers),
            explanation.router(**writers, keyring=Keyring()),
            corrections.router(**writers),
            usage.router(**writers, keyring=Keyring()),
        ],
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://test",
        headers={"Authorization": f"Bearer {token}"},
    ) as client:
        yield client


def native(day: int, events: int, *, at: int = 1, **changed):
    start = OCTOBER + timedelta(days=day - 1)
    return {
        "report_id": f"{day}-{at}",
        "source": "us",
        "organization_id": "acme",
        "window_start": start.isoformat(),
        "window_end": (start + timedelta(days=1)).isoformat(),
        "completeness": "complete",
        "as_of": (start + timedelta(days=1, hours=at)).isoformat(),
        "counters": {COUNTER: events},
        **changed,
    }


def posthog(events, **changed):
    return {"organization_id": "acme", "usage_report": {COUNTER: events, "site_url": "x", **changed}}


async def filled(api, *reports, **options):
    answer = await api.post("/v1/usage/reports", json={"reports": list(reports), **options})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def explained(api, **query):
    answer = await api.get("/v1/usage/acme/explain", params={"meter": "events", **query})
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert document["is_equal"], document["sentence"]
    return document


async def test_a_dry_run_of_a_backfill_answers_what_sending_it_then_does(api):
    """L4: each bad line has its reason and holds nobody up."""
    lines = [
        native(1, 60),
        native(1, 50, at=0),
        native(2, 2**70),
        native(2, 5, completeness="corrected"),
        posthog(7, date="2026-10-03"),
        posthog(1.5, date="2026-10-04"),
        {"no": "report"},
        native(3, 9, source="eu"),
        native(2, 5, organization_id="nobody"),
    ]
    dry = await filled(api, *lines, source="us", dry_run=True)
    assert (await api.get("/v1/usage/acme")).json()["periods"] == []
    done = await filled(api, *lines, source="us")
    assert dry["results"] == done["results"]
    assert done["outcomes"] == {"applied": 2, "refused": 6, "superseded": 1}
    assert [each["code"] for each in done["results"]] == [
        None,
        None,
        "invalid_input",
        "invalid_input",
        None,
        "invalid_input",
        "invalid_input",
        "another_source",
        "unknown_organization",
    ]
    assert done["results"][0]["changes"] == {COUNTER: {"before": 0, "after": 60}}
    assert (await explained(api))["usage"]["to_date"] == 67
    assert (await filled(api, native(1, 60), source="us"))["outcomes"] == {"no_change": 1}


async def test_a_posthog_line_sent_again_with_the_same_instant_is_a_repeat(api):
    batch = {"source": "us", "day": "2026-10-05", "as_of": "2026-10-19T00:00:00Z"}
    assert (await filled(api, posthog(7), **batch))["outcomes"] == {"applied": 1}
    assert (await filled(api, posthog(7), **batch))["outcomes"] == {"no_change": 1}
    assert (await filled(api, posthog(7, date="2026-10-06"), **batch))["results"][0]["code"] == "another_day"


async def test_a_batch_that_is_no_batch_is_refused(api):
    for body in (b"{", b"[]", b'{"reports": []}', b'{"reports": [1], "dryrun": true}', b'{"reports": [NaN]}'):
        answer = await api.post("/v1/usage/reports", content=body)
        assert (answer.status_code, answer.json()["attr"]) == (400, "reports")


async def test_an_explanation_names_holders_reasons_dead_letters_and_the_exact_bytes(api, database):
    """L5."""
    lines = [native(1, 60), native(1, 50, at=0), native(2, 30, completeness="partial")]
    await filled(api, *lines)
    async with database.begin() as transaction:
        record = Record("usage.reports.v1", 0, 7, b"acme", b"{}", {})
        rejected = Rejected("overlapping_window", "twice", attribute="window_end", subject="acme")
        await dead_letters.park(transaction, outbox=Outbox(), group="g", record=record, rejected=rejected, now=OCTOBER)
    document = await explained(api)
    assert document["sentence"].startswith(
        "90 events from 2026-10-01 to 2026-11-01 (exclusive): 2 windows of 1 source (us); 30 of them on days still"
    )
    first, second = document["cells"]
    assert [other["why_not"] for other in first["others"]] == ["older_as_of"]
    assert (second["quantity"], second["completeness"]) == (30, "partial")
    assert [letter["reason_code"] for letter in document["parked"]] == ["overlapping_window"]
    shown = (await api.get(f"/v1/usage/acme/reports/{first['held_by']}")).json()
    assert orjson.loads(base64.b64decode(shown["body_base64"])) == lines[0]
    assert (shown["intake"], shown["counters"]) == ("backfill", {COUNTER: 60})


async def test_a_correction_is_previewed_applied_listed_and_reverted(api, clock):
    """L3, L20."""
    await filled(api, native(1, 60), native(2, 80))
    first_known = clock.at
    reports = (await explained(api))["reports"]
    asked = {
        "correction_id": "c1",
        "kind": "void",
        "actor": "ada",
        "reason": "counted twice",
        "report_ids": [reports[1]["id"]],
    }
    clock.at += timedelta(hours=1)
    path = "/v1/usage/acme/corrections"
    previewed = (await api.post(path, json={**asked, "preview": True})).json()
    assert (await explained(api))["usage"]["to_date"] == 140
    assert (await api.get(path)).json() == {"results": []}
    applied = (await api.post(path, json=asked)).json()
    assert {**applied, "is_preview": True} == previewed
    assert (await explained(api))["usage"] == {"complete": 60, "partial": 0, "to_date": 60, "maximum": 60}
    assert (await api.post(path, json=asked)).json()["is_repeat"]
    assert (await api.post(path, json={**asked, "reason": "else"})).status_code == 409

    as_of = (await api.get("/v1/usage/acme/as-of", params={"at": first_known.isoformat()})).json()["meters"]["events"]
    assert (as_of["to_date"], as_of["now"]["to_date"], as_of["moved_since"]) == (140, 60, -80)

    clock.at += timedelta(hours=1)
    reversion = {"actor": "bob", "reason": "they were right"}
    reverted = (await api.post(f"{path}/c1/revert", json=reversion)).json()
    assert (reverted["is_in_force"], reverted["reverted"]["actor"]) == (False, "bob")
    assert [each["correction_id"] for each in (await api.get(path)).json()["results"]] == ["c1"]
    document = await explained(api)
    assert [step["kind"] for step in document["timeline"]] == ["arrived", "arrived", "voided", "reverted"]
    assert document["usage"]["to_date"] == 140
    assert "ada (c1): counted twice" in document["sentence"] or "bob (c1)" in document["sentence"]


async def test_a_replacement_over_http_takes_its_counters_from_the_request_or_the_window(api):
    await filled(api, native(1, 60), native(2, 80))
    day = [(OCTOBER + timedelta(days=days)).isoformat() for days in range(3)]
    asked = {
        "correction_id": "r1",
        "kind": "replace",
        "actor": "ada",
        "reason": "bots",
        "source": "us",
        "start": day[0],
        "end": day[2],
        "counters": {COUNTER: 10},
        "windows": [
            {"window_start": day[0], "window_end": day[1]},
            {"window_start": day[1], "window_end": day[2], "counters": {COUNTER: 3}},
        ],
    }
    answer = await api.post("/v1/usage/acme/corrections", json=asked)
    assert answer.status_code == 200, answer.text
    assert (await explained(api))["usage"]["to_date"] == 13
    left_out = {**asked, "correction_id": "r2", "windows": asked["windows"][:1]}
    answer = await api.post("/v1/usage/acme/corrections", json=left_out)
    assert (answer.status_code, answer.json()["code"]) == (400, "window_left_out")


async def test_events_are_voided_over_http_and_count_again_when_that_is_taken_back(api, database, clock):
    """L3, L20."""
    meter = EventMeter("tokens", "call", Aggregation.SUM, value="n")
    bodies = [
        {
            "specversion": "1.0",
            "id": f"evt-{n}",
            "source": "gateway",
            "type": "call",
            "subject": "acme",
            "time": (OCTOBER + timedelta(hours=n)).isoformat(),
            "data": {"n": 10**n},
        }
        for n in (1, 2)
    ]
    async with database.begin() as transaction:
        tx, events = PostgresUsage(transaction, CounterSlots()), PostgresEvents(transaction)
        await project_products([MeteredProduct("ai", 1, "tokens", None, None, meter)], tx=tx)
        await project_event_meters(tx=tx, events=events)
        encoded = [json.dumps(body).encode() for body in bodies]
        arrived = [ArrivedEvent(from_wire_event(each), Arrival("http", each)) for each in encoded]
        await record_events(arrived, tx=tx, events=events, now=clock.at, is_publication_due=False)

    async def tokens() -> int:
        return (await api.get("/v1/usage/acme/explain", params={"meter": "tokens"})).json()["usage"]["to_date"]

    assert await tokens() == 110
    named = {name: bodies[1][name] for name in ("source", "id", "time")}
    asked = {"correction_id": "v1", "kind": "void-events", "actor": "ada", "reason": "a test", "events": [named]}
    path = "/v1/usage/acme/corrections"
    previewed = (await api.post(path, json={**asked, "preview": True})).json()
    (changed,) = previewed["changes"][0]["counters"]
    assert (changed["counter"], changed["before"]["maximum"], changed["after"]["maximum"]) == ("tokens", 110, 10)
    assert await tokens() == 110
    applied = (await api.post(path, json=asked)).json()
    assert {**applied, "is_preview": True} == previewed
    assert await tokens() == 10
    document = (await api.get("/v1/usage/acme/explain", params={"meter": "tokens"})).json()
    assert (document["voided"], document["is_equal"]) == (1, True)
    assert "1 kept events of the type were voided" in document["sentence"]
    (listed,) = (await api.get(path)).json()["results"]
    assert [each["id"] for each in listed["events"]] == ["evt-2"]
    assert (await api.post(path, json={**asked, "events": [{**named, "id": "evt-1"}]})).status_code == 409
    unknown = await api.post(path, json={**asked, "correction_id": "v2", "events": [{**named, "id": "evt-9"}]})
    assert (unknown.status_code, unknown.json()["code"], unknown.json()["attr"]) == (400, "unknown_event", "events__0")
    assert (await api.post(f"{path}/v1/revert", json={"actor": "bob", "reason": "no"})).status_code == 200
    assert await tokens() == 110


EVENT = {"source": "gateway", "id": "1", "time": OCTOBER.isoformat()}
VOID_EVENTS = {"correction_id": "c", "kind": "void-events", "actor": "a", "reason": "r"}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "explain?meter=nothing", None, 404),
        ("GET", "explain?meter=events&period_start=2026-10-02T00:00:00Z", None, 400),
        ("GET", "explain?meter=events&at=0001-01-01T00:00:00Z", None, 400),
        ("GET", "reports/77", None, 404),
        (
            "POST",
            "corrections",
            {"correction_id": "c", "kind": "void", "actor": "a", "reason": "", "report_ids": [1]},
            400,
        ),
        ("POST", "corrections", {"correction_id": "c", "kind": "void", "actor": "a", "reason": "r"}, 400),
        ("POST", "corrections", {"correction_id": "c", "kind": "replace", "actor": "a", "reason": "r"}, 400),
        (
            "POST",
            "corrections",
            {"correction_id": "c", "kind": "void", "actor": "a", "reason": "r", "report_ids": [1]},
            400,
        ),
        ("POST", "corrections/none/revert", {"actor": "a", "reason": "r"}, 400),
        ("POST", "corrections", {"correction_id": "c", "kind": "void-events", "actor": "a", "reason": "r"}, 400),
        ("POST", "corrections", {**VOID_EVENTS, "events": [EVENT, EVENT]}, 400),
        ("POST", "corrections", {**VOID_EVENTS, "events": [EVENT], "report_ids": [1]}, 400),
        ("POST", "corrections", {**VOID_EVENTS, "kind": "void", "report_ids": [1], "events": [EVENT]}, 400),
        ("POST", "corrections", {**VOID_EVENTS, "events": [{**EVENT, "time": "2026-10-01"}]}, 400),
    ],
)
async def test_what_cannot_be_asked_is_refused_in_words(api, method, path, body, status):
    answer = await api.request(method, f"/v1/usage/acme/{path}", json=body)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"type", "code", "detail", "attr"}

"""One row per (intake, malformation): parked with its reason and field, shown, replayable, and nobody behind it waits.

Over HTTP the same rows are answered 4xx, naming the field.
"""

import base64
import gzip
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest
from quill_cli.__main__ import build_app
from quill_cli.gateway import client_for
from quill_contracts import topics
from quill_contracts.intakes import DailyReport
from quill_usage_ingest.consumers import report_runs
from typer.testing import CliRunner

pytestmark = [pytest.mark.integration, pytest.mark.timeout(480)]

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
YESTERDAY = TODAY - timedelta(days=1)
EVENTS = "event_count_in_period"
GOOD = {"organization_id": "acme", "date": YESTERDAY.date().isoformat(), EVENTS: 120}

Expected = tuple[str, str | None]


def envelope(**changed: Any) -> bytes:
    """A line of a chunk, or what a message opens to."""
    report = {**GOOD, **changed}
    return orjson.dumps({"organization_id": report["organization_id"], "usage_report": report})


def raw(field: str, text: str, *, organization_id: str = "acme") -> bytes:
    """With one field written as JSON text that no careful encoder would write."""
    date = GOOD["date"]
    report = f'{{"organization_id":"{organization_id}","date":"{date}","{EVENTS}":120,"{field}":{text}}}'
    return f'{{"organization_id":"{organization_id}","usage_report":{report}}}'.encode()


REPORTS: dict[str, tuple[bytes, Expected]] = {
    "not JSON": (b"not json", ("not_json", "body")),
    "empty object": (b"{}", ("required", "usage_report")),
    "a list": (b"[]", ("required", "usage_report")),
    "nested too deep": (b'{"usage_report":' + b"[" * 100_000, ("not_json", "body")),
    "invalid UTF-8": (b'{"organization_id":"\xff\xfe","usage_report":{}}', ("not_json", "body")),
    "a report that is a list": (b'{"organization_id":"acme","usage_report":[]}', ("required", "usage_report")),
    "no organization": (b'{"usage_report":{"date":"2026-10-05"}}', ("required", "organization_id")),
    "an organization that is a number": (envelope(organization_id=7), ("invalid_input", "organization_id")),
    "an organization with NUL": (envelope(organization_id="a\x00b"), ("invalid_input", "organization_id")),
    "an organization with half a character": (
        raw("x", "1", organization_id="a\\ud800"),
        ("not_json", "body"),
    ),
    "two organizations": (
        orjson.dumps({"organization_id": "globex", "usage_report": GOOD}),
        ("invalid_input", "organization_id"),
    ),
    "an organization nobody knows": (
        envelope(organization_id="stranger"),
        ("unknown_organization", "organization_id"),
    ),
    "no date": (
        orjson.dumps({"organization_id": "acme", "usage_report": {EVENTS: 1}}),
        ("required", "date"),
    ),
    "a date that is none": (envelope(date="yesterday"), ("invalid_input", "date")),
    "a date that is a number": (envelope(date=20_261_005), ("invalid_input", "date")),
    "the last day of all": (envelope(date="9999-12-31"), ("invalid_input", "date")),
    "the first day of all": (envelope(date="0001-01-01"), ("window_out_of_range", "window_start")),
    "a day that has not begun": (
        envelope(date=(TODAY + timedelta(days=2)).date().isoformat()),
        ("invalid_input", "date"),
    ),
    "a period that is a text": (envelope(period="day"), ("invalid_input", "period")),
    "2^70": (raw("recording_count_in_period", str(2**70)), ("invalid_input", "recording_count_in_period")),
    "sixteen digits": (envelope(recording_count_in_period=10**15), ("invalid_input", "recording_count_in_period")),
    "NaN": (raw("recording_count_in_period", "NaN"), ("not_json", "body")),
    "infinite": (raw("recording_count_in_period", "1e999"), ("not_json", "body")),
    "negative": (envelope(recording_count_in_period=-1), ("invalid_input", "recording_count_in_period")),
    "a fraction": (envelope(recording_count_in_period=1.5), ("invalid_input", "recording_count_in_period")),
    "a whole number with a point": (
        envelope(recording_count_in_period=12.0),
        ("invalid_input", "recording_count_in_period"),
    ),
    "a text": (envelope(recording_count_in_period="12"), ("invalid_input", "recording_count_in_period")),
    "true": (envelope(recording_count_in_period=True), ("invalid_input", "recording_count_in_period")),
    "null": (envelope(recording_count_in_period=None), ("invalid_input", "recording_count_in_period")),
    "a counter with NUL": (envelope(**{"x\x00_in_period": 1}), ("invalid_input", "x\\0_in_period")),
    "a counter with half a character": (raw("\\ud800_in_period", "1"), ("not_json", "body")),
    "teams that are a list": (envelope(teams=[]), ("invalid_input", "teams")),
    "a negative team": (envelope(teams={"1": {EVENTS: -1}}), ("invalid_input", f"teams__1__{EVENTS}")),
    "a team that is a list": (envelope(teams={"1": []}), ("invalid_input", "teams__1")),
    "too many counters": (
        envelope(**{f"c{number:04}_in_period": 1 for number in range(600)}),
        ("too_many_counters", "the one that found no slot"),
    ),
}
"""What queue and bucket have in common: the JSON they carry."""


def packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content)).decode()


QUEUE: dict[str, tuple[str, Expected]] = {
    **{name: (packed(content), expected) for name, (content, expected) in REPORTS.items()},
    "bad base64": ("%%%", ("bad_base64", "body")),
    "base64 of no gzip": (base64.b64encode(envelope()).decode(), ("bad_gzip", "body")),
    "truncated gzip": (base64.b64encode(gzip.compress(envelope())[:-9]).decode(), ("truncated_gzip", "body")),
    "the head of a gzip": (base64.b64encode(gzip.compress(envelope())[:8]).decode(), ("truncated_gzip", "body")),
    "a gzip bomb": (packed(b" " * (65 * 1024 * 1024)), ("too_large", "body")),
}


async def collect(running: Any, expected: dict[str, Expected]) -> dict[str, Expected]:
    """What was parked, by row: the body of the parked record tells which one it is."""

    async def look() -> list[dict[str, Any]]:
        letters = await running.letters()
        return letters if len(letters) >= len(expected) else []

    await running.drained()
    return await running.until(look)


def said(letter: dict[str, Any]) -> Expected:
    """Reason and field; which of many new counters finds the registry full depends on those before."""
    code, attribute = letter["reason_code"], letter["attribute"]
    if code == "too_many_counters":
        assert attribute.startswith("c05"), attribute
        return code, "the one that found no slot"
    return code, attribute


async def whole(running: Any, letter: dict[str, Any]) -> bytes:
    document = await running.get(f"/v1/dead-letters/{letter['id']}")
    return base64.b64decode(document["value_base64"])


async def test_queue(intake_settings, platform):
    """Each bad message between two good ones, all at once."""
    async with platform(intake_settings) as running:
        await running.customers("acme", "behind")
        for body, _ in QUEUE.values():
            await running.region.send_body(body)
        await running.region.send_body(packed(envelope()), encoding=None)
        await running.region.send_v1({**GOOD, "dwh_total_storage_in_s3_in_mib": 1.5, "dwh_tables_storage": "?"})
        await running.region.send_v1({**GOOD, "organization_id": "behind"})
        await running.until(lambda: running.events("behind") == (120, 0, 120))
        assert running.events() == (120, 0, 120)
        rows = {body: name for name, (body, _) in QUEUE.items()}
        letters = await collect(running, QUEUE)
        found: dict[str, Expected] = {}
        for letter in letters:
            message = DailyReport.from_bytes(await whole(running, letter))
            found[rows.get(message.body, "without its encoding")] = said(letter)
        assert found == {name: expected for name, (_, expected) in QUEUE.items()} | {
            "without its encoding": ("not_json", "body")
        }
        assert len(letters) == len(found), "each is parked once"

        # The command line shows reason and field.
        listed = cli("dead-letters", "list", "--service", "usage-ingest", document={"results": letters})
        for letter in letters:
            assert letter["reason_code"] in listed
            assert letter["attribute"] in listed

        # Replayed before anything was mended, it is parked again under a new id, and counts nowhere.
        again = next(each for each in letters if each["reason_code"] == "bad_base64")
        await running.replay(again["id"])

        async def parked_again() -> bool:
            waiting = await running.letters(reason_code="bad_base64")
            return [each["id"] > again["id"] for each in waiting] == [True]

        await running.until(parked_again)
        # Mended: the customer becomes known, and its report comes in by itself.
        await running.customers("stranger")
        await running.until(lambda: running.events("stranger") == (120, 0, 120))


async def test_lines_of_a_bucket(intake_settings, platform):
    """Every bad line stands between two good ones of the same chunk; the run itself is in order."""
    bad = list(REPORTS.items())
    lines = [line for _, (content, _) in bad for line in (content, envelope())]
    async with platform(intake_settings) as running:
        await running.customers("acme", "behind")
        pointer = await running.region.write_run(
            "r1", day=YESTERDAY, started=TODAY, chunks=[lines, [{**GOOD, "organization_id": "behind"}]]
        )
        await running.region.point(pointer)
        await running.until(lambda: running.events("behind") == (120, 0, 120))
        assert running.events() == (120, 0, 120)
        letters = await collect(running, REPORTS)
        found: dict[str, Expected] = {}
        for letter in letters:
            message = DailyReport.from_bytes(await whole(running, letter))
            found[bad[(message.line - 1) // 2][0]] = said(letter)
        assert found == {name: expected for name, (_, expected) in bad}
        assert len(letters) == len(found)
        (run,) = (await running.get("/v1/report-runs"))["results"]
        assert (run["state"], run["lines_sent"]) == ("done", len(lines) + 1)


def chunk_of(*lines: bytes) -> bytes:
    return gzip.compress(b"\n".join(lines) + b"\n")


RUNS: dict[str, tuple[dict[str, Any], dict[str, Any], bytes | None, Expected]] = {
    # name: changed in the pointer, changed in the manifest, the chunk instead, what is parked
    "version 1": ({"version": 1}, {}, None, ("invalid_pointer", "version")),
    "a region that is no name": ({"region": "a b"}, {}, None, ("invalid_pointer", "region")),
    "corrected by a region": (
        {"report_completeness": "corrected"},
        {},
        None,
        ("invalid_pointer", "report_completeness"),
    ),
    "no date": ({"date": None}, {}, None, ("invalid_pointer", "date")),
    "2^70 chunks": ({"chunk_count": 2**63}, {}, None, ("invalid_pointer", "chunk_count")),
    "half a chunk": ({"chunk_count": 1.5}, {}, None, ("invalid_pointer", "chunk_count")),
    "a bucket of somebody else": ({"bucket": "secrets"}, {}, None, ("bucket_not_allowed", "bucket")),
    "a manifest that is not there": ({"manifest_key": "nowhere.json"}, {}, None, ("missing_object", "manifest_key")),
    "another run in the manifest": ({}, {"run_id": "other"}, None, ("wrong_manifest", "run_id")),
    "another day in the manifest": ({}, {"date": "2026-01-01"}, None, ("wrong_manifest", "date")),
    "no chunks in the manifest": ({}, {"chunk_keys": []}, None, ("wrong_manifest", "chunk_count")),
    "a chunk elsewhere": ({}, {"chunk_keys": ["elsewhere.gz"]}, None, ("wrong_manifest", "chunk_keys")),
    "a missing chunk": ({}, {"chunk_keys": ["{prefix}absent.gz"]}, None, ("missing_object", "chunk_keys")),
    "chunk keys that are a text": ({}, {"chunk_keys": "a"}, None, ("wrong_manifest", "chunk_keys")),
    "more organizations promised": ({"total_orgs": 3}, {"total_orgs": 3}, None, ("wrong_line_count", "total_orgs")),
    "another total in the manifest": ({}, {"total_orgs": 2}, None, ("wrong_manifest", "total_orgs")),
    "a chunk that is no gzip": ({}, {}, b"plain", ("bad_gzip", "chunk_keys")),
    "a truncated chunk": ({}, {}, chunk_of(envelope())[:-9], ("truncated_gzip", "chunk_keys")),
    "a bomb without a line": ({}, {}, gzip.compress(b" " * 70_000_000, 1), ("line_too_long", "chunk_keys")),
    "a bomb of lines": ({}, {}, gzip.compress(b"\n" * 70_000_000, 1), ("wrong_line_count", "total_orgs")),
}


async def test_runs_of_a_bucket(intake_settings, platform, monkeypatch):
    """A broken run is parked by its pointer; the run behind it is copied."""
    monkeypatch.setattr(report_runs, "RETRY", timedelta(0))
    region_lines = [envelope(organization_id="acme")]
    async with platform(intake_settings) as running:
        await running.customers("acme", "behind")
        region, started = running.region, TODAY
        named: dict[str, str] = {}
        for number, (name, (in_pointer, in_manifest, chunk, _)) in enumerate(RUNS.items()):
            run_id = named[name] = f"bad-{number}"
            prefix = f"billing/usage_reports/{YESTERDAY.date()}/{run_id}/"
            changed = dict(in_manifest)
            if isinstance(keys := changed.get("chunk_keys"), list):
                changed["chunk_keys"] = [key.replace("{prefix}", prefix) for key in keys]
            pointer = await region.write_run(
                run_id, day=YESTERDAY, started=started, chunks=[region_lines], manifest=changed
            )
            if chunk is not None:
                await region.put(f"{prefix}chunk_0000.jsonl.gz", chunk)
            await region.point({**pointer, **in_pointer})
        for body in ("%%%", "[" * 50_000, '{"version": NaN}'):
            await region.point(body)
        behind = [{**GOOD, "organization_id": "behind"}]
        await region.point(await region.write_run("behind", day=YESTERDAY, started=started, chunks=[behind]))
        await running.until(lambda: running.events("behind") == (120, 0, 120))

        async def all_parked() -> list[dict[str, Any]]:
            letters = await running.letters()
            return letters if len(letters) >= len(RUNS) + 3 else []

        letters = await running.until(all_parked)
        names = {run_id: name for name, run_id in named.items()}
        found: dict[str, Expected] = {}
        unreadable = 0
        for letter in letters:
            pointer_body = orjson.loads(await whole(running, letter))["body"]
            run_id = next((each for each in names if f'"{each}"' in pointer_body), None)
            if run_id is None:
                assert (letter["reason_code"], letter["attribute"]) == ("invalid_pointer", "body")
                unreadable += 1
            else:
                found[names[run_id]] = said(letter)
        assert found == {name: expected for name, (_, _, _, expected) in RUNS.items()}
        assert (unreadable, len(letters)) == (3, len(RUNS) + 3)

        # Mended: the missing chunk is put where the manifest says, the incomplete one is completed; both are replayed.
        by_run = {letter["subject"]: letter["id"] for letter in letters}
        absent = named["a missing chunk"]
        await region.put(f"billing/usage_reports/{YESTERDAY.date()}/{absent}/absent.gz", chunk_of(envelope()))
        short = named["more organizations promised"]
        three = [envelope(organization_id=f"late-{number}") for number in range(3)]
        await region.put(f"billing/usage_reports/{YESTERDAY.date()}/{short}/chunk_0000.jsonl.gz", chunk_of(*three))
        await running.customers(*(f"late-{number}" for number in range(3)))
        for run_id in (absent, short):
            await running.replay(by_run[run_id])
        late = [f"late-{number}" for number in range(3)]
        await running.until(lambda: all(running.events(each) == (120, 0, 120) for each in (*late, "acme")))
        await running.drained()
        states = {run["run_id"]: run["state"] for run in (await running.get("/v1/report-runs"))["results"]}
        assert (states[absent], states[short], states["behind"]) == ("done", "done", "done")


def native(**changed: Any) -> bytes:
    return orjson.dumps({**NATIVE, **changed})


NATIVE = {
    "report_id": "acme:1",
    "source": "eu",
    "organization_id": "acme",
    "window_start": YESTERDAY,
    "window_end": TODAY,
    "completeness": "complete",
    "as_of": TODAY,
    "counters": {EVENTS: 120},
}
KAFKA: dict[str, tuple[bytes, Expected]] = {
    "not JSON": (b"not json", ("not_json", None)),
    "gzip": (gzip.compress(native()), ("not_json", None)),
    "invalid UTF-8": (b'{"report_id":"\xff"}', ("not_json", None)),
    "nested too deep": (b"[" * 100_000, ("not_json", None)),
    "2^70": (
        native(counters={EVENTS: 1}).replace(b":1}", b":" + str(2**70).encode() + b"}"),
        ("invalid_message", f"counters__{EVENTS}"),
    ),
    "NaN": (native(counters={EVENTS: 1}).replace(b":1}", b":NaN}"), ("invalid_message", f"counters__{EVENTS}")),
    "negative": (native(counters={EVENTS: -1}), ("invalid_message", f"counters__{EVENTS}")),
    "a fraction": (native(counters={EVENTS: 1.5}), ("invalid_message", f"counters__{EVENTS}")),
    "a text": (native(counters={EVENTS: "1"}), ("invalid_message", f"counters__{EVENTS}")),
    "true": (native(counters={EVENTS: True}), ("invalid_message", f"counters__{EVENTS}")),
    "counters that are a list": (native(counters=[]), ("invalid_message", "counters")),
    "an organization nobody knows": (native(organization_id="stranger"), ("unknown_organization", "organization_id")),
    "an organization with NUL": (native(organization_id="a\x00b"), ("invalid_message", "organization_id")),
    "a report id with NUL": (native(report_id="a\x00b"), ("invalid_message", "report_id")),
    "a counter with NUL": (native(counters={"a\x00b": 1}), ("invalid_message", "counters__a\\0b")),
    "no window": (native(window_start=None), ("invalid_message", "window_start")),
    "a window over midnight": (native(window_end=TODAY + timedelta(hours=1)), ("invalid_message", None)),
    "corrected by a source": (native(completeness="corrected"), ("invalid_message", "completeness")),
    "counted next year": (native(as_of=TODAY + timedelta(days=366)), ("as_of_in_the_future", "as_of")),
}


async def test_kafka(intake_settings, platform):
    async with platform(intake_settings) as running:
        await running.customers("acme", "behind")
        for value, _ in KAFKA.values():
            await running.send(topics.USAGE_REPORTS, "acme", value)
        await running.send(topics.USAGE_REPORTS, "acme", native(), native(organization_id="behind"))
        await running.until(lambda: running.events("behind") == (120, 0, 120))
        assert running.events() == (120, 0, 120)
        letters = await collect(running, KAFKA)
        rows = {value: name for name, (value, _) in KAFKA.items()}
        found = {rows[await whole(running, letter)]: said(letter) for letter in letters}
        assert found == {name: expected for name, (_, expected) in KAFKA.items()}
        assert len(letters) == len(found)


async def test_http(intake_settings, platform):
    """The same rows: 400 naming the field; what a queue may not know, a license may not touch (403)."""
    async with platform(intake_settings) as running:
        await running.customers("acme")
        found = {}
        for name, (content, _) in REPORTS.items():
            answer = await running.post(bare(content), organization_id="acme")
            document = answer.json()
            found[name] = (
                answer.status_code,
                said({"reason_code": document.get("code"), "attribute": document.get("attr")})[1],
            )
        wanted = {
            name: (400, None if attribute in ("body", "usage_report") else attribute)
            for name, (_, (_, attribute)) in REPORTS.items()
        } | {
            "empty object": (400, "organization_id"),
            "no organization": (400, "organization_id"),
            "invalid UTF-8": (400, "organization_id"),
            "no date": (400, "organization_id"),
            "an organization nobody knows": (403, "organization_id"),
            # Only an envelope can name two; the report alone is in order.
            "two organizations": (200, None),
        }
        assert found == wanted
        for body, status in ((gzip.compress(b" " * 200_000_000, 1), 413), (gzip.compress(envelope())[:-9], 400)):
            headers = {"Authorization": "Bearer x", "Content-Encoding": "gzip"}
            refused = await running.client.post("/api/usage", content=body, headers=headers)
            assert refused.status_code == status
        good = await running.post({**GOOD, "dwh_total_storage_in_s3_in_mib": 1.5})
        assert good.status_code == 200
        await running.until(lambda: running.events() == (120, 0, 120))
        assert await running.letters() == []


def bare(content: bytes) -> bytes:
    """The report without the envelope that queue and bucket put around it."""
    _, found, report = content.partition(b'"usage_report":')
    return report.removesuffix(b"}") if found else content


def cli(*arguments: str, document: Any) -> str:
    """What a person sees of an answer."""
    transport = httpx.MockTransport(lambda _request: httpx.Response(200, json={"next_after_id": 0, **document}))
    app = build_app(lambda address: client_for(address, transport=transport))
    given = [*arguments, "--url", "http://127.0.0.1:9", "--token", "t"]
    result = CliRunner().invoke(app, given, env={"COLUMNS": "400"})
    assert result.exit_code == 0, result.output
    return result.output

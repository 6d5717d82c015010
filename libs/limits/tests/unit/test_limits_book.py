"""What the copy answers after any events, and what it does when the stream breaks."""

import asyncio
import json

import httpx
import pytest
from quill_limits import LimitsBook, LimitsFollower, LimitsNotLoaded, LimitsRefused
from quill_limits.events import NotAnEventStream, events_in

NOW = 1_790_000_000.0
END = "2026-11-01T00:00:00Z"
END_SECONDS = 1_793_491_200.0


def limits(name, revision, **until):
    meters = {
        key: {"state": "limited" if end else "within", "usage": 1, "quota": 1, "limited_until": end}
        for key, end in until.items()
    }
    return ("limits", {"organization_id": name, "revision": revision, "meters": meters})


def tokens(name, *active, retired=(), replaces=False):
    content = {"organization_id": name, "active": list(active), "retired": list(retired), "replaces": replaces}
    return ("tokens", content)


def snapshot(*events, kind="whole", unknown="allow"):
    return [("snapshot", {"kind": kind, "unknown": unknown}), *events, ("complete", {"age_ms": 0})]


def book_of(*events, **given):
    book = LimitsBook(**given)
    for kind, content in events:
        book.take(kind, content)
    return book


def test_nothing_is_said_before_a_snapshot_is_complete():
    book = book_of(*snapshot(limits("acme", 1, events=None))[:-1])
    with pytest.raises(LimitsNotLoaded):
        book.check("events", organization="acme", at=NOW)


@pytest.mark.parametrize(
    ("asked", "limited", "known"),
    [
        ({"organization": "acme"}, True, True),
        ({"organization": "acme", "at": END_SECONDS}, False, True),
        ({"organization": "acme", "at": END_SECONDS - 0.001}, True, True),
        ({"token": "phc_1"}, True, True),
        ({"token": "phc_2"}, False, True),
        ({"token": "phc_none"}, False, False),
        ({"organization": "nobody"}, False, False),
    ],
    ids=["limited", "its end", "just before", "by token", "another's token", "no such token", "nobody"],
)
def test_answers(asked, limited, known):
    book = book_of(
        *snapshot(
            limits("acme", 1, events=END),
            tokens("acme", "phc_1"),
            limits("beta", 1, events=None),
            tokens("beta", "phc_2"),
        )
    )
    verdict = book.check("events", **{"at": NOW, **asked})
    assert (verdict.limited, verdict.known) == (limited, known)


@pytest.mark.parametrize(
    ("service", "own", "limited"), [("allow", None, False), ("deny", None, True), ("deny", "allow", False)]
)
def test_who_is_unknown_is_answered_by_policy(service, own, limited):
    book = book_of(*snapshot(limits("acme", 1, events=None), unknown=service), unknown=own)
    for asked in ({"organization": "nobody"}, {"token": "phc_none"}):
        assert book.check("events", at=NOW, **asked).limited is limited
    assert book.check("no_such_meter", organization="acme", at=NOW).limited is limited


def test_an_older_revision_changes_nothing_and_a_moved_token_has_one_owner():
    book = book_of(
        *snapshot(limits("acme", 2, events=END), tokens("acme", "phc_1", "phc_2"), limits("beta", 1, events=None)),
        limits("acme", 1, events=None),
        tokens("beta", "phc_1"),
        tokens("acme", retired=["phc_1", "phc_2"]),
    )
    assert book.check("events", organization="acme", at=NOW).limited
    assert book.check("events", token="phc_1", at=NOW).organization_id == "beta"
    assert not book.check("events", token="phc_2", at=NOW).known


def test_a_whole_snapshot_forgets_who_is_not_in_it_and_a_broken_one_nobody():
    book = book_of(*snapshot(limits("acme", 1, events=END), tokens("acme", "phc_1")))
    for kind, content in snapshot(limits("beta", 1, events=None))[:-1]:
        book.take(kind, content)
    book.interrupt()
    for kind, content in snapshot(kind="changes"):
        book.take(kind, content)
    assert book.check("events", token="phc_1", at=NOW).limited
    for kind, content in snapshot(limits("beta", 1, events=None)):
        book.take(kind, content)
    assert len(book) == 1
    assert not book.check("events", token="phc_1", at=NOW).known


async def pieces_of(data, size):
    for first in range(0, len(data), size):
        yield data[first : first + size]


@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_events_are_whole_wherever_the_stream_is_cut(size):
    data = (
        'event: a\nid: e-1\ndata: {"x": "ü"}\n\n: comment\n\nevent: b\ndata: 1\ndata: 2\n\nevent: cut\ndata: 3'.encode()
    )
    events = [event async for event in events_in(pieces_of(data, size))]
    assert [(event.kind, event.text, event.event_id) for event in events] == [
        ("a", '{"x": "ü"}', "e-1"),
        ("b", "1\n2", None),
    ]


async def test_an_event_without_end_is_refused(monkeypatch):
    monkeypatch.setattr("quill_limits.events.EVENT_BYTES_MAX", 100)
    with pytest.raises(NotAnEventStream):
        _ = [event async for event in events_in(pieces_of(b"x" * 1_000, 10))]


def wire(events, first_id=1):
    text = ""
    for number, (kind, content) in enumerate(events, start=first_id):
        id_line = "" if kind in ("snapshot", "heartbeat") else f"id: e-{number}\n"
        text += f"event: {kind}\n{id_line}data: {json.dumps(content)}\n\n"
    return text.encode()


async def until(look):
    async with asyncio.timeout(10):
        while not look():
            await asyncio.sleep(0.01)


async def test_a_stream_that_breaks_is_resumed_at_the_last_event_and_answers_meanwhile():
    asked = []

    def answer(request):
        asked.append(request.headers.get("last-event-id"))
        if len(asked) == 1:
            return httpx.Response(200, content=wire([*snapshot(limits("acme", 1, events=None))]))
        if len(asked) == 2:
            return httpx.Response(503)
        return httpx.Response(200, content=wire(snapshot(limits("acme", 2, events=END), kind="changes"), 10))

    async with LimitsFollower("http://test", token="t", transport=httpx.MockTransport(answer)) as follower:
        await follower.wait_until_loaded(seconds=5)
        assert not follower.is_limited("events", organization="acme")
        await until(lambda: len(asked) >= 3)
        await until(lambda: follower.check("events", organization="acme").limit.state == "limited")
        assert follower.age_seconds() < 5
    assert asked[:3] == [None, "e-3", "e-3"]


async def test_a_refused_token_is_said_and_garbage_is_survived():
    answers = iter([httpx.Response(200, content=b"event: limits\ndata: {\n\n"), httpx.Response(401, text="no")])

    def answer(_request):
        return next(answers, httpx.Response(401, text="no"))

    async with LimitsFollower("http://test", token="t", transport=httpx.MockTransport(answer)) as follower:
        with pytest.raises(LimitsRefused, match="401"):
            await follower.wait_until_loaded(seconds=5)
        assert follower.age_seconds() is None


def scoped(name, revision, *, organization=None, **until):
    """Team 1 has a limit of its own; teams 1 and 2 pool one. ``until`` says when each is limited."""
    kind, content = limits(name, revision, events=organization)
    meters = {
        scope: {"events": {"state": "limited" if end else "within", "usage": 9 - at, "quota": 10, "limited_until": end}}
        for at, (scope, end) in enumerate({"project:web": until.get("web"), "team:1": until.get("team")}.items())
    }
    bound = {"1": ["project:web", "team:1"], "2": ["project:web"]}
    return (kind, {**content, "scopes": {"meters": meters, "teams": bound, "tokens": {"phc_1": "1", "phc_2": "2"}}})


@pytest.mark.parametrize(
    ("limited", "asked", "told"),
    [
        ({}, {"token": "phc_1"}, (False, "organization")),
        ({"team": END}, {"token": "phc_1"}, (True, "team:1")),
        ({"team": END}, {"token": "phc_2"}, (False, "organization")),
        ({"team": END}, {"token": "phc_3"}, (False, "organization")),
        ({"team": END}, {"organization": "acme"}, (False, "organization")),
        ({"team": END}, {"organization": "acme", "team": "1"}, (True, "team:1")),
        ({"web": END}, {"token": "phc_2"}, (True, "project:web")),
        ({"web": END, "team": END}, {"token": "phc_1"}, (True, "project:web")),
        ({"organization": END, "team": END}, {"token": "phc_1"}, (True, "organization")),
        ({"team": END}, {"token": "phc_1", "at": END_SECONDS}, (False, "organization")),
    ],
)
def test_the_tightest_of_organization_project_and_team_holds_and_is_named(limited, asked, told):
    book = book_of(*snapshot(scoped("acme", 1, **limited), tokens("acme", "phc_1", "phc_2", "phc_3")))
    verdict = book.check("events", **{"at": NOW, **asked})
    assert (verdict.limited, verdict.scope) == told
    book.take(*limits("acme", 2, events=None))
    assert not book.check("events", **{"at": NOW, **asked}).limited, "no scopes any more"

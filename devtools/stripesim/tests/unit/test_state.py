"""What the world keeps, takes back and finds again."""

from contextlib import closing

import pytest
from quill_stripesim.clock import ClockFileUnreadable, SimulatedClock
from quill_stripesim.idempotency import KEPT_SECONDS, IdempotencyKeys, Result
from quill_stripesim.journal import Journal, JournalDamaged
from quill_stripesim.listing import page, search
from quill_stripesim.stripe_error import StripeError
from quill_stripesim.world import World


def invoice(world, customer="cus_1", status="draft", **more):
    return world.put({"id": world.new_id("in"), "object": "invoice", "customer": customer, "status": status, **more})


def test_a_rollback_takes_back_objects_indexes_and_ids():
    world = World()
    kept = invoice(world)
    world.commit()

    invoice(world)
    world.put({**kept, "status": "open"})
    world.rollback()

    assert world.all("invoice") == [kept]
    assert world.where("invoice", "status", "open") == []
    assert world.where("invoice", "status", "draft") == [kept]
    assert world.new_id("in") == "in_00000000000002"


def test_a_journal_gives_everything_back_in_its_order(tmp_path):
    path = tmp_path / "stripe.jsonl"
    world = World(Journal(path))
    first, second = invoice(world, note="a\u2028b"), invoice(world)
    world.commit()
    world.remove("invoice", second["id"])
    world.put({**first, "status": "open"})
    world.commit()
    invoice(world)  # never committed: the request was not answered

    with closing(world), closing(World(Journal(path))) as again:
        assert [each["status"] for each in again.all("invoice")] == ["open"]
        assert again.where("invoice", "status", "open")[0]["note"] == "a\u2028b"
        assert again.new_id("in") == "in_00000000000003"


def test_a_torn_last_line_is_a_request_nobody_was_answered_for(tmp_path):
    path = tmp_path / "stripe.jsonl"
    world = World(Journal(path))
    invoice(world)
    world.commit()
    world.close()
    with path.open("a", encoding="utf-8") as file:
        file.write('{"put":[{"id":"in_9"')

    with closing(World(Journal(path))) as again:
        assert len(again.all("invoice")) == 1


def test_a_damaged_line_before_the_last_stops_the_start(tmp_path):
    path = tmp_path / "stripe.jsonl"
    path.write_text('{"put":[\n{"put":[],"remove":[],"counters":{}}\n', encoding="utf-8")

    with pytest.raises(JournalDamaged, match="line 1"):
        World(Journal(path))


@pytest.mark.parametrize(("content", "offset"), [(None, 0), ("", 0), ("3600\n", 3_600), ("-60", -60)])
def test_the_clock_file_moves_the_clock(tmp_path, content, offset):
    file = tmp_path / "clock"
    if content is not None:
        file.write_text(content, encoding="utf-8")

    moved, plain = SimulatedClock(World(), file=file).now(), SimulatedClock(World(), file=None).now()

    assert abs(moved - plain - offset) <= 1


def test_a_clock_file_with_words_in_it_is_an_error(tmp_path):
    file = tmp_path / "clock"
    file.write_text("tomorrow", encoding="utf-8")

    with pytest.raises(ClockFileUnreadable, match="tomorrow"):
        SimulatedClock(World(), file=file).now()


def test_a_key_replays_its_first_result_for_a_day():
    keys = IdempotencyKeys(World())
    result = Result(500, {"error": {}})
    keys.remember("k", "print", result, now=1_000)

    assert keys.find("k", "print", now=1_000 + KEPT_SECONDS - 1) == result
    assert keys.find("k", "print", now=1_000 + KEPT_SECONDS) is None
    assert keys.find("other", "print", now=1_000) is None


def test_a_key_used_for_another_request_is_refused():
    keys = IdempotencyKeys(World())
    keys.remember("k", "print", Result(200, {}), now=1_000)

    with pytest.raises(StripeError) as refused:
        keys.find("k", "other", now=1_000)

    assert (refused.value.status, refused.value.kind) == (400, "idempotency_error")


def test_a_key_in_use_is_a_conflict():
    keys = IdempotencyKeys(World())
    keys.hold("k")

    with pytest.raises(StripeError) as refused:
        keys.find("k", "print", now=1_000)

    assert refused.value.status == 409
    keys.release("k")
    assert keys.find("k", "print", now=1_000) is None


ROWS = [{"id": f"x{number}", "_seq": number, "created": number, "metadata": {"n": str(number)}} for number in range(25)]


def test_pages_join_to_the_whole_list():
    seen, cursor = [], {}
    for _ in range(4):
        answer = page(ROWS, {"limit": 7, **cursor}, url="/v1/x")
        seen += answer["data"]
        cursor = {"starting_after": seen[-1]["id"]}

    assert seen == ROWS
    assert not answer["has_more"]
    assert page(ROWS, {"ending_before": "x3", "limit": 2}, url="/v1/x")["data"] == ROWS[1:3]
    assert len(page(ROWS, {}, url="/v1/x")["data"]) == 10


@pytest.mark.parametrize("params", [{"limit": 0}, {"limit": 101}, {"starting_after": "y"}])
def test_a_page_that_cannot_be_cut_is_refused(params):
    with pytest.raises(StripeError):
        page(ROWS, params, url="/v1/x")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("metadata['n']:'7'", ["x7"]),
        ('metadata["n"]:"7"', ["x7"]),
        ("created>22", ["x24", "x23"]),
        ("created>=22 AND -metadata['n']:'23'", ["x24", "x22"]),
        ("created<2 metadata['n']:'0'", ["x0"]),
        ("metadata['n']:'7 AND created:1'", []),
    ],
)
def test_a_search_finds_by_its_clauses(query, found):
    assert [each["id"] for each in search(ROWS, {"query": query}, url="/v1/x/search")["data"]] == found


@pytest.mark.parametrize("query", ["", "metadata[n]:7", "created>1 OR created<1", "name~'x'", "created>1, created<2"])
def test_a_search_beyond_the_simulated_language_is_refused(query):
    with pytest.raises(StripeError, match="parse"):
        search(ROWS, {"query": query}, url="/v1/x/search")

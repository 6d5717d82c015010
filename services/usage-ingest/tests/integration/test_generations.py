"""v1 beside v2 on real parts: compared whenever either speaks, shadowed on demand, accepted by name (L5, L20)."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from quill_runtime.event_store import PostgresEventStream
from quill_usage_ingest.domain.usage_report import DayKey
from quill_usage_ingest.jobs import GenerationComparing
from quill_usage_ingest.store.counter_slots import CounterSlots
from quill_usage_ingest.store.generations import PostgresGenerations
from quill_usage_ingest.store.postgres import PostgresUsage
from quill_usage_ingest.store.teams import PostgresTeams

pytestmark = pytest.mark.integration

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
DAY = TODAY - timedelta(days=2)
"""The newest day that is settled at any hour of today."""
EVENTS = "event_count_in_period"
PATH = "/v1/generations/comparison"
OPERATOR = {"Authorization": "Bearer operator-token"}


def daily(organization_id: str, events: int, *, day: datetime = DAY, **changed: Any) -> dict[str, Any]:
    teams = {"1": {EVENTS: events}}
    return {
        "organization_id": organization_id,
        "date": day.date().isoformat(),
        EVENTS: events,
        "teams": teams,
        **changed,
    }


async def run_of(running: Any, run_id: str, *reports: dict[str, Any], started: datetime, day: datetime = DAY) -> None:
    pointer = await running.region.write_run(run_id, day=day, started=started, chunks=[reports])
    await running.region.point(pointer)


async def compared(running: Any, **query: Any) -> dict[str, tuple[str, list[tuple[str, int | None, int | None]]]]:
    """Organization → state and differences."""
    states = {"state": ["equal", "equal_zero", "different", "only_v1", "only_v2"], **query}
    document = await running.get(PATH, **states)
    return {
        each["organization_id"]: (
            each["state"],
            [(found["counter"], found["v1"], found["v2"]) for found in each["differences"]],
        )
        for each in document["results"]
    }


async def test_both_generations_are_compared_and_compared_again_when_either_speaks(intake_settings, platform, database):
    async with platform(intake_settings) as running:
        await running.customers("same", "other", "zero", "lost-by-v1", "lost-by-v2")
        at = DAY + timedelta(days=1, minutes=30)
        await run_of(
            running,
            "final",
            daily("same", 10),
            daily("other", 21, new_in_period=3),
            daily("zero", 0),
            daily("lost-by-v1", 5),
            started=at,
        )
        await running.drained()
        for report in (daily("same", 10), daily("other", 20), daily("lost-by-v2", 6)):
            await running.region.send_v1(report)
        expected = {
            "same": ("equal", []),
            "other": ("different", [(EVENTS, 20, 21), ("new_in_period", None, 3)]),
            "zero": ("equal_zero", []),
            "lost-by-v1": ("only_v2", [(EVENTS, None, 5)]),
            "lost-by-v2": ("only_v1", [(EVENTS, 6, None)]),
        }

        async def all_compared() -> bool:
            return await compared(running) == expected

        await running.until(all_compared)
        document = await running.get(PATH)
        (summary,) = document["summary"]
        assert (summary["source"], summary["days"], summary["days_equal"]) == ("eu", 1, 0)
        assert (summary["organization_days"], summary["share_agreeing"]) == (5, "0.400000")
        assert summary["v1_retirement"]["can_be_retired"] is False
        assert {each["organization_id"] for each in document["results"]} == {"other", "lost-by-v1", "lost-by-v2"}

        # Both speak again: v2 corrects itself, v1 is late.
        await run_of(running, "again", daily("other", 20), daily("lost-by-v2", 6), started=at + timedelta(hours=1))
        await running.region.send_v1(daily("lost-by-v1", 5))

        async def all_agree() -> bool:
            return {state for state, _ in (await compared(running)).values()} == {"equal", "equal_zero"}

        await running.until(all_agree)
        verdict = (await running.get(PATH, needed_days=1))["summary"][0]["v1_retirement"]
        assert (verdict["can_be_retired"], verdict["since"]) == (True, DAY.date().isoformat())

        # A voided report has no say: what v2 said before it counts as its word again.
        reports = (await running.get("/v1/usage/other/reports"))["results"]
        newest = next(each for each in reports if each["intake"] == "bucket-v2" and each["note"]["run_id"] == "again")
        void = {"correction_id": "c1", "kind": "void", "actor": "ada", "reason": "x", "report_ids": [newest["id"]]}
        answer = await running.client.post("/v1/usage/other/corrections", json=void, headers=OPERATOR)
        assert answer.status_code == 200, answer.text

        async def differs_again() -> bool:
            return (await compared(running))["other"] == expected["other"]

        await running.until(differs_again)


async def test_a_difference_is_accepted_by_name_and_falls_when_it_becomes_another_one(
    intake_settings, platform, database
):
    async with platform(intake_settings) as running:
        await running.customers("acme", "globex")
        at = DAY + timedelta(days=1, minutes=30)
        await run_of(running, "final", daily("acme", 21), daily("globex", 7), started=at)
        await running.drained()
        await running.region.send_v1(daily("acme", 20))
        await running.region.send_v1(daily("globex", 7))

        async def is_different() -> bool:
            return (await compared(running)).get("acme") == ("different", [(EVENTS, 20, 21)])

        await running.until(is_different)
        asked = {"organization_id": "acme", "day": DAY.date().isoformat(), "source": "eu", "actor": "ada@example.org"}

        async def accept(**changed: Any) -> tuple[int, str | None]:
            body = {**asked, "reason": "v1 misses late events", **changed}
            answer = await running.client.post(f"{PATH}/accept", json=body, headers=OPERATOR)
            return answer.status_code, answer.json().get("code")

        assert await accept(organization_id="globex") == (409, "nothing_to_accept")
        assert await accept(organization_id="stranger") == (404, "not_found")
        assert (await accept(reason=""))[0] in (400, 422)
        assert await accept() == (200, None)
        assert await accept() == (200, None), "the same again is a repeat"
        assert await accept(actor="bob@example.org") == (409, "nothing_to_accept")
        unsigned = await running.client.post(f"{PATH}/accept", json={**asked, "reason": "x"})
        assert unsigned.status_code == 401
        assert (await running.client.get(PATH)).status_code == 401
        (summary,) = (await running.get(PATH, needed_days=1))["summary"]
        assert (summary["accepted"], summary["days_equal"]) == (1, 1)
        assert summary["v1_retirement"]["can_be_retired"] is True
        async with database.begin() as transaction:
            stream = f"generation-difference:acme:{DAY.date()}:eu"
            (event,) = await PostgresEventStream(transaction).read(stream)
        assert (event.actor, event.data["reason"]) == ("ada@example.org", "v1 misses late events")
        assert event.data["differences"] == [[EVENTS, 20, 21]]
        assert (event.data["before"], event.data["after"]) == (
            {"accepted_by": None},
            {"accepted_by": "ada@example.org"},
        )

        # The same words again leave it accepted; other words do not.
        await running.region.send_v1(daily("acme", 20))
        await running.drained()
        await running.until(lambda: _accepted(running, True))
        await running.region.send_v1(daily("acme", 19))
        await running.until(lambda: _accepted(running, False))


async def _accepted(running: Any, wanted: bool) -> bool:
    (found,) = (await running.get(PATH))["results"]
    return (found["accepted"] is not None) is wanted


@pytest.mark.parametrize("shadowed", ["v2", "eu=v1"])
async def test_a_shadowed_generation_is_kept_and_compared_and_does_not_count(
    intake_settings, platform, database, shadowed
):
    looks_on = shadowed[-2:]
    counted = 30 if looks_on == "v2" else 40
    settings = intake_settings.model_copy(update={"usage_shadowed_generations": shadowed})
    async with platform(settings) as running:
        await running.customers("acme")
        await run_of(running, "final", daily("acme", 40), started=DAY + timedelta(days=1, minutes=30))
        await running.drained()
        await running.region.send_v1(daily("acme", 30))

        async def is_compared() -> bool:
            return (await compared(running)).get("acme") == ("different", [(EVENTS, 30, 40)])

        await running.until(is_compared)
        await running.until(lambda: running.events() == (counted, 0, counted))
        await running.drained()
        assert running.events() == (counted, 0, counted)
        kept = (await running.get("/v1/usage/acme/reports"))["results"]
        verdicts = {each["intake"][-2:]: each["verdict"] for each in kept}
        assert verdicts == {"v1": "applied", "v2": "applied"} | {looks_on: "shadowed"}
        explained = await running.get("/v1/usage/acme/explain", meter="events")
        assert explained["is_equal"], explained["sentence"]
        recomputed = await running.client.post("/v1/usage/acme/recompute", headers=OPERATOR)
        assert recomputed.json()["repaired_periods"] == []
        async with database.begin() as transaction:
            key = DayKey("acme", DAY, "eu")
            (window,) = (await PostgresUsage(transaction, CounterSlots()).windows_of_days({key})).values()
            rows = await PostgresTeams(transaction, CounterSlots()).team_rows_of_days({key})
        assert window.cells[EVENTS].quantity == counted
        assert [row.cells[EVENTS].quantity for row in rows.values()] == [counted]


async def test_pages_follow_each_other_and_spans_are_bounded(intake_settings, platform):
    async with platform(intake_settings) as running:
        names = [f"org-{number}" for number in range(7)]
        await running.customers(*names)
        reports = [daily(name, 1) for name in names]
        await run_of(running, "final", *reports, started=DAY + timedelta(days=1, minutes=30))

        async def all_there() -> bool:
            return len(await compared(running)) == len(names)

        await running.until(all_there)
        seen, after, pages = [], None, 0
        while pages == 0 or after is not None:
            page = await running.get(PATH, limit=3, **({"after": after} if after else {}))
            seen += [each["organization_id"] for each in page["results"]]
            after, pages = page["next_after"], pages + 1
        assert (seen, pages) == (names, 3)
        for query, attribute in [
            ({"from": "2026-10-05", "to": "2026-10-05"}, "to"),
            ({"from": "2024-01-01", "to": "2026-10-05"}, "to"),
            ({"from": "0001-01-01"}, "from"),
            ({"to": "9999-12-31"}, "to"),
            ({"after": "nonsense"}, "after"),
        ]:
            answer = await running.client.get(PATH, params=query, headers=OPERATOR)
            assert (answer.status_code, answer.json()["attr"]) == (400, attribute)


async def test_a_source_with_one_generation_costs_no_mark_and_no_comparison(intake_settings, platform, database):
    async with platform(intake_settings) as running:
        await running.customers("acme")
        assert (await running.post(daily("acme", 3))).status_code == 200
        await running.region.send_v1(daily("acme", 3))
        await running.drained()
        async with database.begin() as transaction:
            assert await PostgresGenerations(transaction).take_marks(limit=10) == ([], 0)
        assert await GenerationComparing(database=database).run(TODAY) == 0
        assert (await running.get(PATH))["summary"] == []

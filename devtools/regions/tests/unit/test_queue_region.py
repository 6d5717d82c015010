"""The region of queues: what it sends ends with the truth, and one difference is planted where nobody pays for it."""

import base64
import gzip
import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from quill_contracts.catalog_file import load_catalog
from quill_regions.days import live_through
from quill_regions.organizations import QUEUE_REGION, REGIONS, draw_organizations
from quill_regions.queue_region import QueueRegion, plan_queues

SEED = 7
DAYS = [date(2026, 10, 1) + timedelta(days=n) for n in range(9)]
DEADLINE = datetime(2026, 10, 11, tzinfo=UTC)
ORGANIZATIONS = draw_organizations(seed=SEED, count=120)
OWN = [each for each in ORGANIZATIONS if each.source == QUEUE_REGION]


def planned(*, misbehave: bool = True):
    return plan_queues(ORGANIZATIONS, DAYS, seed=SEED, misbehave=misbehave, deadline=DEADLINE)


def test_some_organizations_live_there_and_none_of_them_hosts_itself():
    assert len(OWN) == 120 // 11
    assert not any(each.self_hosted for each in OWN)
    assert QUEUE_REGION not in REGIONS


def test_the_newest_complete_run_of_each_day_is_the_truth_in_whatever_order_it_comes():
    sent = [each for each in planned().deliveries if each.generation == "v2"]
    for on in DAYS:
        last = max((each for each in sent if each.date == on), key=lambda each: (each.complete, each.started))
        assert last.complete
        assert [day.totals for day in last.days] == [live_through(each, on, seed=SEED).totals for each in OWN]
        seen = [each for each in sent if each.date == on and not each.complete]
        assert len(seen) == 3
        assert all(
            a.totals[name] <= b.totals[name]
            for each in seen
            for a, b in zip(each.days, last.days, strict=True)
            for name in b.totals
        )


def test_pointers_come_twice_and_after_later_ones_only_when_asked_for():
    def overtaken(sent: Any) -> int:
        finals = {each.date: each.at for each in sent if each.complete and each.generation == "v2"}
        return sum(not each.complete and each.at > finals[each.date] for each in sent)

    wild, tame = planned().deliveries, planned(misbehave=False).deliveries
    assert overtaken(wild) > 0
    assert overtaken(tame) == 0
    assert len({each.run_id for each in tame}) == len(tame)
    assert len({each.run_id for each in wild}) < len(wild)


def test_exactly_one_counter_of_one_day_differs_and_no_meter_is_made_of_it():
    plan = planned()
    assert plan.planted is not None
    found = []
    for delivery in plan.deliveries:
        if delivery.generation != "v1":
            continue
        assert delivery.date >= plan.v1_from
        for said in delivery.days:
            true = live_through(said.organization, said.date, seed=SEED).totals
            found += [
                (said.organization.organization_id, said.date, counter, said.totals[counter], true[counter])
                for counter in true
                if said.totals[counter] != true[counter]
            ]
    planted = plan.planted
    assert found == [(planted.organization_id, planted.date, planted.counter, planted.v1, planted.v2)]
    assert planted.counter not in {product.counter for product in load_catalog().products}
    assert planned(misbehave=False).planted is None


class Recorder:
    """Both clients at once: notes what is put and sent."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.messages: list[dict[str, Any]] = []

    async def put_object(self, *, Bucket: str, Key: str, Body: bytes) -> None:  # noqa: N803 - the client's names
        self.objects[Key] = Body

    async def send_message(self, **message: Any) -> None:
        self.messages.append(message)


@pytest.fixture
def region() -> tuple[QueueRegion, Recorder]:
    made = QueueRegion(
        endpoint_url="http://127.0.0.1:1", queue_v1="one", queue_v2="two", bucket="b", key="k", secret="s"
    )
    recorder = Recorder()
    made._sqs = made._s3 = recorder
    return made, recorder


async def test_manifest_pointer_and_chunks_tell_the_same_story(region):
    made, recorder = region
    final = next(each for each in planned().deliveries if each.complete and each.generation == "v2")
    await made.send([final, final])
    first, second = (json.loads(message["MessageBody"]) for message in recorder.messages)
    assert first == second, "the same run announced twice"
    manifest = json.loads(recorder.objects[first["manifest_key"]])
    assert {**first, "chunk_keys": manifest["chunk_keys"]} == manifest
    lines = [
        json.loads(line)
        for key in manifest["chunk_keys"]
        for line in gzip.decompress(recorder.objects[key]).splitlines()
    ]
    assert (len(manifest["chunk_keys"]), len(lines)) == (first["chunk_count"], first["total_orgs"])
    assert [line["organization_id"] for line in lines] == [each.organization_id for each in OWN]


async def test_a_v1_message_is_base64_of_gzip_of_the_envelope(region):
    made, recorder = region
    delivery = next(each for each in planned().deliveries if each.generation == "v1")
    await made.send([delivery])
    assert len(recorder.messages) == len(delivery.days)
    opened = json.loads(gzip.decompress(base64.b64decode(recorder.messages[0]["MessageBody"])))
    assert opened["organization_id"] == opened["usage_report"]["organization_id"] == OWN[0].organization_id
    assert recorder.messages[0]["MessageAttributes"]["content_encoding"]["StringValue"] == "gzip"

"""v1 beside v2: the region of queues sends both, and billing must find exactly what was planted (L5, L20)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quill_regions.organizations import QUEUE_REGION
from quill_regions.queue_region import QueueRegion
from quill_stack import queues
from quill_stack.system import System

from quill_demo.billing_client import BillingClient
from quill_demo.checks import Comparison
from quill_demo.evidence import METER
from quill_demo.world import World

PATH = "/v1/generations/comparison"
NEEDED_DAYS = 3
PERSON = {"actor": "ada@example.test", "reason": "demo: v1 counts deleted mobile recordings, which nobody pays for"}


@dataclass(frozen=True, slots=True)
class Generations:
    """What the comparison said, before and after the planted difference was accepted, for printing."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    explained: Mapping[str, Any]


def region_of_queues(system: System) -> QueueRegion:
    """The region, speaking to the queues and the bucket of this stack."""
    component = system.components["queues"]
    return QueueRegion(
        endpoint_url=component.url,
        queue_v1=queues.queue_url(component.port, queues.QUEUE_V1),
        queue_v2=queues.queue_url(component.port, queues.QUEUE_V2),
        bucket=queues.BUCKET,
        key=queues.CREDENTIALS["AWS_ACCESS_KEY_ID"],
        secret=queues.CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )


async def compared(world: World, client: BillingClient) -> Comparison:
    """Of every organization and day that v1 took part in: all agree but what was planted."""
    comparison = Comparison()
    document = await _asked(world, client)
    planted = world.queues.planted
    wanted = [] if planted is None else [(planted.organization_id, planted.date.isoformat(), "different")]
    found = [(each["organization_id"], each["day"], each["state"]) for each in document["results"]]
    comparison.expect("v1 against v2, what differs", said=found, true=wanted)
    if planted is not None and document["results"]:
        numbers = [(each["counter"], each["v1"], each["v2"]) for each in document["results"][0]["differences"]]
        comparison.expect("the planted difference", said=numbers, true=[(planted.counter, planted.v1, planted.v2)])
    days = (world.end.date() - world.queues.v1_from).days
    own = [each for each in world.organizations if each.source == QUEUE_REGION]
    summary = next((each for each in document["summary"] if each["source"] == QUEUE_REGION), None)
    said = (0, 0) if summary is None else (summary["organization_days"], summary["organization_days_agreeing"])
    comparison.expect(
        "organization-days compared, and agreeing", said=said, true=(days * len(own), days * len(own) - len(wanted))
    )
    comparison.done = int(comparison.is_equal)
    comparison.evidence = document
    return comparison


async def accepted(world: World, client: BillingClient) -> tuple[Comparison, Generations]:
    """A named person accepts the planted difference; one number is explained from reports of both generations."""
    comparison = Comparison(done=1)
    before = await _asked(world, client)
    planted = world.queues.planted
    organization_id = next(each.organization_id for each in world.organizations if each.source == QUEUE_REGION)
    if planted is not None:
        organization_id = planted.organization_id
        what = {"organization_id": organization_id, "day": planted.date.isoformat(), "source": QUEUE_REGION}
        said = await client.call("POST", f"{PATH}/accept", json={**what, **PERSON})
        comparison.expect("accepted by", said=said["accepted"]["actor"], true=PERSON["actor"])
    after = await _asked(world, client)
    (summary,) = after["summary"]
    comparison.expect("every day equal or accepted", said=summary["days_equal"], true=summary["days"])
    start = world.start.strftime("%Y-%m-%dT%H:%M:%SZ")
    explained = await client.call("GET", f"/v1/usage/{organization_id}/explain?meter={METER}&period_start={start}")
    true = world.expected[organization_id].usage.get(METER, 0)
    comparison.expect("explained from both generations", said=explained["usage"]["to_date"], true=true)
    ways = {each["intake"] for each in explained["reports"]}
    comparison.expect("ways it came", said=ways, true={"queue-v1", "bucket-v2"})
    return comparison, Generations(before, after, explained)


async def _asked(world: World, client: BillingClient) -> dict[str, Any]:
    span = f"from={world.queues.v1_from}&to={world.end.date()}&source={QUEUE_REGION}"
    document: dict[str, Any] = await client.call("GET", f"{PATH}?{span}&needed_days={NEEDED_DAYS}&limit=500")
    return document

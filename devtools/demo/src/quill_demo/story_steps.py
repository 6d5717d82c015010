"""What customers of the stories do in the middle of the month, each step at a known instant."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from quill_contracts.usage import UsageReport
from quill_regions.days import Day
from quill_regions.misbehaviour import Delivery
from quill_regions.organizations import Organization
from quill_regions.sources import CloudRegion

from quill_demo.billing_client import BillingClient
from quill_demo.entrance import Entrance
from quill_demo.sandbox_time import SandboxTime

DAY = timedelta(days=1)
PERSON = {"actor": "ada@example.test", "reason": "demo: what a day really held"}
COUNTERS = {"events": "event_count_in_period", "recordings": "recording_count_in_period"}
PRODUCTS = {"events": "product_analytics", "recordings": "session_replay"}

Do = Callable[["Scene", "Story"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Story:
    """One customer's plan.

    Attributes:
        subject: which kind of change it shows; comparisons are named by it.
        steps: what happens, by time since the month began; in order.
        billed: events and recordings that must be charged.
        compared: what a limit on events must be compared with at the end, and whether it is reached.
        seats: quantities held one after the other, from each change on; empty without seats.
    """

    subject: str
    organization: Organization
    mode: str
    steps: Sequence[tuple[timedelta, Do]]
    billed: Mapping[str, int] = field(default_factory=dict)
    compared: tuple[int, bool] | None = None
    seats: tuple[int, ...] = ()


@dataclass(slots=True)
class Scene:
    """Where stories are played."""

    start: datetime
    end: datetime
    client: BillingClient
    entrance: Entrance
    region: CloudRegion
    time: SandboxTime

    async def report(self, story: Story, meter: str, day: int, quantity: int, *, at: timedelta, done: bool) -> None:
        """What the region counts of a day, as of an instant after the month's start."""
        window = self.start + day * DAY
        as_of = self.start + at
        lived = Day(story.organization, window.date(), {"1": {COUNTERS[meter]: quantity}})
        report = UsageReport(
            report_id=f"story:{story.organization.organization_id}:{meter}:{as_of.isoformat()}:{day}",
            source=story.organization.source,
            organization_id=story.organization.organization_id,
            window_start=window,
            window_end=window + DAY,
            completeness="complete" if done else "partial",
            as_of=as_of,
            counters=lived.totals,
        )
        await self.region.send([Delivery(self.time.now(), lived, report)])


def used(day: int, quantity: int, meter: str = "events") -> tuple[timedelta, Do]:
    """A whole day, told in the night after it."""
    at = (day + 1) * DAY + timedelta(hours=2)

    async def do(scene: Scene, story: Story) -> None:
        await scene.report(story, meter, day, quantity, at=at, done=True)

    return at, do


def so_far(day: int, quantity: int, meter: str = "events", *, hour: int = 11) -> tuple[timedelta, Do]:
    """What was counted of a day by an hour of it."""
    at = day * DAY + timedelta(hours=hour)

    async def do(scene: Scene, story: Story) -> None:
        await scene.report(story, meter, day, quantity, at=at, done=False)

    return at, do


def nothing_yet(*meters: str) -> list[tuple[timedelta, Do]]:
    """The region's word that nothing was used before the customer subscribed, in the month's first moments."""
    return [so_far(0, 0, meter, hour=0) for meter in meters or ("events",)]


def subscribes(at: timedelta = timedelta(), *products: str, **quantities: int) -> tuple[timedelta, Do]:
    """To events and recordings, unless other products are named."""

    async def do(scene: Scene, story: Story) -> None:
        body = {
            "products": list(products or PRODUCTS.values()),
            "quantities": quantities,
            "collection_mode": story.mode,
        }
        path = f"/v1/customers/{story.organization.organization_id}/subscription"
        await scene.client.call("POST", path, json=body, expect=(200, 201, 409))

    return at, do


def cancels(at: timedelta) -> tuple[timedelta, Do]:
    """Everything, at once."""

    async def do(scene: Scene, story: Story) -> None:
        path = f"/v1/customers/{story.organization.organization_id}/subscription"
        await scene.client.call("DELETE", path, expect=(200, 204, 409))

    return at, do


def limits(at: timedelta, dollars: int | None) -> tuple[timedelta, Do]:
    """The most the customer wants to pay for events; None removes the limit."""

    async def do(scene: Scene, story: Story) -> None:
        body = {"custom_limits_usd": {PRODUCTS["events"]: dollars}}
        token = scene.entrance.token(story.organization)
        await scene.client.call("PATCH", "/api/billing/", token=token, json=body)

    return at, do


def tries(at: timedelta, until: timedelta | None) -> tuple[timedelta, Do]:
    """A free trial is set, moved, or (None) removed."""

    async def do(scene: Scene, story: Story) -> None:
        end = None if until is None else (scene.start + until).isoformat()
        path = f"/v1/customers/{story.organization.organization_id}"
        await scene.client.call("PATCH", path, json={"free_trial_until": end})

    return at, do


def holds_seats(at: timedelta, quantity: int) -> tuple[timedelta, Do]:
    """As many seats from now on."""

    async def do(scene: Scene, story: Story) -> None:
        path = f"/v1/customers/{story.organization.organization_id}/subscription/quantities"
        await scene.client.call("POST", path, json={"quantities": {"seats": quantity}})

    return at, do


def corrects(at: timedelta, meter: str, day: int, quantity: int) -> tuple[timedelta, Do]:
    """A person says what a day really held."""

    async def do(scene: Scene, story: Story) -> None:
        start = scene.start + day * DAY
        span = {"start": start.isoformat(), "end": (start + DAY).isoformat()}
        window = {"window_start": span["start"], "window_end": span["end"], "counters": {COUNTERS[meter]: quantity}}
        order = {
            "correction_id": f"story-{meter}-{day}",
            "kind": "replace",
            "source": story.organization.source,
            **span,
            "windows": [window],
            **PERSON,
        }
        path = f"/v1/usage/{story.organization.organization_id}/corrections"
        await scene.client.call("POST", path, json=order)

    return at, do


def takes_back(at: timedelta, meter: str, day: int) -> tuple[timedelta, Do]:
    """The correction of a day is reverted."""

    async def do(scene: Scene, story: Story) -> None:
        path = f"/v1/usage/{story.organization.organization_id}/corrections/story-{meter}-{day}/revert"
        await scene.client.call("POST", path, json=PERSON)

    return at, do

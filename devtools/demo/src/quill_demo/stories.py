"""Customers who change in the middle of the month: limits, cancellations, trials, seats, corrections.

Each plays a plan with known instants and counts. What must come out is worked out here, by adding up what was used
while it was paid, and with the truth's own price arithmetic: nothing of Quill's pricing is asked.
"""

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from quill_contracts.catalog_file import CatalogDocument
from quill_contracts.usage import UsageReport
from quill_regions.days import Day
from quill_regions.misbehaviour import Delivery
from quill_regions.organizations import REGIONS, Organization
from quill_regions.sources import CloudRegion
from quill_regions.truth import amount

from quill_demo.billing_client import BillingClient
from quill_demo.checks import Comparison
from quill_demo.entrance import Entrance
from quill_demo.sandbox_time import SandboxTime

M = 1_000_000
DAY = timedelta(days=1)
NOON = timedelta(hours=12)
CENT = Decimal("0.01")
REGION = REGIONS[0]
PERSON = {"actor": "ada@example.test", "reason": "demo: what a day really held"}
COUNTERS = {"events": "event_count_in_period", "recordings": "recording_count_in_period"}
PRODUCTS = {"events": "product_analytics", "recordings": "session_replay"}
PLAYED_DAYS = 5
"""Stories end here, so that they fit into the shortest month that is played."""

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


# -- what may happen ---------------------------------------------------------------------------------------------------


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


# -- the stories -------------------------------------------------------------------------------------------------------

_PLANS: Sequence[tuple[str, list[tuple[timedelta, Do]], dict[str, Any]]] = (
    (
        "limit change",  # 3 M were used when the limit fell to $60, and stay billed; nothing more is
        [subscribes(), used(0, 2 * M), so_far(1, M), limits(DAY + NOON, 60), used(1, 3 * M), used(3, 2 * M)],
        {"billed": {"events": 3 * M}, "compared": (7 * M, True)},
    ),
    (
        "limit change",  # down to nothing after 2.5 M, and lifted: all that stands above it is billed
        [
            subscribes(),
            used(0, 2 * M),
            so_far(1, M // 2),
            limits(DAY + NOON, 0),
            used(1, M),
            limits(3 * DAY + NOON, None),
            used(3, 2 * M),
        ],
        {"billed": {"events": 5 * M}, "compared": (5 * M, False)},
    ),
    (
        "cancellation",  # the day's report comes when the customer has left
        [subscribes(), used(0, 2 * M), so_far(1, M), cancels(DAY + NOON), used(1, 3 * M)],
        {"billed": {"events": 3 * M}, "compared": (5 * M, True)},
    ),
    (
        "cancellation",  # left on the second day with 2.5 M, back on the fourth: what lay between is free
        [
            subscribes(),
            used(0, 2 * M),
            so_far(1, M // 2),
            cancels(DAY + NOON),
            used(1, M),
            used(2, M),
            so_far(3, M // 2),
            subscribes(3 * DAY + NOON),
            used(3, 2 * M),
        ],
        {"billed": {"events": 4 * M}, "compared": (4 * M, False)},
    ),
    (
        "trial",  # subscribed in a trial that ends at noon of the third day, when 1 M of it is counted
        [
            tries(timedelta(), 2 * DAY + NOON),
            subscribes(DAY),
            used(0, 2 * M),
            used(1, 2 * M),
            so_far(2, M),
            used(2, 3 * M // 2),
            used(3, 2 * M),
        ],
        {"billed": {"events": 5 * M // 2}, "compared": (5 * M // 2, False)},
    ),
    (
        "trial",  # a trial of a month that is moved, and then removed at noon of the second day
        [
            tries(timedelta(), 30 * DAY),
            tries(timedelta(hours=1), 20 * DAY),
            subscribes(timedelta(hours=2)),
            used(0, 4 * M),
            so_far(1, M),
            tries(DAY + NOON, None),
            used(1, 4 * M),
        ],
        {"billed": {"events": 3 * M}, "compared": (3 * M, False)},
    ),
    (
        "seats",
        [subscribes(timedelta(), "seats", seats=3), holds_seats(DAY + NOON, 30), holds_seats(3 * DAY, 10)],
        {"seats": (3, 30, 10)},
    ),
    (
        "seats",
        [subscribes(timedelta(), "seats", seats=8), holds_seats(2 * DAY, 1), cancels(4 * DAY)],
        {"seats": (8, 1, 0)},
    ),
    (
        "correction inside the month",  # of recordings, after the limit of events has fallen to nothing (K1)
        [
            subscribes(),
            used(0, 12 * M),
            used(0, 9_000, "recordings"),
            limits(DAY + NOON, 0),
            corrects(2 * DAY, "recordings", 0, 6_000),
        ],
        {"billed": {"events": 12 * M, "recordings": 6_000}, "compared": (12 * M, True)},
    ),
    (
        "correction inside the month",  # of events, taken back two days later
        [
            subscribes(),
            used(0, 12 * M),
            used(0, 9_000, "recordings"),
            limits(DAY + NOON, 0),
            corrects(2 * DAY, "events", 0, 2 * M),
            takes_back(4 * DAY, "events", 0),
        ],
        {"billed": {"events": 12 * M, "recordings": 9_000}, "compared": (12 * M, True)},
    ),
)
SUBJECTS = tuple(dict.fromkeys(subject for subject, _, _ in _PLANS))


def stories(*, seed: int) -> list[Story]:
    """Every plan in both ways of collecting."""
    found = []
    for number, (subject, steps, outcome) in enumerate(_PLANS):
        for mode in ("stripe-rates", "quill-rates"):
            name = f"Story {number + 1:02d} ({subject}, {mode})"
            organization = Organization(
                organization_id=str(uuid.uuid5(uuid.NAMESPACE_URL, f"quill-story:{seed}:{number}:{mode}")),
                name=name,
                email=f"story-{number + 1:02d}-{mode}@example.test",
                source=REGION,
                self_hosted=False,
                plan="free",
                billing_limits_usd={},
                appetite={},
                teams=("1",),
            )
            first = [] if outcome.get("seats") else nothing_yet("events", "recordings")
            ordered = sorted([*first, *steps], key=lambda step: step[0])
            found.append(Story(subject, organization, mode, ordered, **outcome))
    return found


@dataclass(slots=True)
class Stage:
    """Plays the stories while the month goes by."""

    scene: Scene
    played: Sequence[Story]
    _until: timedelta = timedelta(microseconds=-1)

    def next_after(self, until: datetime) -> list[datetime]:
        """The instants up to ``until`` at which something happens, in order."""
        offsets = {at for story in self.played for at, _ in story.steps if at > self._until}
        return sorted(self.scene.start + at for at in offsets if self.scene.start + at <= until)

    async def play(self, until: datetime) -> None:
        """Everything that is due by then and has not happened yet, at its instant."""
        for instant in self.next_after(until):
            self.scene.time.reach(instant)
            for story in self.played:
                for at, do in story.steps:
                    if self.scene.start + at == instant:
                        await do(self.scene, story)
            self._until = instant - self.scene.start


# -- what must come out ------------------------------------------------------------------------------------------------


def metered_amount(story: Story, catalog: CatalogDocument) -> Decimal:
    """What the charged quantities cost, in dollars."""
    total = Decimal(0)
    for meter, quantity in story.billed.items():
        product = catalog.product(PRODUCTS[meter])
        assert product is not None
        total += amount(product.price, quantity)
    return total


def seats_amount(story: Story, instants: Sequence[datetime], *, start: datetime, end: datetime) -> Decimal:
    """Twenty dollars a seat: each change costs the difference for the time that is left (D18), rounded by itself."""
    total, held = Decimal(0), 0
    for at, quantity in zip(instants, story.seats, strict=True):
        exact = Decimal(20 * (quantity - held)) * _exact_seconds(end - at) / _exact_seconds(end - start)
        total += abs(exact).quantize(CENT, ROUND_HALF_UP).copy_sign(exact)
        held = quantity
    return total


def _exact_seconds(span: timedelta) -> Decimal:
    return Decimal(span // timedelta(microseconds=1)) / 1_000_000


class Told:
    """What billing says of the stories, compared with what must come out; one comparison per subject and question."""

    def __init__(self, scene: Scene, played: Sequence[Story], catalog: CatalogDocument) -> None:
        self._scene = scene
        self._played = played
        self._catalog = catalog

    async def amount(self, story: Story) -> Decimal:
        if not story.seats:
            return metered_amount(story, self._catalog)
        path = f"/v1/customers/{story.organization.organization_id}/history"
        changes = (await self._scene.client.call("GET", path))["results"]
        instants = [datetime.fromisoformat(each["at"]) for each in changes if each["type"].startswith("Subscription")]
        instants += [datetime.fromisoformat(each["at"]) for each in changes if each["type"] == "QuantitiesChanged"]
        return seats_amount(story, sorted(instants), start=self._scene.start, end=self._scene.end)

    async def pages(self, subject: str) -> Comparison:
        """``GET /api/billing``: what is owed so far."""
        comparison = Comparison()
        for story in self._of(subject):
            token = self._scene.entrance.token(story.organization)
            page = await self._scene.client.call("GET", "/api/billing", token=token)
            said = Decimal(page["customer"]["current_total_amount_usd"])
            comparison.expect(f"{story.organization.name} page", said=said, true=await self.amount(story))
        return _counted(comparison)

    async def limits(self, subject: str) -> Comparison:
        """Quota checks: with which usage the limit is compared, and whether it is reached."""
        comparison = Comparison()
        for story in self._of(subject):
            if story.compared is not None:
                path = f"/v1/quota/{story.organization.organization_id}/events"
                answer = await self._scene.client.call("GET", path)
                usage, is_limited = story.compared
                comparison.expect(f"{story.organization.name} compared usage", said=answer["usage"], true=usage)
                comparison.expect(f"{story.organization.name} allowed", said=answer["allowed"], true=not is_limited)
        return _counted(comparison)

    async def invoices(self, subject: str) -> Comparison:
        """One invoice each, of exactly this total."""
        comparison = Comparison()
        for story in self._of(subject):
            name, found = story.organization.name, await self._invoices_of(story)
            comparison.expect(f"{name} number of invoices", said=len(found), true=1)
            for invoice in found:
                said = Decimal(invoice["total_minor"]) / 100
                comparison.expect(f"{name} invoice", said=said, true=await self.amount(story))
        return _counted(comparison)

    async def at_stripe(self, subject: str) -> Comparison:
        """Stripe's own invoice is the same to the cent, and paid."""
        comparison = Comparison()
        for story in self._of(subject):
            for invoice in await self._invoices_of(story):
                name = story.organization.name
                comparison.expect(f"{name} against Stripe", said=invoice["reconciliation"], true="equal")
                comparison.expect(f"{name} status", said=invoice["status"], true="paid")
        return _counted(comparison)

    async def _invoices_of(self, story: Story) -> list[dict[str, Any]]:
        path = f"/v1/invoices?organization_id={story.organization.organization_id}"
        found: list[dict[str, Any]] = (await self._scene.client.call("GET", path))["results"]
        return found

    def _of(self, subject: str) -> list[Story]:
        return [story for story in self._played if story.subject == subject]


def _counted(comparison: Comparison) -> Comparison:
    comparison.done = comparison.compared - len(comparison.differences)
    return comparison

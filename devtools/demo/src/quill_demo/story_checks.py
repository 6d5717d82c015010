"""Compares what billing answers about the stories with what must come out, without using Quill's pricing."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from quill_contracts.catalog_file import CatalogDocument
from quill_regions.truth import amount

from quill_demo.checks import Comparison
from quill_demo.story_steps import PRODUCTS, Scene, Story

CENT = Decimal("0.01")


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

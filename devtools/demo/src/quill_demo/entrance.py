"""How everybody gets in: licenses for regions and instances, customers, subscriptions, billing limits."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from quill_regions.organizations import QUEUE_REGION, REGIONS, Organization
from quill_regions.tokens import billing_token

from quill_demo.billing_client import CONCURRENCY, BillingClient
from quill_demo.sandbox_time import SandboxTime
from quill_demo.world import World

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Activation:
    """What an instance saw when it tried its new license key (wire contract 2: only 200 counts)."""

    source: str
    license_id: str
    license_type: str
    organization: str


class Entrance:
    """Registers the world with billing."""

    def __init__(self, *, world: World, client: BillingClient, time: SandboxTime) -> None:
        self._world = world
        self._client = client
        self._time = time
        self.activations: list[Activation] = []

    def token(self, organization: Organization, **claims: Any) -> str:
        """A fresh token of the organization's region or instance."""
        return billing_token(
            self._world.license_keys[organization.source],
            organization_id=organization.organization_id,
            organization_name=organization.name,
            now=self._time.now(),
            **claims,
        )

    async def issue_licenses(self, done: Callable[[], None]) -> None:
        """One license per cloud region by the operator; each instance signs itself up."""
        for region in (*REGIONS, QUEUE_REGION):
            await self._issue(region, {"type": "cloud", "email": f"{region}@example.test", "organization_name": region})
            done()
        for organization in self._world.instances:
            body = {"type": "scale", "email": organization.email, "organization_name": organization.name}
            await self._issue(organization.source, body)
            done()

    async def _issue(self, source: str, body: dict[str, str]) -> None:
        answer = await self._client.call(
            "POST",
            "/v1/licenses",
            json={**body, "source": source},
            headers={"Idempotency-Key": f"quill-demo-seed-{self._world.seed:04d}-{source}"},
        )
        self._world.license_keys[source] = answer["license_key"]

    async def register(self, organizations: Iterable[Organization], done: Callable[[], None]) -> None:
        """First visit of each organization, its projects, its subscription and its billing limit."""
        await in_parallel([partial(self._register, organization, done) for organization in organizations])

    async def _register(self, organization: Organization, done: Callable[[], None]) -> None:
        client = self._client
        seen = await client.call("GET", "/api/billing", token=self.token(organization), expect=(200,))
        if organization.self_hosted:
            key = self._world.license_keys[organization.source]
            self.activations.append(
                Activation(organization.source, key.partition("::")[0], seen["license"]["type"], organization.name)
            )
        projects = [{"team_id": team, "api_token": token} for team, token in organization.project_tokens.items()]
        path = f"/v1/customers/{organization.organization_id}"
        await client.call("PUT", f"{path}/projects", json=projects)
        if organization.plan != "free":
            products = [product.key for product in self._world.catalog.products if product.usage_key]
            # 409 after a retry: the first attempt was committed before its answer was lost.
            await client.call("POST", f"{path}/subscription", json={"products": products}, expect=(200, 201, 409))
        if organization.billing_limits_usd:
            await client.call(
                "PATCH",
                "/api/billing/",
                token=self.token(organization),
                json={"custom_limits_usd": organization.billing_limits_usd},
            )
        done()


async def in_parallel(work: list[Callable[[], Awaitable[T]]]) -> list[T]:
    """Run calls side by side, a few at a time; the first failure ends the whole."""
    gate = asyncio.Semaphore(CONCURRENCY)

    async def one(call: Callable[[], Awaitable[T]]) -> T:
        async with gate:
            return await call()

    return list(await asyncio.gather(*(one(call) for call in work)))

"""Every call that PostHog's client makes reaches its owner and is answered by it or with 501, never with 404.

PostHog's client takes 404 and 401 as done: it would believe that a subscription was cancelled or a credit bought.
"""

import importlib
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from quill_stack.components import SERVICES, Secrets, module_name, plan
from quill_stack.gateway import Gateway
from quill_stack.ports import PortChooser
from quill_stack.state_folder import StateFolder
from quill_stack.stores import Stores

USAGE, BILLING, LICENSES = "usage-ingest", "subscriptions", "licensing"

IMPLEMENTED = [
    (BILLING, "GET", "/api/billing"),
    (BILLING, "PATCH", "/api/billing"),
    (BILLING, "GET", "/api/billing/available_product_features"),
    (BILLING, "GET", "/api/products-v2"),
    (USAGE, "POST", "/api/usage"),
    (USAGE, "GET", "/api/v2/usage"),
    (USAGE, "POST", "/api/v2/usage"),
]

LICENSE_TOKEN = [
    (BILLING, "POST", "/api/activate"),
    (BILLING, "POST", "/api/billing/deactivate"),
    (BILLING, "GET", "/api/billing/deactivate"),
    (BILLING, "GET", "/api/billing/portal"),
    (BILLING, "GET", "/api/billing/get_invoices"),
    (BILLING, "GET", "/api/billing/funding-status"),
    (BILLING, "GET", "/api/credits/overview"),
    (BILLING, "POST", "/api/credits/purchase"),
    (BILLING, "POST", "/api/trials/activate"),
    (BILLING, "POST", "/api/trials/cancel"),
    (BILLING, "POST", "/api/activate/authorize"),
    (BILLING, "POST", "/api/activate/authorize/status"),
    (BILLING, "POST", "/api/activate/authorize/uninstall"),
    (BILLING, "POST", "/api/activate/deauthorize"),
    (BILLING, "POST", "/api/subscription/switch-plan"),
    (BILLING, "POST", "/api/startups/apply"),
    (BILLING, "POST", "/api/coupons/claim"),
    (BILLING, "GET", "/api/coupons/overview"),
    (BILLING, "POST", "/api/webhooks/billing-provider"),
    (BILLING, "POST", "/api/signals/dispute-pr"),
    (USAGE, "GET", "/api/v2/spend"),
    (USAGE, "POST", "/api/v2/spend"),
    (USAGE, "GET", "/api/v2/usage/export"),
    (USAGE, "POST", "/api/v2/usage/export"),
    (USAGE, "GET", "/api/v2/spend/export"),
    (USAGE, "POST", "/api/v2/spend/export"),
    (USAGE, "GET", "/api/v2/usage/team_options"),
    (LICENSES, "GET", "/activation"),
    (LICENSES, "POST", "/licenses/activate"),
    (LICENSES, "POST", "/licenses/deactivate"),
    (LICENSES, "POST", "/licenses/usage"),
]

ORGANIZATION_TOKEN = [
    *[
        (BILLING, "GET", f"/api/v2/billing/{name}")
        for name in (
            "subscription",
            "features",
            "products",
            "products/catalog",
            "products/product_analytics",
            "forecast",
            "invoices",
            "invoices/in_1/pdf-url",
            "limits",
            "projects",
        )
    ],
    *[
        (USAGE, "GET", f"/api/v2/billing/{name}")
        for name in (
            "usage",
            "usage/status",
            "usage/export",
            "usage/timeseries",
            "spend",
            "spend/export",
            "spend/timeseries",
        )
    ],
    (BILLING, "GET", "/api/payer"),
    (BILLING, "PATCH", "/api/payer"),
    *[(BILLING, "POST", f"/api/payer/{name}") for name in ("portal", "webhook_secret", "test_event")],
    *[
        (BILLING, "GET", f"/api/payer/{name}")
        for name in ("organizations", "invoices", "settlements", "settlements/set_1")
    ],
    (BILLING, "PATCH", "/api/payer/organizations/018f-1/limits"),
    (BILLING, "POST", "/api/payer/settlements/set_1/retry"),
]

UNHEARD_OF = [
    (BILLING, "POST", "/api"),
    (BILLING, "POST", "/api/billing/next-years-route"),
    (BILLING, "POST", "/api//billing"),
    (BILLING, "DELETE", "/api/v2/billing/limits"),
    (BILLING, "PATCH", "/api/usages"),
    (USAGE, "POST", "/api/usage/again"),
    (USAGE, "GET", "/api/v2/billing/usage/by/team"),
    (LICENSES, "POST", "/licenses"),
    (LICENSES, "GET", "/activation/done"),
]


class Answering(httpx.AsyncBaseTransport):
    """The gateway's way to the services, without a socket; ``asked`` are those that were asked."""

    def __init__(self, apps: dict[str, FastAPI]) -> None:
        self.transports = {name: httpx.ASGITransport(app) for name, app in apps.items()}
        self.asked: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.host)
        return await self.transports[request.url.host].handle_async_request(request)


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FastAPI]:
    """Each service as it is built for the embedded stack; nothing connects before a service runs."""
    folder: Path = tmp_path_factory.mktemp("stack")
    stores = Stores(StateFolder(folder), {"kafka": "k:1", "postgres": "p", "redis": "redis://r"}, {})
    databases = {name: f"postgresql://h/{module_name(name)}" for name in SERVICES}
    numbers = iter(range(40_000, 41_000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PortChooser, "choose", lambda _self, _familiar: next(numbers))
        ports = PortChooser(prefer_familiar=False)
        parts = plan(
            stores, databases, kept=Secrets.fresh(), ports=ports, clock_file=None, environ={}, with_queues=False
        )
        built = {}
        for part in parts:
            if part.name in (USAGE, BILLING, LICENSES):
                with pytest.MonkeyPatch.context() as environment:
                    for name, value in part.environment.items():
                        environment.setenv(name, value)
                    package = module_name(part.name)
                    settings = importlib.import_module(f"{package}.settings")
                    (found,) = [
                        each
                        for each in vars(settings).values()
                        if isinstance(each, type)
                        and each.__module__ == settings.__name__
                        and "Settings" in each.__name__
                    ]
                    built[part.name] = importlib.import_module(f"{package}.app").build(found()).app
    return built


def routes_of(app: FastAPI) -> set[tuple[str, str]]:
    return {(method, route.path) for route in iter_route_contexts(app.routes) for method in route.methods or ()}


@pytest.mark.parametrize(("owner", "method", "path"), IMPLEMENTED)
def test_a_route_of_the_contract_that_exists_is_at_its_owner(
    apps: dict[str, FastAPI], owner: str, method: str, path: str
):
    assert [name for name, app in apps.items() if (method, path) in routes_of(app)] == [owner]


@pytest.mark.parametrize("token", [None, "Bearer a.b.c"], ids=["no token", "token"])
@pytest.mark.parametrize(("owner", "method", "path"), [*LICENSE_TOKEN, *ORGANIZATION_TOKEN, *UNHEARD_OF])
async def test_a_route_that_does_not_exist_yet_answers_501(
    apps: dict[str, FastAPI], owner: str, method: str, path: str, token: str | None
):
    """Item 13: a missing route answered 404, and PostHog's client went on as if the call had worked."""
    assert (method, path) not in routes_of(apps[owner]), "implemented by now: move it to IMPLEMENTED"
    transport = Answering(apps)
    gateway = httpx.ASGITransport(Gateway({name: f"http://{name}" for name in apps}, transport=transport))
    async with httpx.AsyncClient(transport=gateway, base_url="http://base.test", follow_redirects=False) as client:
        for address in (path, f"{path}/"):
            answer = await client.request(
                method,
                address,
                content=None if method == "GET" else b'{"products": "product_analytics"}',
                headers={"Authorization": token} if token else {},
            )
            document = answer.json()
            assert (answer.status_code, document["code"], document["attr"]) == (501, "not_implemented", None)
            assert set(document) == {"type", "code", "detail", "attr"}
            assert (document["type"], path in document["detail"]) == ("server_error", True)
    assert transport.asked == [owner, owner]

"""Who is refused, and how: always JSON, never with a customer in it (L18)."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import APIRouter
from fastapi.routing import APIRoute
from quill_subscriptions.api.access import Access
from quill_subscriptions.api.billing import billing_routes
from quill_subscriptions.api.catalog import catalog_routes
from quill_subscriptions.api.customers import customer_routes
from quill_subscriptions.api.quantities import quantity_routes
from quill_subscriptions.store.memory import MemorySubscriptions

OTHER_SECRET = b"another-secret-that-is-long-enough-for-hs256"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
PAST = 1_000_000_000


def unsigned(caller: Any) -> str:
    header, payload, _ = caller.token().split(".")
    plain = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "JWT"}).encode()).decode().rstrip("=")
    assert header != plain
    return f"{plain}.{payload}."


TOKENS: dict[str, Any] = {
    "forged": lambda c: c.token(secret=OTHER_SECRET),
    "of an unknown license": lambda c: c.token(license_id="nobody", secret=OTHER_SECRET),
    "expired": lambda c: c.token(exp=PAST),
    "without expiry": lambda c: c.token(exp=None),
    "good for a year": lambda c: c.token(exp=int(c.clock.now().timestamp()) + 31_536_000),
    "for another audience": lambda c: c.token(aud="posthog:something-else"),
    "without audience": lambda c: c.token(aud=None),
    "alg none": unsigned,
    "alg RS256": lambda c: c.token(secret=RSA_KEY, algorithm="RS256"),
    "alg HS512": lambda c: c.token(algorithm="HS512"),
    "of a revoked license": lambda c: c.token(license_id="revoked"),
    "without organization": lambda c: c.token(organization_id=None),
    "with an absurd organization": lambda c: c.token(organization_id="../etc"),
    "no token at all": lambda _c: "",
    "not a token": lambda _c: "a.b.c",
    "an unknown static token": lambda _c: "an-unknown-static-token",
}
CALLS = [
    ("GET", "/api/billing"),
    ("PATCH", "/api/billing/"),
    ("GET", "/api/billing/available_product_features"),
    ("PUT", "/v1/customers/org-1/projects"),
]


@pytest.mark.parametrize("kind", TOKENS)
@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_a_bad_token_is_refused_in_json_without_a_customer(
    caller: Any, memory_store: MemorySubscriptions, kind: str, method: str, path: str
) -> None:
    await caller.http.get("/api/billing", headers=caller.signed())
    before = len(memory_store.contents.published)
    headers = {"Authorization": f"Bearer {TOKENS[kind](caller)}"}
    answer = await caller.http.request(method, path, headers=headers, json=[] if method == "PUT" else {})
    assert answer.status_code == 401
    assert answer.json()["type"] == "authentication_error"
    assert "customer" not in answer.json()
    assert len(memory_store.contents.published) == before


async def test_no_authorization_header_is_refused(caller: Any) -> None:
    answer = await caller.http.get("/api/billing")
    assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")


@pytest.mark.parametrize("license_id", ["self-1", "self-2"])
async def test_an_organization_of_another_license_is_refused(caller: Any, license_id: str) -> None:
    await caller.http.get("/api/billing", headers=caller.signed("org-1", "cloud-eu"))
    for method in ("GET", "PATCH"):
        answer = await caller.http.request(
            method,
            "/api/billing",
            headers=caller.signed("org-1", license_id),
            **({"json": {}} if method == "PATCH" else {}),
        )
        assert (answer.status_code, answer.json()["type"]) == (403, "permission_error")
        assert "customer" not in answer.json()


async def test_a_self_hosted_license_speaks_for_one_organization_only(caller: Any) -> None:
    assert (await caller.http.get("/api/billing", headers=caller.signed("home", "self-1"))).status_code == 200
    assert (await caller.http.get("/api/billing", headers=caller.signed("home", "self-1"))).status_code == 200
    assert (await caller.http.get("/api/billing", headers=caller.signed("second", "self-1"))).status_code == 403
    assert (await caller.http.get("/v1/customers/second", headers=caller.operator)).status_code == 404


async def test_a_region_speaks_for_many_organizations(caller: Any) -> None:
    for organization_id in ("a", "b", "c"):
        answer = await caller.http.get("/api/billing", headers=caller.signed(organization_id))
        assert answer.status_code == 200


async def test_a_token_lists_projects_of_its_own_organization_only(caller: Any) -> None:
    projects = [{"team_id": "1", "api_token": "phc_1"}]
    own = await caller.http.put("/v1/customers/org-1/projects", headers=caller.signed("org-1"), json=projects)
    assert own.json() == {"organization_id": "org-1", "project_count": 1}
    other = await caller.http.put("/v1/customers/org-1/projects", headers=caller.signed("org-2"), json=projects)
    assert other.status_code == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/customers"),
        ("GET", "/v1/customers/org-1"),
        ("PATCH", "/v1/customers/org-1"),
        ("POST", "/v1/customers/org-1/subscription"),
        ("DELETE", "/v1/customers/org-1/subscription"),
        ("GET", "/v1/customers/org-1/history"),
        ("GET", "/v1/catalog"),
        ("GET", "/v1/catalog/surveys"),
    ],
)
async def test_only_operators_see_other_peoples_customers(caller: Any, method: str, path: str) -> None:
    body = {"json": {"products": ["surveys"]} if method == "POST" else {}} if method in ("PATCH", "POST") else {}
    tokens = {caller.token(): 401, "unknown": 401, "service-token": 403}
    for token, status in tokens.items():
        answer = await caller.http.request(method, path, headers={"Authorization": f"Bearer {token}"}, **body)
        assert answer.status_code == status, token


def test_every_route_declares_one_policy(access: Access) -> None:
    store = MemorySubscriptions()
    routers: list[APIRouter] = [
        billing_routes(store, access, access.anyone),
        customer_routes(store, access),
        quantity_routes(store, access),
        catalog_routes(store, access),
    ]
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    assert len(routes) == 14
    for route in routes:
        declared = [d.call for d in route.dependant.dependencies if d.call in access.policies]
        assert len(declared) == 1, f"{route.methods} {route.path} declares {len(declared)} policies"

"""Fixtures of both kinds of tests: the example catalog, stores, and a client of the HTTP side."""

import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import pytest
from quill_contracts.catalog_file import load_catalog
from quill_runtime import http
from quill_runtime.auth import ApiTokens, Key, Keyring
from quill_subscriptions.api.access import Access
from quill_subscriptions.api.billing import billing_routes
from quill_subscriptions.api.billing_updates import billing_update_routes
from quill_subscriptions.api.catalog import catalog_routes
from quill_subscriptions.api.customers import customer_routes
from quill_subscriptions.api.licenses import license_routes
from quill_subscriptions.api.quantities import quantity_routes
from quill_subscriptions.domain.catalog import Catalog
from quill_subscriptions.ports import SubscriptionsStore
from quill_subscriptions.store.memory import MemorySubscriptions
from quill_subscriptions.usecases.catalog import put_catalog_in_force
from quill_subscriptions.wire.catalog import catalog_from_document

NOW = datetime(2026, 3, 17, 9, 30, tzinfo=UTC)
OPERATOR_TOKEN = "quill_op_test"
SECRETS = {
    "cloud-eu": b"cloud-secret-that-is-long-enough-even-for-the-algorithms-we-refuse!",
    "self-1": b"self-hosted-secret-that-is-long-enough-1",
    "self-2": b"self-hosted-secret-that-is-long-enough-2",
    "revoked": b"revoked-secret-that-is-long-enough-for-it",
}


@dataclass
class MovableClock:
    """A clock that tests move."""

    instant: datetime = NOW

    def now(self) -> datetime:
        return self.instant


@dataclass
class Caller:
    """A client of the HTTP side that signs tokens as PostHog does."""

    http: httpx.AsyncClient
    clock: MovableClock
    keyring: Keyring
    operator: dict[str, str] = field(
        default_factory=lambda: {"Authorization": f"Bearer {OPERATOR_TOKEN}"},
    )

    def token(
        self,
        organization_id: str | None = "org-1",
        license_id: str = "cloud-eu",
        *,
        secret: bytes | None = None,
        algorithm: str = "HS256",
        **claims: Any,
    ) -> str:
        body = {
            "aud": "posthog:license-key",
            "id": license_id,
            "organization_id": organization_id,
            "organization_name": "Hedgehog Ltd",
            "exp": int((self.clock.now() + timedelta(minutes=15)).timestamp()),
            **claims,
        }
        return jwt.encode(
            {name: value for name, value in body.items() if value is not None},
            secret or SECRETS[license_id],
            algorithm=algorithm,
        )

    def signed(self, organization_id: str = "org-1", license_id: str = "cloud-eu", **claims: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(organization_id, license_id, **claims)}"}


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def catalog() -> Catalog:
    """PostHog's public prices, as the service loads them."""
    return catalog_from_document(load_catalog())


@pytest.fixture
async def memory_store(catalog: Catalog) -> MemorySubscriptions:
    """A store in memory with the example catalog in force."""
    store = MemorySubscriptions()
    await store.run(lambda tx: put_catalog_in_force(catalog, tx=tx, now=NOW))
    return store


@pytest.fixture
def access(clock: MovableClock) -> Access:
    keyring = Keyring()
    for license_id, secret in SECRETS.items():
        kind = "cloud" if license_id == "cloud-eu" else "scale"
        keyring.put(
            Key(license_id, secret, revoked=license_id == "revoked", attributes={"type": kind, "source": license_id}),
            revision=1,
        )
    digest = hashlib.sha256(OPERATOR_TOKEN.encode()).hexdigest()
    service = hashlib.sha256(b"service-token").hexdigest()
    return Access(keyring, ApiTokens.parse(f"anna:operator:{digest},ingest:service:{service}"), clock)


@pytest.fixture
def calling(access: Access, clock: MovableClock) -> Callable[[SubscriptionsStore], Caller]:
    """``calling(store)``: a client of the HTTP side on that store."""

    def build(store: SubscriptionsStore) -> Caller:
        app = http.create_app(
            title="subscriptions",
            routers=[
                billing_routes(store, access, access.anyone),
                customer_routes(store, access),
                quantity_routes(store, access),
                license_routes(store, access),
                catalog_routes(store, access),
                billing_update_routes(store, access),
            ],
        )
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        return Caller(httpx.AsyncClient(transport=transport, base_url="http://billing"), clock, access.keyring)

    return build


@pytest.fixture
async def caller(
    calling: Callable[[SubscriptionsStore], Caller], memory_store: MemorySubscriptions
) -> AsyncIterator[Caller]:
    made = calling(memory_store)
    async with made.http:
        yield made

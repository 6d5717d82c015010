"""Every service can write its OpenAPI document: a route that cannot be documented fails here, without a running stack."""

import importlib
import inspect

import httpx
import pytest
from quill_runtime.settings import ServiceSettings

SETTINGS = {
    "database_url": "postgresql://nobody@127.0.0.1:1/nothing",
    "kafka_bootstrap_servers": "127.0.0.1:1",
    "quill_sealing_keys": "k1:" + "A" * 43,
    "redis_url": "redis://127.0.0.1:1/0",
    "smtp_host": "127.0.0.1",
    "smtp_from": "quill@example.org",
}


def settings_of(package: str) -> ServiceSettings:
    module = importlib.import_module(f"{package}.settings")
    (settings_type,) = (
        found
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, ServiceSettings) and found is not ServiceSettings
    )
    return settings_type(**SETTINGS)


@pytest.mark.parametrize("service", ["usage-ingest", "quota-limiter", "subscriptions", "invoicing", "licensing"])
async def test_every_service_documents_every_route(service):
    package = f"quill_{service.replace('-', '_')}"
    built = importlib.import_module(f"{package}.app").build(settings_of(package))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(built.entrance), base_url="http://test") as client:
        answer = await client.get("/openapi.json")
    assert answer.status_code == 200, answer.text
    paths = answer.json()["paths"]
    assert {"/health/live", "/v1/dead-letters", "/v1/operations"} <= set(paths)
    operations = [operation for methods in paths.values() for operation in methods.values()]
    assert all(operation["responses"] for operation in operations)

"""What each process is told, here and in containers."""

import hashlib
import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.routing import iter_route_contexts
from quill_runtime.settings import ServiceSettings
from quill_stack.components import SERVICES, Component, Secrets, module_name, plan
from quill_stack.ports import PortChooser
from quill_stack.routes import PER_SERVICE, PREFIXES, find_service
from quill_stack.state_folder import StateFolder, project_root
from quill_stack.stores import Stores

KEPT = Secrets.fresh()
CONTAINERS: dict[str, dict[str, Any]] = yaml.safe_load((project_root() / "docker-compose.yml").read_text())["services"]


def planned(
    folder: Path, environ: dict[str, str], clock_file: Path | None = None, *, with_queues: bool = False
) -> dict[str, Component]:
    stores = Stores(StateFolder(folder), {"kafka": "k:1", "postgres": "p", "redis": "redis://r"}, {})
    databases = {name: f"postgresql://h/{module_name(name)}" for name in SERVICES}
    ports = PortChooser(prefer_familiar=False)
    parts = plan(
        stores,
        databases,
        kept=KEPT,
        ports=ports,
        clock_file=clock_file,
        environ=environ,
        with_queues=with_queues,
    )
    return {part.name: part for part in parts}


@pytest.fixture
def any_port(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(40_000, 41_000))
    monkeypatch.setattr(PortChooser, "choose", lambda _self, _familiar: next(numbers))


def settings_type(service: str) -> type[ServiceSettings]:
    module = importlib.import_module(f"{module_name(service)}.settings")
    (found,) = [
        found
        for found in vars(module).values()
        if isinstance(found, type) and issubclass(found, ServiceSettings) and found is not ServiceSettings
    ]
    return found


CREDENTIALS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
"""The client library of queues reads them itself."""


def settings_fields(service: str) -> set[str]:
    """The environment variables that a service reads."""
    return {name.upper() for name in settings_type(service).model_fields}


@pytest.mark.usefixtures("any_port")
@pytest.mark.parametrize("service", SERVICES)
def test_every_variable_the_supervisor_gives_a_service_is_one_of_its_settings(service: str, tmp_path: Path):
    given = planned(tmp_path, {}, clock_file=tmp_path / "clock")[service].environment
    assert set(given) <= settings_fields(service)


@pytest.mark.usefixtures("any_port")
@pytest.mark.parametrize("service", SERVICES)
async def test_every_route_of_every_service_is_reached_through_the_gateway(
    service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, value in planned(tmp_path, {})[service].environment.items():
        monkeypatch.setenv(name, value)
    app = importlib.import_module(f"{module_name(service)}.app").build(settings_type(service)()).app
    paths = [route.path for route in iter_route_contexts(app.routes)]
    assert len(paths) > len(PER_SERVICE)
    for path in paths:
        shared = any(path == prefix or path.startswith(prefix + "/") for prefix in PER_SERVICE)
        assert find_service(f"/{service}{path}" if shared else path) == (service, path)


@pytest.mark.parametrize("service", SERVICES)
def test_every_variable_a_container_is_given_is_one_of_its_services_settings(service: str):
    assert set(CONTAINERS[service]["environment"]) - CREDENTIALS <= settings_fields(service)
    assert CONTAINERS[f"{service}-migration"]["environment"] == CONTAINERS[service]["environment"]


@pytest.mark.parametrize(
    ("service", "variable"),
    [
        ("usage-ingest", "USAGE_QUEUE_V1_URL"),
        ("usage-ingest", "USAGE_BUCKETS"),
        ("subscriptions", "BILLING_UPDATES_QUEUES"),
    ],
)
def test_a_container_is_handed_the_queues_that_the_env_file_names(service: str, variable: str):
    environment = CONTAINERS[service]["environment"]
    assert environment[variable] is None
    assert environment.keys() >= CREDENTIALS


@pytest.mark.usefixtures("any_port")
def test_without_keys_of_their_own_stripe_and_mail_are_stood_in_for(tmp_path: Path):
    parts = planned(tmp_path, {})
    assert parts["invoicing"].environment["STRIPE_API_BASE"] == parts["stripesim"].url
    assert f"--webhook-url={parts['invoicing'].url}/webhooks/stripe" in parts["stripesim"].arguments
    assert parts["licensing"].environment["SMTP_PORT"] == str(parts["mail"].port)


@pytest.mark.usefixtures("any_port")
def test_real_stripe_and_real_mail_replace_the_stand_ins(tmp_path: Path):
    parts = planned(tmp_path, {"STRIPE_API_KEY": "sk_test_mine", "SMTP_HOST": "smtp.example", "SMTP_PORT": "587"})
    assert not {"stripesim", "mail"} & set(parts)
    assert parts["invoicing"].environment["STRIPE_API_KEY"] == "sk_test_mine"
    assert "STRIPE_API_BASE" not in parts["invoicing"].environment
    assert parts["licensing"].environment["SMTP_PORT"] == "587"


@pytest.mark.usefixtures("any_port")
def test_queues_are_stood_in_for_unless_the_environment_names_some(tmp_path: Path):
    parts = planned(tmp_path, {}, with_queues=True)
    told = parts["usage-ingest"].environment
    assert told["AWS_ENDPOINT_URL"] == parts["queues"].url
    assert told["USAGE_QUEUE_V2_URL"].startswith(parts["queues"].url)
    assert set(told) - CREDENTIALS <= settings_fields("usage-ingest")
    assert "queues" not in planned(tmp_path, {})
    assert "queues" not in planned(tmp_path, {"USAGE_QUEUE_SOURCE": "us"}, with_queues=True)


@pytest.mark.usefixtures("any_port")
def test_the_gateway_starts_last_and_knows_every_service(tmp_path: Path):
    parts = planned(tmp_path, {})
    assert list(parts)[-1] == "gateway"
    urls = json.loads(parts["gateway"].environment["QUILL_SERVICE_URLS"])
    assert urls == {name: parts[name].url for name in SERVICES}
    assert set(urls) == set(PREFIXES)


@pytest.mark.usefixtures("any_port")
def test_services_are_told_a_hash_of_the_operators_token_and_never_the_token(tmp_path: Path):
    parts = planned(tmp_path, {})
    digest = hashlib.sha256(KEPT.operator_token.encode()).hexdigest()
    for service in SERVICES:
        assert parts[service].environment["QUILL_API_TOKENS"] == f"operator:operator:{digest}"
        assert KEPT.operator_token not in str(parts[service])


def test_secrets_are_made_once_per_state_folder_and_readable_by_their_owner_only(tmp_path: Path):
    first, second = Secrets.of(StateFolder(tmp_path)), Secrets.of(StateFolder(tmp_path))
    assert first == second
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.secret")} == {0o600}
    assert KEPT.operator_token not in repr(KEPT)

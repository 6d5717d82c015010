# ruff: noqa: INP001 - a script, no package
"""Makes the development environment and runs a command in it; the only part that runs before anything is installed.

``python3 devtools/bootstrap.py COMMAND ARGUMENT...`` needs Python 3.11 or newer and a package index that pip can reach
(its own configuration and environment variables are honoured). Everything it installs is pinned: uv by version, all
else by hash. A finished environment is recognised by a stamp, so a warm call costs a few milliseconds.
"""

from __future__ import annotations  # so that an old Python gets as far as the message that it is too old

import ast
import contextlib
import fcntl
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

OLDEST_PYTHON = (3, 11)
UV_VERSION = "0.13.8"
INSTALL_SECONDS = 1800
ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / "bin"
STAMP = VENV / "quill-stamp"
LOCK_FILE = ROOT / "requirements.lock"
STATE = ROOT / ".local"
INDEX_ADVICE = (
    "make a package index reachable for pip (`pip config list` shows where it looks; PIP_INDEX_URL and HTTPS_PROXY are "
    "honoured), then try again"
)
PIP_TO_UV = (
    ("index-url", "UV_DEFAULT_INDEX", " "),
    ("extra-index-url", "UV_INDEX", " "),
    ("find-links", "UV_FIND_LINKS", ","),
    ("trusted-host", "UV_INSECURE_HOST", " "),
    ("cert", "SSL_CERT_FILE", " "),
    ("timeout", "UV_HTTP_TIMEOUT", " "),
)
GROUPS = ("libs", "services", "apps", "devtools")


def fail(problem: str, advice: str) -> NoReturn:
    """End with what happened and what to do."""
    sys.exit(f"bootstrap: {problem}\nWhat to do: {advice}")


def members() -> list[Path]:
    """The folders of the workspace's packages."""
    return sorted(path.parent for group in GROUPS for path in (ROOT / group).glob("*/pyproject.toml"))


def fingerprint() -> str:
    """Changes when anything changes that an installation depends on."""
    digest = hashlib.sha256(f"{UV_VERSION} {sys.version_info[:2]} {ROOT}".encode())
    for path in [LOCK_FILE, *(member / "pyproject.toml" for member in members())]:
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def run(title: str, argv: Sequence[str], advice: str, environment: Mapping[str, str] | None = None) -> None:
    """Run one step of the installation; show its output only when it fails."""
    say(f"{title} ...")
    started = time.monotonic()
    try:
        done = subprocess.run(
            argv,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        fail(f"{title}: gave up after {INSTALL_SECONDS} s", advice)
    if done.returncode != 0:
        sys.stderr.write(done.stdout)
        fail(f"{title}: failed with exit code {done.returncode}", advice)
    say(f"{title}: {time.monotonic() - started:.1f} s")


def say(text: str) -> None:
    """One line to standard error; standard output belongs to the command."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def install() -> None:
    """Bring ``.venv`` to exactly what the lock file and the workspace say."""
    if not (BIN / "python").exists():
        run(
            "Making .venv",
            [sys.executable, "-m", "venv", "--clear", str(VENV)],
            "install the venv module of your Python (on Debian: apt-get install python3-venv), or use another Python "
            "with PYTHON=/path/to/python3 make ...",
        )
    if not has_uv():
        pip = [str(BIN / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run(f"Installing uv {UV_VERSION}", [*pip, f"uv=={UV_VERSION}"], INDEX_ADVICE)
    uv = [str(BIN / "uv"), "pip"]
    where = ["--quiet", "--python", str(BIN / "python")]
    editable = [option for member in members() for option in ("-e", str(member))]
    environment = {**os.environ, **index_settings()}
    sync = [*uv, "sync", *where, "--require-hashes", str(LOCK_FILE)]
    run("Installing locked packages", sync, INDEX_ADVICE, environment)
    link = [*uv, "install", *where, "--no-deps", *editable]
    run("Linking the workspace", link, "see the output above", environment)


def index_settings() -> dict[str, str]:
    """Where pip would look for packages, in uv's words, which does not read pip's configuration; uv's own wins."""
    asked = subprocess.run(
        [str(BIN / "python"), "-m", "pip", "config", "list"], capture_output=True, text=True, timeout=60, check=False
    )
    said: dict[str, list[str]] = {}
    for line in asked.stdout.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if section in {"global", "install", ":env:"}:
            with contextlib.suppress(ValueError, SyntaxError):
                said[key.replace("_", "-")] = str(ast.literal_eval(value)).split()
    said["find-links"] = [place for place in said.get("find-links", []) if "://" in place or Path(place).exists()]
    return {
        variable: separator.join(said[key])
        for key, variable, separator in PIP_TO_UV
        if said.get(key) and variable not in os.environ
    }


def has_uv() -> bool:
    """Whether the pinned uv is in the environment."""
    uv = BIN / "uv"
    if not uv.exists():
        return False
    asked = subprocess.run([str(uv), "--version"], capture_output=True, text=True, timeout=60, check=False)
    return asked.stdout.split()[1:2] == [UV_VERSION]


def main() -> None:
    """Install when needed, then become the command."""
    if sys.version_info < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        fail(
            f"this is Python {sys.version.split()[0]}; Quill needs {wanted} or newer",
            f"install it and call: make PYTHON=python{wanted} ...",
        )
    if sys.platform == "win32":
        fail("Windows is not supported", "use WSL or a container")
    wanted = fingerprint()
    if not (STAMP.exists() and STAMP.read_text() == wanted):
        STATE.mkdir(exist_ok=True)
        with (STATE / "bootstrap.lock").open("w") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            if not (STAMP.exists() and STAMP.read_text() == wanted):
                STAMP.unlink(missing_ok=True)
                install()
                STAMP.write_text(wanted)
    if len(sys.argv) > 1:
        environment = dict(os.environ, VIRTUAL_ENV=str(VENV), PATH=f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}")
        environment.pop("PYTHONHOME", None)
        # Tests and the demo start some hundred processes; without bytecode on disk each compiles for eight seconds.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        try:
            os.execvpe(sys.argv[1], sys.argv[1:], environment)  # noqa: S606 - the whole point
        except FileNotFoundError:
            fail(f"no such command: {sys.argv[1]}", "see make help")


if __name__ == "__main__":
    main()

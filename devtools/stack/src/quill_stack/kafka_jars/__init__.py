"""Apache Kafka's own jars: exactly those of the frozen manifest, checked by sha256 at each start."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from quill_stack.errors import StackError
from quill_stack.processes import TAIL_LINES
from quill_stack.progress import Progress

KAFKA_VERSION: Final = "4.3.1"
COPY_GOAL: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
FETCH_SECONDS: Final = 600
ADVICE: Final = (
    "make a Maven repository reachable (a `mvn` on PATH uses your own settings and mirrors), "
    "or start Docker, or set KAFKA_BOOTSTRAP_SERVERS to a running Kafka"
)


class NoKafkaJarsError(StackError):
    """The jars cannot be had here. Only the demo may go on, on librdkafka's in-memory broker."""


@dataclass(frozen=True, slots=True)
class Jar:
    """One file of the manifest."""

    sha256: str
    group: str
    artifact: str
    version: str

    @property
    def filename(self) -> str:
        return f"{self.artifact}-{self.version}.jar"


def parse_manifest(text: str) -> tuple[Jar, ...]:
    """Read lines of ``<sha256>  <group>:<artifact>:<version>``.

    Raises:
        ValueError: A line of another shape, or a file named twice.
    """
    jars = []
    for line in text.splitlines():
        digest, _, coordinates = line.partition("  ")
        group, artifact, version = coordinates.split(":")
        if len(digest) != hashlib.sha256().digest_size * 2:
            raise ValueError(f"not a sha256: {digest!r}")
        jars.append(Jar(sha256=digest, group=group, artifact=artifact, version=version))
    if len({jar.filename for jar in jars}) != len(jars):
        raise ValueError("the manifest names a file twice")
    return tuple(jars)


def frozen_manifest() -> tuple[Jar, ...]:
    """The committed manifest."""
    return parse_manifest((resources.files(__name__) / "manifest.sha256").read_text(encoding="utf-8"))


def differences(folder: Path, jars: Sequence[Jar]) -> list[str]:
    """What in ``folder`` is not exactly the manifest, one sentence each; an empty list means it is."""
    found = {path.name for path in folder.glob("*.jar")}
    expected = {jar.filename for jar in jars}
    wrong = [f"{name} is not in the manifest" for name in sorted(found - expected)]
    for jar in jars:
        if jar.filename not in found:
            wrong.append(f"{jar.filename} is missing")
            continue
        digest = hashlib.sha256((folder / jar.filename).read_bytes()).hexdigest()
        if digest != jar.sha256:
            wrong.append(f"{jar.filename} has sha256 {digest}, the manifest says {jar.sha256}")
    return wrong


def ensure_jars(cache: Path, progress: Progress, *, jars: Sequence[Jar] | None = None) -> Path:
    """The folder that holds exactly the manifest's files, downloaded when it does not exist yet.

    Raises:
        NoKafkaJarsError: No resolver could bring them.
        StackError: A file differs from the manifest.
    """
    wanted = frozen_manifest() if jars is None else jars
    folder = cache / f"kafka-{KAFKA_VERSION}" / "libs"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / "lock").open("w") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            if not folder.is_dir():
                with progress.step(f"Fetching Apache Kafka {KAFKA_VERSION} ({len(wanted)} jars, about 45 MB, once)"):
                    _download(folder, wanted)
    if wrong := differences(folder, wanted):
        raise _refused(folder, wrong)
    return folder


def _refused(folder: Path, wrong: Sequence[str]) -> StackError:
    return StackError(
        f"the Kafka jars in {folder} are not those of the manifest: {'; '.join(wrong)}",
        advice=f"find out who changed them, then remove {folder} to download them again",
    )


def _download(folder: Path, jars: Sequence[Jar]) -> None:
    scratch = folder.with_name("libs.new")
    repository = folder.with_name("repository")
    failures = []
    for name, command in _resolvers(scratch, repository, jars):
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        try:
            done = subprocess.run(
                command(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            failures.append(f"{name}: gave up after {FETCH_SECONDS} s")
            continue
        if done.returncode == 0:
            wrong = differences(scratch, jars)
            shutil.rmtree(repository, ignore_errors=True)
            if wrong:
                raise _refused(scratch, wrong)
            scratch.rename(folder)
            return
        output = (done.stdout + done.stderr).splitlines()
        failures.append(f"{name}:\n" + "\n".join(output[-TAIL_LINES // 2 :]))
    shutil.rmtree(scratch, ignore_errors=True)
    raise NoKafkaJarsError(
        f"the jars of Apache Kafka {KAFKA_VERSION} could not be downloaded", advice=ADVICE, log_tail="\n".join(failures)
    )


def _resolvers(scratch: Path, repository: Path, jars: Sequence[Jar]) -> list[tuple[str, Callable[[], list[str]]]]:
    """Ways to fetch, best first: Maven knows the user's mirrors; jgo needs nothing but Python."""

    def jgo() -> list[str]:
        coordinates = [f"{jar.group}:{jar.artifact}:{jar.version}" for jar in jars]
        return [sys.executable, "-m", "quill_stack.kafka_jars.fetch", str(repository), str(scratch), *coordinates]

    def maven() -> list[str]:
        pom = scratch.with_name("pom.xml")
        pom.write_text(_pom(jars), encoding="utf-8")
        argv = [shutil.which("mvn") or "mvn", "-q", "-B", "-f", str(pom), f"-Dmaven.repo.local={repository}", COPY_GOAL]
        return [*argv, "-DexcludeTransitive=true", f"-DoutputDirectory={scratch}"]

    ways: list[tuple[str, Callable[[], list[str]]]] = [("jgo", jgo)]
    if shutil.which("mvn") and os.environ.get("KAFKA_JARS_RESOLVER") != "jgo":
        ways.insert(0, ("mvn", maven))
    return ways


def _pom(jars: Sequence[Jar]) -> str:
    """A project whose dependencies are the manifest's files and nothing they would pull in."""
    dependencies = "".join(
        f"<dependency><groupId>{jar.group}</groupId><artifactId>{jar.artifact}</artifactId><version>{jar.version}</version>"
        "<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions></dependency>\n"
        for jar in jars
    )
    return (
        "<project><modelVersion>4.0.0</modelVersion><groupId>local.quill</groupId><artifactId>kafka-runtime</artifactId>"
        f"<version>1</version><packaging>pom</packaging><dependencies>\n{dependencies}</dependencies></project>\n"
    )

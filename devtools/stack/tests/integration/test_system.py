"""The supervisor above the stores, with small web servers in the services' places."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from quill_stack.components import Component, Secrets
from quill_stack.errors import StackError
from quill_stack.ports import free_port
from quill_stack.progress import Progress
from quill_stack.state_folder import StateFolder
from quill_stack.stores import Stores
from quill_stack.system import System

pytestmark = pytest.mark.integration


def web_server(name: str) -> Component:
    port = free_port()
    return Component(name, "http.server", ("--bind", "127.0.0.1", str(port)), {}, port, "/")


def wait_for(condition: Callable[[], object], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


@contextmanager
def running(folder: Path, *components: Component, revive: bool) -> Iterator[System]:
    state = StateFolder(folder)
    with state.held():
        stores = Stores(state, {"kafka": "k", "postgres": "p", "redis": "r"}, {})
        system = System(stores, components, Secrets.fresh(), revive=revive, clock_file=None)
        try:
            system.start_parts(Progress(quiet=True))
            yield system
        finally:
            system.stop_parts()


def test_a_killed_part_comes_back_on_its_port_and_the_published_process_id_follows(tmp_path: Path):
    with running(tmp_path, web_server("gateway"), web_server("invoicing"), revive=True) as system:
        killed = system.kill("invoicing")
        wait_for(lambda: system.restarts("invoicing") == 1)
        system.wait_ready("invoicing")
        published = system.stores.state.read_env()["parts"]["invoicing"]
        assert published["pid"] != killed
        assert httpx.get(published["url"], trust_env=False).is_success
        assert system.restarts("gateway") == 0
        assert system.wait(0)


def test_a_clean_restart_gives_a_new_process(tmp_path: Path):
    with running(tmp_path, web_server("gateway"), revive=True) as system:
        before = system.env["parts"]["gateway"]["pid"]
        system.restart("gateway")
        assert system.env["parts"]["gateway"]["pid"] != before


def test_a_part_that_keeps_crashing_comes_back_more_and_more_slowly(tmp_path: Path):
    with running(tmp_path, web_server("gateway"), web_server("invoicing"), revive=True) as system:
        gaps = []
        for count in (1, 2, 3):
            system.kill("invoicing")
            started = time.monotonic()
            wait_for(lambda wanted=count: system.restarts("invoicing") == wanted)
            gaps.append(time.monotonic() - started)
        assert gaps[0] < gaps[1] < gaps[2]


def test_without_revival_a_dead_part_is_a_failure_with_its_log(tmp_path: Path):
    with running(tmp_path, web_server("gateway"), revive=False) as system:
        system.kill("gateway")
        with pytest.raises(StackError, match="gateway ended by itself with exit code -9"):
            system.wait(20)


def test_bad_configuration_is_never_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    broken = web_server("invoicing")
    with running(tmp_path, web_server("gateway"), broken, revive=True) as system:
        sensible = Component.argv
        refusing = [sys.executable, "-c", "print('configuration: DATABASE_URL: is not set'); raise SystemExit(78)"]
        monkeypatch.setattr(Component, "argv", lambda part, *a: refusing if part is broken else sensible(part, *a))
        system.kill("invoicing")
        with pytest.raises(StackError, match="DATABASE_URL: is not set"):
            system.wait(20)
        assert system.restarts("invoicing") == 1


def test_a_part_that_does_not_start_is_reported_with_its_log(tmp_path: Path):
    broken = Component("invoicing", "no_such_module", (), {}, free_port(), "/")
    with pytest.raises(StackError, match="No module named no_such_module"), running(tmp_path, broken, revive=True):
        pass


def test_nothing_runs_and_nothing_is_published_after_a_stop(tmp_path: Path):
    part = web_server("gateway")
    with running(tmp_path, part, revive=True) as system:
        assert system.stores.state.path.joinpath("env.json").stat().st_mode & 0o777 == 0o600
        assert system.env["operator_token"] in system.stores.state.path.joinpath("env.json").read_text()
    assert not (tmp_path / "env.json").exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(part.url, trust_env=False)

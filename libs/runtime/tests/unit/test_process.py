"""Settings that stop the start, clocks, starting in order and draining in reverse, secrets kept out of logs."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from quill_runtime.clock import SandboxClock, SystemClock, clock_from
from quill_runtime.consumption import Record, Rejected, rejection_of
from quill_runtime.health import Health
from quill_runtime.lifecycle import Service
from quill_runtime.settings import EXIT_BAD_CONFIGURATION, ServiceSettings, load
from quill_runtime.telemetry import _hide_secrets


def test_settings_that_are_missing_or_wrong_are_named_all_at_once(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.delenv("QUILL_SEALING_KEYS", raising=False)
    monkeypatch.setenv("HTTP_PORT", "99999")
    with pytest.raises(SystemExit) as stopped:
        load(ServiceSettings)
    assert stopped.value.code == EXIT_BAD_CONFIGURATION
    printed = capsys.readouterr().err
    for name in ("DATABASE_URL: is not set", "KAFKA_BOOTSTRAP_SERVERS: is not set", "QUILL_SEALING_KEYS", "HTTP_PORT"):
        assert name in printed


def test_a_database_address_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("DATABASE_URL", "mysql://x")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "k:9092")
    monkeypatch.setenv("QUILL_SEALING_KEYS", "k:x")
    with pytest.raises(SystemExit):
        load(ServiceSettings)
    assert "DATABASE_URL" in capsys.readouterr().err


def test_nothing_connects_at_import():
    program = "import socket\nsocket.socket.connect = None\nimport quill_runtime.assembly, quill_runtime.command_line"
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_the_sandbox_clock_adds_what_its_file_says(tmp_path: Path):
    path = tmp_path / "clock"
    clock = clock_from(path)
    assert isinstance(clock, SandboxClock)
    assert abs((clock.now() - datetime.now(UTC)).total_seconds()) < 5
    path.write_text("-86400.5")
    assert -86_406 < (clock.now() - datetime.now(UTC)).total_seconds() < -86_395
    path.write_text("")
    assert abs((clock.now() - datetime.now(UTC)).total_seconds()) < 5
    assert isinstance(clock_from(None), SystemClock)


class Part:
    def __init__(self, name: str, calls: list[str], *, fail: str = "") -> None:
        self.name, self.calls, self.fail = name, calls, fail

    async def start(self) -> None:
        self.calls.append(f"start {self.name}")
        if self.fail == "start":
            raise RuntimeError(self.name)

    async def stop(self) -> None:
        self.calls.append(f"stop {self.name}")
        if self.fail == "stop":
            raise RuntimeError(self.name)


async def test_components_start_in_order_and_stop_in_reverse_even_when_one_fails_to_stop():
    calls: list[str] = []
    service = Service("s", FastAPI(), [Part("a", calls), Part("b", calls, fail="stop"), Part("c", calls)], Health())
    async with service.running():
        assert service.health.started
    assert calls == ["start a", "start b", "start c", "stop c", "stop b", "stop a"]
    assert not service.health.started


async def test_what_had_started_is_stopped_when_a_later_component_fails_to_start():
    calls: list[str] = []
    service = Service("s", FastAPI(), [Part("a", calls), Part("b", calls, fail="start"), Part("c", calls)], Health())
    with pytest.raises(RuntimeError, match="b"):
        async with service.running():
            pass
    assert calls == ["start a", "start b", "stop a"]


async def test_ready_says_no_before_the_start_and_when_a_check_fails():
    async def fine() -> None: ...

    async def broken() -> None:
        raise ConnectionError("no answer")

    health = Health(checks={"x": fine})
    assert (await health.report())[0] is False
    health.started = True
    assert (await health.report())[0] is True
    health.checks["y"] = broken
    ready, report = await health.report()
    assert ready is False
    assert "no answer" in report["checks"]["y"]


@pytest.mark.parametrize("name", ["license_secret", "token", "Authorization", "smtp_password", "stripe_api_key"])
def test_a_log_field_that_may_hold_a_secret_is_hidden(name: str):
    assert _hide_secrets(None, "info", {name: "canary", "event": "x"}) == {name: "[hidden]", "event": "x"}


@given(st.binary(), st.text(max_size=30))
def test_every_failure_becomes_a_rejection_with_a_code(value: bytes, text: str):
    record = Record("t", 0, 1, None, value, {})
    assert rejection_of(ValueError(text)).code == "cannot_apply"
    rejected = Rejected("bad", text, attribute="a", subject=record.topic)
    assert rejection_of(rejected) is rejected

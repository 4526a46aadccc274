"""The parts of the embedded stack that need no process."""

from __future__ import annotations

import json
import socket
import stat
import sys
from pathlib import Path

import psutil
import pytest

from app.devstack import kafka, ports, simulator, state
from app.devstack.child import find
from app.devstack.errors import StackError
from app.devstack.settings import load_stack_settings
from app.devstack.stack import DevStack
from app.kafka import Cluster, cluster_of
from app.settings import load_settings


def test_a_taken_port_is_told_with_its_owner_and_the_variable_to_change() -> None:
    with socket.socket() as taken:
        taken.bind((ports.HOST, 0))
        taken.listen()
        number = taken.getsockname()[1]
        with pytest.raises(StackError, match=rf"^Port {number} is taken.*set AI_STACK_KAFKA_PORT to another one\.$"):
            ports.choose(number, "AI_STACK_KAFKA_PORT")


def test_port_zero_is_any_free_port() -> None:
    assert ports.choose(0, "AI_STACK_KAFKA_PORT") > 1023


def test_nobody_is_given_a_port_that_another_may_be_about_to_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "FREE", range(ports.FREE.start, ports.FREE.start + 20))
    chosen = [ports.choose(0, "") for _ in range(10)]
    assert len(set(chosen)) == 10


def test_a_worker_is_not_ready_because_the_one_that_was_killed_before_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(DevStack, "environment", lambda _: {})
    worker = DevStack(load_stack_settings(dir=tmp_path)).worker(1)
    worker.command = [sys.executable, "-c", "import time; time.sleep(60)"]
    (tmp_path / "worker-1").mkdir()
    (tmp_path / "worker-1" / "ready").write_text("before it was killed")
    worker.start()
    try:
        assert worker.alive()
        assert not worker.is_ready()
    finally:
        worker.kill()


def test_providers_without_a_key_are_simulated_and_an_empty_key_is_none() -> None:
    environment = {"AI_CLAUDE_API_KEY": "sk-1", "AI_OPENAI_API_KEY": ""}
    assert simulator.simulated(environment) == ["openai", "perplexity"]
    told = simulator.variables(["openai"], 1234)
    assert told == {"AI_OPENAI_API_KEY": "simulated", "AI_OPENAI_BASE_URL": "http://127.0.0.1:1234/v1"}


def test_a_wrong_stack_setting_is_refused_by_its_variables_name() -> None:
    with pytest.raises(StackError, match="AI_STACK_KAFKA_PORT"):
        load_stack_settings(kafka_port=70_000)


def test_missing_java_and_maven_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackError, match=r"^Java is missing: install"):
        kafka.check_java()
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    java.chmod(0o755)
    with pytest.raises(StackError, match=r"^Java 11 is too old"):
        kafka.check_java()
    java.write_text("#!/bin/sh\necho 'openjdk version \"21.0.1\"' >&2\n")
    monkeypatch.setenv("SPILLWAY_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(StackError, match=r"^Maven is missing"):
        kafka.check_java()


def test_the_secrets_are_readable_by_their_owner_only_and_come_back(tmp_path: Path) -> None:
    fresh = state.fresh_state()
    state.write(tmp_path, fresh)
    assert stat.S_IMODE((tmp_path / state.FILE).stat().st_mode) == 0o600
    assert state.read(tmp_path) == fresh
    assert state.read(tmp_path / "elsewhere") is None


def test_a_stack_is_talked_to_plainly_whatever_is_set_for_another_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SECURITY_PROTOCOL": "SASL_PLAINTEXT", "USER": "shop", "PASSWORD": "secret"}.items():
        monkeypatch.setenv(f"AI_KAFKA_{name}", value)
    stack = state.fresh_state()
    stack.ports = {"kafka": 9092, "clickhouse": 8123, "simulator": 9099}
    told = {name.removeprefix("AI_").lower(): value for name, value in stack.environment().items()}
    assert cluster_of(load_settings()).options
    assert cluster_of(load_settings(**told)) == Cluster("127.0.0.1:9092")


def test_a_broken_state_file_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / state.FILE).write_text("{half")
    with pytest.raises(StackError, match="--fresh"):
        state.read(tmp_path)
    (tmp_path / state.FILE).write_text(json.dumps({"unknown": 1}))
    with pytest.raises(StackError, match="--fresh"):
        state.read(tmp_path)


def test_a_process_is_known_by_more_than_its_pid() -> None:
    own = psutil.Process()
    assert find({"pid": own.pid, "created": own.create_time()}) == own
    assert find({"pid": own.pid, "created": own.create_time() - 60}) is None
    assert find(None) is None


def test_a_cluster_id_never_looks_like_an_option() -> None:
    assert not any(kafka._cluster_id().startswith("-") for _ in range(2_000))

"""The program's surface: help, usage errors, and one sentence for what goes wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli.context import stack_settings
from app.cli.main import app

COMMANDS = (
    *("ask", "publish", "tail", "report", "sql"),
    *("worker", "serve", "web", "keys", "topics", "migrate", "lanes", "limits", "budget"),
    *("up", "down", "status", "logs"),
)


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CliRunner:
    """No stack runs here, and nothing answers."""
    monkeypatch.setenv("AI_STACK_DIR", str(tmp_path))
    monkeypatch.setenv("AI_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("AI_CLICKHOUSE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_COLOR", "1")
    return CliRunner()


def test_the_help_names_every_command(runner: CliRunner) -> None:
    result = runner.invoke(app, ["--help"])
    assert result.exit_code == 0
    for command in COMMANDS:
        assert f" {command} " in result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(runner: CliRunner, command: str) -> None:
    result = runner.invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f"Usage: root {command}" in result.output or f" {command} " in result.output


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("up", "down", "status", "logs")])
def test_the_help_has_an_example(runner: CliRunner, command: str) -> None:
    assert f"spillway {command}" in runner.invoke(app, [command, "--help"]).output


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["ask"],
        ["ask", "hi", "--max-tokens", "0"],
        ["publish", "f", "--rate", "0"],
        ["topics", "--check", "--fix"],
        ["report", "w", "--month", "2026-13"],
        ["sql", "select 1", "--json", "--csv"],
        ["tail", "usage", "-n", "-1"],
        ["lanes", "pause"],
        ["limits", "set", "claude"],
        ["limits", "set", "claude", "--rpm", "0"],
        ["keys", "create"],
        ["keys", "revoke"],
        ["serve", "--port", "70000"],
    ],
    ids=" ".join,
)
def test_a_wrong_usage_exits_with_2(runner: CliRunner, arguments: list[str]) -> None:
    assert runner.invoke(app, arguments).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["ask", "hi"], "Kafka at 127.0.0.1:1 does not answer"),
        (["tail", "usage"], "Kafka at 127.0.0.1:1 does not answer"),
        (["topics"], "Kafka at 127.0.0.1:1 does not answer"),
        (["publish", "-"], "Kafka at 127.0.0.1:1 does not answer"),
        (["lanes"], "Kafka at 127.0.0.1:1 does not answer"),
        (["lanes", "pause", "claude"], "Kafka at 127.0.0.1:1 does not answer"),
        (["lanes", "pause", "gemini"], "There is no gemini; there are claude, openai, perplexity"),
        (["limits"], "Kafka at 127.0.0.1:1 does not answer"),
        (["limits", "set", "claude", "--rpm", "1"], "Kafka at 127.0.0.1:1 does not answer"),
        (["publish", "no-such-file"], "no-such-file cannot be read"),
        (["report", "w"], "ClickHouse at http://127.0.0.1:1 does not answer"),
        (["sql", "select 1"], "ClickHouse at http://127.0.0.1:1 does not answer"),
        (["cancel", "r-1"], "Kafka at 127.0.0.1:1 does not answer"),
        (["serve", "--open", "--host", "0.0.0.0"], "AI_HTTP_HOST: 0.0.0.0 is not loopback"),  # noqa: S104
        (["keys", "list"], "Kafka at 127.0.0.1:1 does not answer"),
        (["keys", "create", "--workspace", "a b"], "'a b' cannot be a workspace"),
        (["migrate"], "ClickHouse at http://127.0.0.1:1 does not answer"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_goes_wrong_is_one_sentence_and_exit_code_1(runner: CliRunner, arguments: list[str], reason: str) -> None:
    result = runner.invoke(app, arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"Error: {reason}")
    assert result.stderr.count("\n") == 1


def test_a_door_that_cannot_reach_kafka_does_not_open(runner: CliRunner) -> None:
    result = runner.invoke(app, ["serve", "--port", "0", "--log-level", "critical"])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: AI_LOG_LEVEL")
    result = runner.invoke(app, ["serve", "--port", "0"])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: Kafka at 127.0.0.1:1 does not answer")


def test_a_wrong_setting_is_named(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_PARTITIONS", "many")
    result = runner.invoke(app, ["topics"])
    assert (result.exit_code, result.stderr.split(":")[1].strip()) == (1, "AI_PARTITIONS")


def test_a_fault_of_the_program_keeps_its_traceback(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("app.cli.context.command_settings", broken)
    assert isinstance(runner.invoke(app, ["topics"]).exception, ZeroDivisionError)


def test_the_environment_stands_before_the_running_stack() -> None:
    stack = {"AI_CLICKHOUSE_USER": "stack", "AI_CLICKHOUSE_PASSWORD": "secret", "AI_NO_SETTING": "x"}
    assert stack_settings(stack, {"AI_CLICKHOUSE_USER": "mine"}) == {"clickhouse_password": "secret"}


def test_help_starts_without_what_only_commands_need() -> None:
    code = (
        "import sys, app.cli.main; sys.exit(any(m in sys.modules for m in ('faust', 'aiokafka', 'pydantic', 'rich')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("command", ["ask", "embed", "search", "cancel", "audit", "reprice", "simulate"])
def test_a_workspace_is_named_in_the_same_way_everywhere(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
    assert re.search(r"--workspace\s+-w\b", shown)

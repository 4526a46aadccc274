"""The embedded stack as a user has it: the real program, started, killed, restarted and stopped."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from app.clickhouse.client import ClickHouse
from app.clickhouse.errors import ClickHouseError
from app.devstack import connection_environment, state
from app.devstack.child import find
from app.devstack.stack import DevStack
from app.settings import Settings, load_settings
from tests.support.clock.waiting import until

pytestmark = pytest.mark.stack

FREE_PORTS = {f"AI_STACK_{name}_PORT": "0" for name in ("KAFKA", "KAFKA_CONTROLLER", "CLICKHOUSE", "SIMULATOR", "OPS")}


def runs(process: psutil.Process) -> bool:
    """A zombie has ended; that nobody has asked for its status is its parent's affair."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Program:
    """`spillway` with a stack folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, **FREE_PORTS, "AI_STACK_DIR": str(folder), "AI_STACK_WORKERS": "0"}

    def run(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "app.cli.main", *words]
        environment = {**self.environment, **more}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    def up(self, *words: str) -> None:
        done = self.run("up", "--detach", *words)
        assert done.returncode == 0, done.stdout + done.stderr

    def state(self) -> state.StackState:
        known = state.read(self.folder)
        assert known is not None
        return known

    def processes(self) -> list[psutil.Process]:
        parts = [part["identity"] for part in self.state().parts.values()]
        return [process for identity in [self.state().supervisor, *parts] if (process := find(identity))]

    def settings(self) -> Settings:
        told = connection_environment(self.folder)
        assert told is not None
        return load_settings(**{name.removeprefix("AI_").lower(): value for name, value in told.items()})


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    program = Program(tmp_path / "stack")
    yield program
    program.run("down")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """One stack that is up, for tests that leave it so."""
    program = Program(tmp_path_factory.mktemp("up") / "stack")
    program.up()
    yield program
    program.run("down")


async def test_a_restart_continues_with_the_data_and_down_leaves_nothing_behind(program: Program) -> None:
    program.up()
    running = program.processes()
    assert len(running) == 4, "supervisor, Kafka, ClickHouse, simulator"
    async with ClickHouse(program.settings()) as database:
        await database.command("CREATE TABLE kept (n Int32) ENGINE = MergeTree ORDER BY n")
        await database.command("INSERT INTO kept VALUES (7)")
    assert "claude, openai, perplexity" in program.run("status").stdout
    assert program.run("down").stdout == "The stack has stopped.\n"
    assert not any(runs(process) for process in running)
    assert program.run("status", "--json").returncode == 3

    program.up()
    async with ClickHouse(program.settings()) as database:
        assert (await database.query("SELECT n FROM kept")).rows == [(7,)]
    program.run("down")
    program.up("--fresh")
    async with ClickHouse(program.settings()) as database:
        assert (await database.query("SELECT count() FROM system.tables WHERE name = 'kept'")).rows == [(0,)]


def test_a_second_stack_on_the_same_folder_is_refused_in_one_sentence(running: Program) -> None:
    second = running.run("up")
    assert second.returncode == 1
    assert "A stack is running in" in second.stderr
    assert "spillway down" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_taken_port_is_refused_in_one_sentence_and_nothing_is_left(running: Program) -> None:
    taken = running.state().ports["kafka"]
    other = Program(running.folder.parent / "other")
    refused = other.run("up", AI_STACK_KAFKA_PORT=str(taken))
    assert refused.returncode == 1
    assert f"Port {taken} is taken by java" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert other.processes() == []


def test_a_part_that_dies_is_reported_and_restarted(running: Program) -> None:
    died = find(running.state().parts["simulator"]["identity"])
    assert died is not None
    died.kill()

    def is_back() -> bool:
        part = running.state().parts["simulator"]
        process = find(part["identity"])
        return part["restarts"] == 1 and process is not None and process.pid != died.pid

    until(is_back, within=20, what="the simulator is back")
    assert "simulator ended with status -9" in (running.folder / "logs" / "supervisor.log").read_text()


def test_when_the_supervisor_is_killed_nothing_of_the_stack_goes_on(program: Program) -> None:
    program.up()
    supervisor, *parts = program.processes()
    os.kill(supervisor.pid, signal.SIGKILL)
    until(lambda: not any(runs(part) for part in parts), within=40, what="the parts have ended")
    assert program.run("status").returncode == 3


async def test_the_reader_can_read_the_ledger_and_do_nothing_else(settings: Settings) -> None:
    forbidden = (
        "INSERT INTO attempts (workspace_id) VALUES ('x')",
        "DROP TABLE attempts",
        "CREATE TABLE more (n Int32) ENGINE = Memory",
        "SELECT * FROM system.users",
        "SELECT * FROM url('http://127.0.0.1:1/', CSV, 'a String')",
        "SET readonly = 0",
    )
    async with ClickHouse(settings, reader=True) as reader:
        assert (await reader.query("SELECT count() >= 0 FROM ledger")).rows
        for statement in forbidden:
            with pytest.raises(ClickHouseError):
                await reader.command(statement)


def test_the_engines_own_login_can_read_nothing(settings: Settings) -> None:
    host, port = settings.clickhouse_url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    connection.request("GET", "/?query=SELECT%20count()%20FROM%20spillway.attempts")
    reply = connection.getresponse()
    assert reply.status != http.client.OK
    connection.close()


def was_restarted(told: list[str], times: int) -> bool:
    return sum(line.startswith("simulator restarted") for line in told) == times


def test_the_watch_waits_longer_after_each_death(stack: DevStack) -> None:
    simulator = stack.simulator
    assert simulator is not None
    told: list[str] = []
    stack.tell, before = told.append, stack.tell
    done = threading.Event()
    watcher = threading.Thread(target=stack.watch, args=(done,))
    watcher.start()
    try:
        for deaths in (1, 2):
            simulator.kill()
            until(partial(was_restarted, told, deaths), within=20, what="it is restarted")
            simulator.wait_ready(20)
    finally:
        done.set()
        watcher.join()
        stack.tell = before
        simulator.restarts = 0
    waits = [line.rsplit(" in ", 1)[1] for line in told if "restarting" in line]
    assert waits == ["1 s", "2 s"]


def test_status_for_scripts_is_pure_json(running: Program) -> None:
    told = json.loads(running.run("status", "--json").stdout)
    assert told["running"] is True
    assert {part["name"] for part in told["parts"]} == {"kafka", "clickhouse", "simulator"}

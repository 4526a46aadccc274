"""Faults of a worker's own: they are never taken for the event's, and it goes on by itself when they are over."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from app.clickhouse.client import ClickHouse
from app.devstack.child import Child
from app.devstack.stack import DevStack
from app.settings import Settings
from schemas.response import Response, Status
from streams.topology import DEAD_LETTERS, REPORTS, REQUESTS, RESPONSES
from tests.support.clock.waiting import eventually
from tests.support.load.accidents import fill, small_disk
from tests.support.reader.offsets import waiting
from tests.support.reader.topics import consume_until, publish, reading
from tests.support.stack.workers import WIDE_LANES, running_worker
from tests.support.values.names import unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(280)]

#: Seconds until a paused stage tries again.
PAUSE = 3


@pytest.fixture
def its_folder(stack: DevStack) -> Iterator[Path]:
    """The data folder of the seventh worker, on a disk of its own, in memory."""
    folder = stack.folder / "worker-7"
    with small_disk(folder) as there:
        if not there:
            pytest.skip("a small disk in memory may not be mounted here")
        yield folder


async def checks(worker: Child, folder: Path) -> dict[str, str]:
    """What the worker says of itself."""
    address = (folder / "ops").read_text().strip()
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}/ready") as answer:
        assert worker.exit_code() is None
        return dict((await answer.json())["checks"])


def requests(workspaces: list[str], count: int) -> list[tuple[bytes, bytes]]:
    made = []
    for number in range(count):
        workspace = workspaces[number % len(workspaces)]
        body = {
            "request_id": unique("r"),
            "workspace_id": workspace,
            "prompt": unique("why"),
            "preferred_providers": ["openai"],
        }
        made.append((workspace.encode(), json.dumps(body).encode()))
    return made


async def answers(consumer: Any, wanted: set[str], found: dict[str, Response]) -> None:
    def note(record: Any) -> bool:
        response = Response.model_validate_json(record.value)
        if response.request_id in wanted:
            assert response.request_id not in found, "a second terminal response"
            found[response.request_id] = response
        return True

    await consume_until(consumer, lambda _: found.keys() == wanted, only=note, within=90)


async def test_a_full_disk_pauses_the_stages_and_loses_and_buries_nothing(
    stack: DevStack, settings: Settings, its_folder: Path
) -> None:
    folder, servers = its_folder, settings.kafka_bootstrap_servers
    workspaces = [unique("w") for _ in range(6)]
    before, during = requests(workspaces, 30), requests(workspaces, 60)
    wanted = {json.loads(value)["request_id"] for _, value in [*before, *during]}
    environment = {"AI_PAUSE_SECONDS": str(PAUSE), "AI_OPS_PORT": "0"} | WIDE_LANES
    async with reading(servers, RESPONSES) as consumer, reading(servers, DEAD_LETTERS) as letters:
        with running_worker(stack, 7, **environment) as worker:
            found: dict[str, Response] = {}
            buried = await letters.end_offsets(letters.assignment())
            await publish(servers, REQUESTS, before)
            await answers(consumer, {json.loads(value)["request_id"] for _, value in before}, found)
            await asyncio.to_thread(fill, folder / "filler")
            await publish(servers, REQUESTS, during)
            told = await eventually(lambda: paused(worker, folder), within=60, what="a stage is paused")
            assert "cannot be read or written" in told
            await asyncio.sleep(2 * PAUSE)
            assert await paused(worker, folder), "it tries in vain, and pauses again"
            (folder / "filler").unlink()
            await answers(consumer, wanted, found)
            assert {one.status for one in found.values()} == {Status.SUCCEEDED}
            await eventually(lambda: nothing_is_wrong(worker, folder), within=60, what="it is ready again")
            assert await letters.end_offsets(letters.assignment()) == buried
            # While the worker lives, which writes it.
            async with ClickHouse(settings) as database:
                sql = """SELECT count(), countIf(outcome != 'succeeded') FROM ledger
                         WHERE workspace_id IN {w:Array(String)}"""
                each = partial(rows, database, sql, workspaces, (90, 0))
                await eventually(each, within=60, what="each call is in the ledger once")


def misbuilt(worker: Child, patch: str) -> Child:
    """The same worker with a fault in its program."""
    worker.command = [sys.executable, "-c", f"{patch}\nfrom app.cli.main import main\nmain()", "worker"]
    return worker


#: Each report is an unknown fault; and settlement never comes to an end.
CANNOT_SETTLE = """
import streams.settle.agent as settle
def apply(*_): raise LookupError("a bad deployment")
settle.apply = apply
"""
NEVER_SETTLES = """
import asyncio
import streams.settle.agent as settle
async def handle(self, incoming): await asyncio.Event().wait()
settle.Settling.handle = handle
"""


async def test_a_bad_deployment_buries_no_more_than_it_may_and_its_successor_answers_the_rest(
    stack: DevStack, settings: Settings
) -> None:
    """Another worker joins meanwhile: a pause outlives the change of partitions."""
    servers, most = settings.kafka_bootstrap_servers, 3
    workspaces = [unique("w") for _ in range(12)]
    sent = requests(workspaces, 48)
    told = {"AI_FAULTS_BEFORE_PAUSE": str(most), "AI_PAUSE_SECONDS": "1", "AI_OPS_PORT": "0", "AI_DRAIN_TIMEOUT": "2"}
    bad = misbuilt(stack.worker(7, **told, **WIDE_LANES), CANNOT_SETTLE)
    folder = stack.folder / "worker-7"
    async with reading(servers, RESPONSES, DEAD_LETTERS) as consumer:
        bad.start()
        try:
            await asyncio.to_thread(bad.wait_ready, 90)
            await publish(servers, REQUESTS, sent)
            reason = await eventually(lambda: paused(bad, folder), within=60, what="settlement is paused")
            assert "one event after the other fails" in reason
            with running_worker(stack, 8, **told, **WIDE_LANES):
                await asyncio.sleep(3)
                assert await eventually(lambda: paused(bad, folder), what="it is paused still")
                await asyncio.to_thread(bad.stop)
                ended = await consume_until(
                    consumer,
                    lambda found: len({(record.topic, record.value) for record in found}) >= len(sent),
                    only=lambda record: any(workspace.encode() in record.value for workspace in workspaces),
                    within=90,
                )
                assert len([record for record in ended if record.topic == DEAD_LETTERS]) <= most
        finally:
            bad.kill()


@pytest.mark.prove
async def test_a_worker_in_which_a_stage_stands_still_ends_itself_and_says_why(
    stack: DevStack, settings: Settings
) -> None:
    told = {"AI_STANDSTILL_TIMEOUT": "5", "AI_OPS_PORT": "0", "AI_DRAIN_TIMEOUT": "1", **WIDE_LANES}
    worker = misbuilt(stack.worker(7, **told), NEVER_SETTLES)
    worker.start()
    try:
        await asyncio.to_thread(worker.wait_ready, 90)
        await publish(settings.kafka_bootstrap_servers, REQUESTS, requests([unique("w")], 3))
        await eventually(lambda: not worker.alive(), within=60, what="it ends itself")
        assert worker.exit_code() == 1
        log = stack.log("worker-7").read_text()
        assert "worker_gives_up" in log
        assert "settle" in log
        assert "Traceback" not in log
    finally:
        worker.kill()
    # What it has left is done by another one.
    with running_worker(stack, 8, **WIDE_LANES):
        await eventually(lambda: nothing_waits(settings), within=60, what="its reports are settled")


async def nothing_waits(settings: Settings) -> bool:
    return await waiting(settings.kafka_bootstrap_servers, settings.kafka_application_id, REPORTS) == 0


async def paused(worker: Child, folder: Path) -> str | None:
    told = (await checks(worker, folder))["stages"]
    return None if told == "ok" else told


async def nothing_is_wrong(worker: Child, folder: Path) -> bool:
    return set((await checks(worker, folder)).values()) == {"ok"}


async def rows(database: ClickHouse, sql: str, workspaces: list[str], wanted: tuple[int, int]) -> bool:
    (found,) = (await database.query(sql, {"w": workspaces})).rows
    return tuple(found) == wanted


async def test_a_worker_tells_what_its_tasks_wait_for_and_nothing_of_what_they_work_on(stack: DevStack) -> None:
    with running_worker(stack, 8, AI_OPS_PORT="0", **WIDE_LANES) as worker:
        assert worker.pid is not None
        pid, log = worker.pid, stack.log("worker-8")

        def is_told() -> bool:
            # Once more each time: a task may be between two waits at the moment of the signal.
            os.kill(pid, signal.SIGUSR1)
            return any("waits: " in line and "_drain_messages" in line for line in log.read_text().splitlines())

        await eventually(is_told, what="the one that reads says so")
        assert worker.exit_code() is None

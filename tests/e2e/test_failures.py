"""What is lost when something dies in the middle of a load: nothing. More rounds: bench/failures.py."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.devstack.child import Child, wait_all_ready
from app.devstack.stack import DevStack
from app.settings import Settings
from tests.support.clock.waiting import until
from tests.support.load.rounds import Load, Round, run_round
from tests.support.provider.instant import Provider
from tests.support.reader.lanes import lane_state, requests
from tests.support.reader.topics import consume_until, publish, reading
from tests.support.stack.running import free_stack, settings_of
from tests.support.stack.workers import WIDE_LANES, start_workers
from tests.support.values.names import unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(420)]

REQUESTS = int(os.environ.get("SPILLWAY_TEST_REQUESTS", "1200"))
#: A load that two workers on a slow machine can carry as well. bench/failures.py has 400 a second.
RATE = 150.0
Requests = list[tuple[bytes | None, bytes | None]]


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    running = Provider.start(tmp_path_factory.mktemp("provider"), delay_ms=50)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def pair(stack: DevStack, provider: Provider) -> Iterator[list[Child]]:
    running = start_workers(stack, provider, 2)
    yield running
    for worker in running:
        worker.stop()


@pytest.fixture
def workers(pair: list[Child]) -> list[Child]:
    """Two of them, ready: what an earlier test has ended is started again."""
    gone = [worker for worker in pair if not worker.alive()]
    for worker in gone:
        worker.start()
    wait_all_ready(gone, 90)
    return pair


def assert_nothing_is_lost(done: Round) -> None:
    assert not done.missing, f"{len(done.missing)} requests have no response, for example {done.missing[:3]}"
    assert not done.contradicted, "terminal responses contradict each other"
    assert max(done.calls.values()) == 1, "a call was made twice under one attempt id"
    assert set(done.calls) <= set(done.ledger), "a call is not in the ledger"


async def test_a_worker_that_is_killed_loses_nothing_and_repeats_only_what_was_in_flight(
    settings: Settings, provider: Provider, workers: list[Child]
) -> None:
    done = await run_round(settings, provider, Load(REQUESTS, RATE, workers[0].kill))
    assert_nothing_is_lost(done)
    assert sum(done.calls.values()) == REQUESTS + len(done.repeated_calls)
    assert done.repeated_calls <= done.unreported_at_accident, done.summary()
    assert done.repeated_calls <= set(done.in_doubt), "a repeated call's first attempt is in doubt in the ledger"


async def test_an_orderly_stop_loses_nothing_and_processes_nothing_twice(
    settings: Settings, provider: Provider, workers: list[Child]
) -> None:
    done = await run_round(settings, provider, Load(REQUESTS, RATE, workers[0].ask_to_stop))
    assert_nothing_is_lost(done)
    assert sum(done.calls.values()) == REQUESTS
    assert (done.repeated_responses, done.repeated_usage, done.in_doubt) == (0, 0, [])
    assert workers[0].stop()
    assert workers[0].exit_code() == 0


@pytest.mark.prove
async def test_whoever_takes_a_partition_over_knows_every_request_that_was_answered_there(
    settings: Settings, stack: DevStack, provider: Provider, pair: list[Child]
) -> None:
    """Also where it kept a second copy of the tables before: one that misses the first rows has a note behind them."""
    for other in pair:
        other.stop()
    before, meanwhile, last = (requests(unique(name), 60) for name in ("before", "meanwhile", "last"))
    first, second = (stack.worker(number, **provider.environment(), **WIDE_LANES) for number in (1, 2))
    try:
        first.start()
        first.wait_ready(90)
        await answered(settings, before)
        second.start()
        second.wait_ready(90)
        await answered(settings, meanwhile)
        assert first.stop()
        await answered(settings, [*before, *meanwhile, *last], last)
    finally:
        for worker in (first, second):
            worker.stop()
    called = Counter(event["id"] for event in provider.events() if event["event"] == "start")
    for _, value in (*before, *meanwhile):
        identity = json.loads(value or b"")["request_id"]
        assert (called[f"{identity}/1"], called[f"{identity}/2"]) == (1, 0), f"{identity} was called again"


async def test_a_killed_worker_that_starts_again_in_its_folder_waits_for_nobody_to_count_it_as_dead(
    settings: Settings, stack: DevStack, provider: Provider
) -> None:
    """With a session of ten minutes: whoever waits for its end is not ready here."""
    environment = provider.environment() | WIDE_LANES | {"AI_KAFKA_SESSION_TIMEOUT": "600"}
    worker = stack.worker(3, **environment)
    try:
        worker.start()
        worker.wait_ready(90)
        await answered(settings, requests(unique("before"), 20))
        worker.kill()
        worker.start()
        worker.wait_ready(90)
        await answered(settings, requests(unique("after"), 20))
        told = worker.log.read_text()
    finally:
        worker.stop()
    for group in ("spillway", "spillway-ledger"):
        assert f"predecessor: the process before this one has left group {group}" in told


async def answered(settings: Settings, asked: Requests, until: Requests | None = None) -> None:
    """Publish these, and return when those (or all) have been answered."""
    servers = settings.kafka_bootstrap_servers
    waiting = {json.loads(value or b"")["request_id"] for _, value in until or asked}
    async with reading(servers, "ai.responses") as consumer:
        await publish(servers, "ai.requests", asked)

        def is_all(records: list[Any]) -> bool:
            return waiting <= {json.loads(record.value)["request_id"] for record in records}

        await consume_until(consumer, is_all, within=90.0)


@pytest.mark.usefixtures("workers")
async def test_a_broker_that_restarts_loses_nothing_and_the_backlog_drains_by_itself(
    settings: Settings, stack: DevStack, provider: Provider
) -> None:
    supervising = threading.Event()
    watcher = threading.Thread(target=stack.watch, args=(supervising,), daemon=True)
    watcher.start()
    try:
        done = await run_round(settings, provider, Load(REQUESTS, 100.0, stack.kafka.restart))
    finally:
        supervising.set()
        watcher.join()
    assert_nothing_is_lost(done)


@pytest.mark.usefixtures("workers")
async def test_while_clickhouse_is_away_requests_are_answered_and_the_ledger_is_complete_afterwards(
    settings: Settings, stack: DevStack, provider: Provider
) -> None:
    """It comes back when the last answer is there: so none of them can have waited for the ledger."""
    seconds_away = 60 if REQUESTS >= 10_000 else REQUESTS // 200
    load = Load(2 * seconds_away * 100, 100.0, stack.clickhouse.kill, recovery=stack.clickhouse.start)
    try:
        done = await run_round(settings, provider, load)
    finally:
        stack.clickhouse.start()
    assert_nothing_is_lost(done)
    assert done.last_answer_at > done.accident_at, "some were asked while it was away"
    assert len(done.ledger) == len(done.calls) == load.requests


@pytest.mark.prove
def test_a_worker_whose_broker_is_gone_for_good_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    own = free_stack(tmp_path / "stack")
    own.start()
    worker = own.worker(1, AI_DRAIN_TIMEOUT="1", AI_REQUESTS_PER_MINUTE="6")
    settings = settings_of(own)
    try:
        worker.start()
        worker.wait_ready(90)
        asyncio.run(publish(settings.kafka_bootstrap_servers, "ai.requests", requests(unique("late"), 50)))
        asyncio.run(lane_state(settings, "claude/0", lambda state: state.waiting > 30))
        own.kafka.stop()
        worker.ask_to_stop()
        until(lambda: not worker.alive(), within=60, what="it does not wait for ever")
        assert "Traceback" not in worker.log.read_text()
    finally:
        worker.kill()
        own.stop()


@pytest.mark.prove
def test_a_worker_that_starts_before_its_broker_waits_for_it(tmp_path: Path) -> None:
    own = free_stack(tmp_path / "stack")
    own.start()
    worker = own.worker(1)
    try:
        own.kafka.stop()
        worker.start()
        until(lambda: "kafka_away: " in worker.log.read_text(), within=60, what="it says what it waits for")
        worker.ask_to_stop()
        until(lambda: not worker.alive(), within=30, what="it can be stopped meanwhile")
        assert worker.exit_code() == 0
        worker.start()
        own.kafka.start()
        worker.wait_ready(90)
        assert "Traceback" not in worker.log.read_text()
    finally:
        worker.kill()
        own.stop()

"""Workers whose machine's clock is wrong, or is set while they work: they decide by the broker's time, and say so."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from aiokafka import ConsumerRecord

from app.devstack.child import Child
from app.devstack.stack import DevStack
from app.settings import Settings
from schemas.response import Response, Status
from streams.runtime.fencing import PROBE
from streams.topology import OWNERS, REQUESTS, RESPONSES
from tests.support.clock.faked import FakedClock, library
from tests.support.clock.waiting import eventually
from tests.support.reader.topics import consume_until, publish, reading
from tests.support.stack.workers import WIDE_LANES
from tests.support.values.names import unique

pytestmark = [
    pytest.mark.stack,
    pytest.mark.timeout(240),
    pytest.mark.skipif(library() is None, reason="faketime is not installed (Debian: faketime)"),
]

MINUTES = 300.0
#: Seconds that a request may take: half of what the clock is wrong by.
TIME = 150.0
COUNT = 60


@asynccontextmanager
async def working(stack: DevStack, clock: FakedClock) -> AsyncIterator[Child]:
    """A worker that has its partitions, whatever its clock says. It must end in order."""
    worker = stack.worker(5, **WIDE_LANES, **clock.environment())
    worker.log.unlink(missing_ok=True)
    worker.start()
    try:
        await eventually(lambda: reason(stack, worker, "partitions", "ok"), within=90, what="it works")
        yield worker
    finally:
        stopped = worker.stop()
    assert stopped, "the worker did not stop by itself"
    assert worker.exit_code() == 0, worker.last_words()


async def reason(stack: DevStack, worker: Child, check: str, wanted: str) -> str | None:
    """What a check of `/ready` says, once it says what is wanted."""
    assert worker.alive(), worker.last_words()
    try:
        address = (stack.folder / worker.name / "ops").read_text().strip()
        async with aiohttp.ClientSession() as session, session.get(f"http://{address}/ready") as reply:
            body = await reply.json()
    except (OSError, aiohttp.ClientError):
        return None
    assert (reply.status == 200) == body["ready"]
    found = str(body["checks"][check])
    return found if wanted in found else None


async def apart(stack: DevStack, worker: Child) -> float:
    address = (stack.folder / worker.name / "ops").read_text().strip()
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}/metrics") as reply:
        lines = (await reply.text()).splitlines()
    return float(next(line for line in lines if line.startswith("ai_clock_apart_seconds ")).split()[1])


async def answers(settings: Settings, number: int) -> list[Response]:
    """What becomes of so many requests that have their time from now on, by a clock that is right."""
    servers, workspace = settings.kafka_bootstrap_servers, unique("clocks")
    deadline = datetime.now(UTC) + timedelta(seconds=TIME)
    bodies = [
        {
            "request_id": unique("r"),
            "workspace_id": workspace,
            "prompt": unique("hello"),
            "deadline": deadline.isoformat(),
            "preferred_providers": ["claude"],
        }
        for _ in range(number)
    ]

    def own(record: ConsumerRecord) -> bool:
        return workspace.encode() in (record.value or b"")

    async with reading(servers, RESPONSES) as consumer:
        await publish(servers, REQUESTS, [(workspace.encode(), json.dumps(body).encode()) for body in bodies])
        found = await consume_until(consumer, lambda records: len(records) >= number, only=own, within=60)
    return [Response.model_validate_json(record.value) for record in found]


@pytest.mark.parametrize(
    ("ahead", "words"), [(MINUTES, "ahead of"), pytest.param(-MINUTES, "behind", marks=pytest.mark.prove)]
)
async def test_a_worker_whose_clock_is_five_minutes_wrong_expires_nothing_and_is_not_ready_and_says_why(
    stack: DevStack, settings: Settings, tmp_path: Path, ahead: float, words: str
) -> None:
    async with working(stack, FakedClock(tmp_path, ahead)) as worker:
        told = await reason(stack, worker, "clock", f"300.0 s {words} the broker's")
        assert told is not None
        assert "NTP" in told
        assert not worker.is_ready(), "the file `ready` says the same"
        assert await apart(stack, worker) == pytest.approx(ahead, abs=1)
        found = await answers(settings, COUNT)
        now = datetime.now(UTC)
    assert Counter(response.status for response in found) == {Status.SUCCEEDED: COUNT}
    assert all(abs((response.answered_at - now).total_seconds()) < 100 for response in found)
    log = worker.log.read_text()
    assert log.count("clock_apart") == 1


@pytest.mark.prove
async def test_a_clock_that_is_set_while_a_worker_works_changes_no_answer_and_it_is_ready_when_it_is_right_again(
    stack: DevStack, settings: Settings, tmp_path: Path
) -> None:
    clock = FakedClock(tmp_path)
    async with working(stack, clock) as worker:
        for jump in (MINUTES, -MINUTES):
            await eventually(worker.is_ready, within=60, what="it is ready")
            assert await reason(stack, worker, "clock", "ok")
            clock.set(jump)
            await eventually(lambda: not worker.is_ready(), what="it is not ready")
            found = await answers(settings, COUNT)
            assert Counter(response.status for response in found) == {Status.SUCCEEDED: COUNT}
            assert await reason(stack, worker, "clock", "NTP")
            clock.set(0.0)
        await eventually(worker.is_ready, within=60, what="it is ready again")
    log = worker.log.read_text()
    assert (log.count("clock_apart"), log.count("clock_right_again")) == (2, 2)
    assert "broker_clock_stepped" not in log


async def test_workers_say_that_they_live_by_the_broker_s_clock_and_at_last_that_they_have_ended(
    stack: DevStack, settings: Settings, tmp_path: Path
) -> None:
    async with reading(settings.kafka_bootstrap_servers, OWNERS) as consumer:
        async with working(stack, FakedClock(tmp_path, MINUTES)):
            said = await consume_until(consumer, lambda records: len(records) >= 3)
        said += await consume_until(consumer, lambda records: bool(records) and records[-1].value is None)
    now = datetime.now(UTC).timestamp() * 1000
    assert len({record.key for record in said if record.key != PROBE}) == 1
    assert all(record.timestamp_type == 1 and abs(record.timestamp - now) < 100_000 for record in said)
    words = [json.loads(record.value) for record in said if record.value is not None and record.key != PROBE]
    assert {(word["owner"].encode(), word["lease"]) for word in words} == {(said[-1].key, 10.0)}

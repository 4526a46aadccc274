"""Lanes on real processes: quotas across a kill, fallback and the breaker, and what operators say while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.devstack.child import Child
from app.devstack.stack import DevStack
from app.settings import Settings
from schemas.codec import encode
from schemas.control import LimitChange, Mode, ModeChange
from schemas.response import Status
from streams.topology import CONTROL, RESPONSES
from tests.support.clock.waiting import eventually
from tests.support.provider.simulator import MINUTE, Simulator, busiest_minute, ignored_waits
from tests.support.reader.lanes import BUSY_MACHINE, answers, lane_state, requests
from tests.support.reader.topics import publish, reading
from tests.support.stack.workers import fresh_lane, lane_owner, start
from tests.support.values.names import unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

RPM = 120
#: More than a minute's worth, and no more than is called: later tests find nothing left.
MANY = RPM * 3 // 2


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[Simulator]:
    running = Simulator.start(tmp_path, "--latency-ms=100", f"--rpm={RPM + RPM // 20}")
    yield running
    running.stop()


@pytest.mark.prove
async def test_a_limit_holds_in_every_minute_although_its_worker_is_killed(
    stack: DevStack, settings: Settings, simulator: Simulator, workers: list[Child], tmp_path: Path
) -> None:
    file = fresh_lane(tmp_path, "openai", rpm=RPM)
    told = simulator.environment() | {"AI_SETTINGS_FILE": str(file), "AI_FALLBACK_PROVIDERS": ""}
    start(stack, workers, 2, told | {"AI_PRIMARY_PROVIDER": "openai"})
    # Far beyond what it takes at the lane's pace, with a change of owner.
    deadline = (datetime.now(UTC) + timedelta(seconds=280)).isoformat()
    servers, prefix = settings.kafka_bootstrap_servers, unique("kill")
    async with reading(servers, RESPONSES) as consumer:
        await publish(servers, "ai.requests", requests(prefix, MANY, deadline=deadline))
        await eventually(lambda: len(simulator.calls("openai")) > RPM // 2, within=60, what="the lane is at work")
        before = len(simulator.calls("openai"))
        lane_owner(workers).kill()
        # All of them: those whose calls are made once more come last, and later tests find nothing left.
        await answers(consumer, prefix, MANY, within=180)
    calls = simulator.calls("openai")
    assert before < MANY <= len(calls), "it goes on"
    assert busiest_minute(calls, on_the_way=BUSY_MACHINE) <= RPM
    assert [call.status for call in calls if call.status != 200] == [], "nothing was refused"
    assert simulator.verdict()["errors"] == 0


async def test_a_dead_provider_costs_its_requests_little_and_the_others_nothing(
    stack: DevStack, settings: Settings, simulator: Simulator, workers: list[Child], tmp_path: Path
) -> None:
    file = tmp_path / "lanes.toml"
    groups = [fresh_lane(tmp_path, name, rpm=6_000).read_text() for name in ("claude", "openai")]
    file.write_text("\n".join(groups))
    dead = {"AI_CLAUDE_BASE_URL": "http://127.0.0.1:9/", "AI_RETRY_DELAY": "0.2", "AI_SETTINGS_FILE": str(file)}
    start(stack, workers, 1, simulator.environment() | dead | {"AI_FALLBACK_PROVIDERS": "openai"})
    servers = settings.kafka_bootstrap_servers
    async with reading(servers, RESPONSES) as consumer:
        first = unique("first")
        await publish(servers, "ai.requests", requests(first, 10))
        fell_back = await answers(consumer, first, 10)
        assert {(one.status, one.provider) for one in fell_back} == {(Status.SUCCEEDED, "openai")}
        assert any(one.attempts[0].provider == "claude" for one in fell_back), "the dead one was tried"
        then = unique("then")
        await publish(servers, "ai.requests", requests(then, 20))
        passed_on = await answers(consumer, then, 20)
        assert {one.provider for one in passed_on} == {"openai"}
        assert {len(one.attempts) for one in passed_on} == {1}, "an open circuit is not called"
        alone = unique("alone")
        await publish(
            servers, "ai.requests", requests(alone, 1, preferred_providers=["claude"], priority="interactive")
        )
        (answer,) = await answers(consumer, alone, 1)
        assert answer.provider == "openai"
    state = await lane_state(settings, "claude:")
    assert state.circuit == "open"
    assert state.reopens_at is not None


async def test_when_nothing_is_left_the_answer_says_what_each_provider_said(
    stack: DevStack, settings: Settings, simulator: Simulator, workers: list[Child], tmp_path: Path
) -> None:
    file = tmp_path / "lanes.toml"
    file.write_text("\n".join(fresh_lane(tmp_path, name, rpm=6_000).read_text() for name in ("claude", "openai")))
    nowhere = {f"AI_{name}_BASE_URL": "http://127.0.0.1:9/" for name in ("CLAUDE", "OPENAI")}
    told = simulator.environment() | nowhere | {"AI_SETTINGS_FILE": str(file), "AI_RETRY_DELAY": "0.05"}
    start(stack, workers, 1, told | {"AI_FALLBACK_PROVIDERS": "openai", "AI_RETRY_ATTEMPTS": "2"})
    servers, prefix = settings.kafka_bootstrap_servers, unique("nothing")
    async with reading(servers, RESPONSES) as consumer:
        await publish(servers, "ai.requests", requests(prefix, 1))
        (answer,) = await answers(consumer, prefix, 1)
    assert answer.status is Status.FAILED
    assert answer.error is not None
    assert answer.error.message.startswith("All AI providers failed. Last error: ")
    assert [attempt.provider for attempt in answer.attempts] == ["claude", "claude", "openai", "openai"]


async def test_operators_pause_resume_and_limit_a_lane_while_it_runs(
    stack: DevStack, settings: Settings, simulator: Simulator, workers: list[Child], tmp_path: Path
) -> None:
    file = fresh_lane(tmp_path, "openai", rpm=6_000)
    target = "openai:" + file.stem
    told = simulator.environment() | {"AI_SETTINGS_FILE": str(file), "AI_FALLBACK_PROVIDERS": ""}
    start(stack, workers, 1, told | {"AI_PRIMARY_PROVIDER": "openai"})
    servers = settings.kafka_bootstrap_servers

    async def say(event: ModeChange | LimitChange) -> None:
        await publish(servers, CONTROL, [(event.key.encode(), encode(event))])

    assert (await lane_state(settings, target)).in_flight == 0, "a lane says how it stands before it has work"
    async with reading(servers, RESPONSES) as consumer:
        before = unique("before")
        await publish(servers, "ai.requests", requests(before, 1))
        await answers(consumer, before, 1)
        await say(ModeChange(target=target, mode=Mode.PAUSED))
        await lane_state(settings, target, lambda state: state.mode is Mode.PAUSED)
        calls, during = len(simulator.calls("openai")), unique("during")
        await publish(servers, "ai.requests", requests(during, 5))
        await lane_state(settings, target, lambda state: state.waiting == 5)
        assert len(simulator.calls("openai")) == calls, "a paused lane calls nobody"
        await say(LimitChange(target=target, rpm=77))
        await lane_state(settings, target, lambda state: state.rpm.limit == 77)
        await say(ModeChange(target=target, mode=Mode.OPEN))
        assert len(await answers(consumer, during, 5)) == 5


@pytest.mark.parametrize("minute", [10.0, pytest.param(MINUTE, marks=pytest.mark.prove)])
async def test_retry_after_is_kept_by_all_calls_of_a_lane(
    stack: DevStack, settings: Settings, tmp_path: Path, workers: list[Child], minute: float
) -> None:
    """The limit is believed to be four times what it is, and the provider's quota is small: it has to refuse."""
    # All are on their way before the first answer tells the limit, and none is when the first refusal is heard.
    simulator = Simulator.start(tmp_path, "--latency-ms=2000", "--rpm=30", name="small", minute=minute)
    try:
        file = fresh_lane(tmp_path, "openai", rpm=600)
        told = simulator.environment() | {"AI_SETTINGS_FILE": str(file), "AI_FALLBACK_PROVIDERS": ""}
        start(stack, workers, 1, told | {"AI_PRIMARY_PROVIDER": "openai", "AI_MINUTE_SECONDS": str(minute)})
        servers, prefix = settings.kafka_bootstrap_servers, unique("many")
        # More than the provider takes in a minute, and no more than are called here: later tests find nothing left.
        async with reading(servers, RESPONSES) as consumer:
            await publish(servers, "ai.requests", requests(prefix, 41))
            await answers(consumer, prefix, 41, within=180)
        calls = simulator.calls("openai")
        assert len(calls) > 40
        assert 429 in {call.status for call in calls}
        assert ignored_waits(calls) == []
        assert simulator.verdict()["errors"] == 0
    finally:
        simulator.stop()
        await asyncio.to_thread(workers[0].stop)

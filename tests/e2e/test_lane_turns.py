"""Lanes on real processes: who is called when, when a lane moves, is slow, comes back, or is flooded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.devstack.child import Child
from app.devstack.ports import choose
from app.devstack.stack import DevStack
from app.settings import Settings
from schemas.response import Status
from streams.dispatch.breaker import LONGEST_GAP
from streams.topology import RESPONSES
from tests.support.clock.waiting import eventually
from tests.support.provider.markers import Marks, repeating
from tests.support.provider.simulator import MINUTE, Simulator, busiest_minute
from tests.support.reader.lanes import BUSY_MACHINE, answers, hearing_lanes, lane_said, lane_state, requests
from tests.support.reader.topics import publish, reading
from tests.support.stack.workers import fresh_lane, start
from tests.support.values.names import unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

RPM = 120
#: A minute for lanes whose limits and circuits a test waits for, in seconds.
SHORT = 20.0
FLOOD = 2_000


@pytest.mark.parametrize(
    ("minute", "rpm", "many", "told_by_provider"),
    # Of so small a limit half may be called at once, and its provider tells nothing: a successor that forgets what was
    # spent passes it by far.
    # More than a minute's worth, and no more than is called: later tests find nothing left.
    [
        pytest.param(SHORT, 10, 18, (), id="a short minute"),
        pytest.param(MINUTE, RPM, 2 * RPM, [f"--rpm={RPM + RPM // 20}"], marks=pytest.mark.prove, id="a real minute"),
    ],
)
async def test_a_limit_holds_when_a_new_worker_takes_the_lane_over(
    stack: DevStack,
    settings: Settings,
    workers: list[Child],
    tmp_path: Path,
    minute: float,
    rpm: int,
    many: int,
    told_by_provider: Sequence[str],
) -> None:
    simulator = Simulator.start(tmp_path, "--latency-ms=100", *told_by_provider, minute=minute)
    file = fresh_lane(tmp_path, "openai", rpm=rpm)
    told = simulator.environment() | {"AI_SETTINGS_FILE": str(file), "AI_FALLBACK_PROVIDERS": ""}
    told |= {"AI_PRIMARY_PROVIDER": "openai", "AI_MINUTE_SECONDS": str(minute)}
    try:
        start(stack, workers, 1, told)
        # Far beyond what it takes at the lane's pace, with two changes of owner.
        prefix, deadline = unique("move"), (datetime.now(UTC) + timedelta(seconds=280)).isoformat()
        async with reading(settings.kafka_bootstrap_servers, RESPONSES) as consumer:
            asked = requests(prefix, many, deadline=deadline)
            early, late = asked[: -rpm // 2], asked[-rpm // 2 :]
            await publish(settings.kafka_bootstrap_servers, "ai.requests", early)
            await eventually(lambda: len(simulator.calls("openai")) > rpm // 2, within=60, what="the lane is at work")
            start(stack, workers, 2, told, first=2)
            # However long they took to start: some are left to the newcomers.
            await publish(settings.kafka_bootstrap_servers, "ai.requests", late)
            assert workers[0].stop(), "in an orderly way"
            found = await answers(consumer, prefix, many, within=200)
        calls = simulator.calls("openai")
        assert busiest_minute(calls, on_the_way=BUSY_MACHINE, minute=minute) <= rpm
        assert {call.status for call in calls} == {200}, "nothing was refused"
        assert simulator.verdict()["errors"] == 0
        assert {(one.status, len(one.attempts)) for one in found} == {(Status.SUCCEEDED, 1)}, "and nothing called twice"
    finally:
        simulator.stop()


@pytest.mark.prove
async def test_a_slow_provider_costs_only_its_own_requests(
    stack: DevStack, settings: Settings, workers: list[Child], tmp_path: Path
) -> None:
    slow = Simulator.start(tmp_path, "--latency-ms=12000", name="slow")
    quick = Simulator.start(tmp_path, "--latency-ms=50", name="quick")
    try:
        file = tmp_path / "lanes.toml"
        file.write_text("\n".join(fresh_lane(tmp_path, name, rpm=6_000).read_text() for name in ("claude", "openai")))
        told = quick.environment() | {"AI_CLAUDE_BASE_URL": slow.environment()["AI_CLAUDE_BASE_URL"]}
        told |= {"AI_SETTINGS_FILE": str(file), "AI_FALLBACK_PROVIDERS": "openai", "AI_MAX_IN_FLIGHT": "4"}
        start(stack, workers, 1, told)
        servers = settings.kafka_bootstrap_servers
        async with reading(servers, RESPONSES) as consumer:
            first = unique("first")
            await publish(servers, "ai.requests", requests(first, 4))
            assert {one.provider for one in await answers(consumer, first, 4)} == {"claude"}
            # Two rounds of four calls fit into it on a busy machine as well, and not a third. A fifth one that waits
            # is told so: it would take two calls' time and a quarter.
            room = timedelta(seconds=2 * 12 + BUSY_MACHINE)
            prefix, deadline = unique("both"), (datetime.now(UTC) + room).isoformat()
            await publish(servers, "ai.requests", requests(f"{prefix}-slow", 40, deadline=deadline))
            await publish(servers, "ai.requests", requests(f"{prefix}-other", 20, preferred_providers=["openai"]))
            both = await answers(consumer, prefix, 60)
            found = [one for one in both if "slow" in one.request_id]
            beside = [one for one in both if "other" in one.request_id]
        assert {one.status for one in both} == {Status.SUCCEEDED}
        by_claude = [one for one in found if one.provider == "claude"]
        passed_on = [one for one in found if one.provider == "openai"]
        assert 1 <= len(by_claude) <= 8
        assert {len(one.attempts) for one in passed_on} == {1}, "nothing was paid for at the slow one"
        first_slow = min(one.answered_at for one in by_claude)
        assert max(one.answered_at for one in beside) < first_slow, "others do not wait for the slow provider"
        assert sum(one.answered_at < first_slow for one in passed_on) >= 30, "who cannot make it goes on at once"
    finally:
        slow.stop()
        quick.stop()


@pytest.mark.parametrize("minute", [8.0, pytest.param(MINUTE, marks=pytest.mark.prove)])
async def test_a_provider_that_is_back_is_asked_once_before_all_the_others(
    stack: DevStack, settings: Settings, workers: list[Child], tmp_path: Path, minute: float
) -> None:
    port = choose(0, "")
    file = fresh_lane(tmp_path, "openai", rpm=6_000)
    base = {"AI_OPENAI_API_KEY": "test", "AI_OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1"}
    told = base | {"AI_SETTINGS_FILE": str(file), "AI_FALLBACK_PROVIDERS": "", "AI_PRIMARY_PROVIDER": "openai"}
    # Its circuit stays open for a minute.
    patient = {"AI_RETRY_ATTEMPTS": "5", "AI_RETRY_DELAY": "0.2", "AI_MINUTE_SECONDS": str(minute)}
    start(stack, workers, 1, told | patient)
    servers, prefix, lane = settings.kafka_bootstrap_servers, unique("back"), "openai:" + file.stem
    async with reading(servers, RESPONSES) as consumer:
        await publish(servers, "ai.requests", requests(prefix, 30))
        await lane_state(settings, lane, lambda state: state.circuit == "open")
        simulator = Simulator.start(tmp_path, "--latency-ms=1500", port=port)
        try:
            found = await answers(consumer, prefix, 30, within=150)
            await lane_state(settings, lane, lambda state: state.circuit == "closed")
            calls = simulator.calls("openai")
        finally:
            simulator.stop()
    answered = [one for one in found if one.status is Status.SUCCEEDED]
    assert len(calls) == len(answered) >= 25
    assert calls[0].ended_at <= calls[1].at, "one probe, and the others after its answer"


@pytest.mark.prove
async def test_requests_that_always_fail_do_not_close_their_provider_to_others(
    stack: DevStack, settings: Settings, workers: list[Child], tmp_path: Path
) -> None:
    file = fresh_lane(tmp_path, "openai", rpm=6_000)
    patient = {"AI_RETRY_ATTEMPTS": "8", "AI_RETRY_DELAY": "0.2", "AI_FALLBACK_PROVIDERS": ""}
    chosen = {"AI_PRIMARY_PROVIDER": "openai", "AI_SETTINGS_FILE": str(file), "AI_OPENAI_API_KEY": "test"}
    servers, poison, well = settings.kafka_bootstrap_servers, unique("poison"), unique("well")
    async with repeating(Marks()) as provider, reading(servers, RESPONSES) as consumer:
        start(stack, workers, 1, provider.environment() | patient | chosen)
        async with hearing_lanes(settings) as heard:
            # With no success between, and of more than one workspace, they do open the circuit.
            await publish(servers, "ai.requests", requests(poison, 8, more=" act=refuse-500"))
            await lane_said(heard, "openai:" + file.stem, lambda state: state.circuit == "open", within=60)
            await publish(servers, "ai.requests", requests(well, 30))
            answered = await answers(consumer, well, 30, within=LONGEST_GAP / 2)
            await lane_said(heard, "openai:" + file.stem, lambda state: state.circuit == "closed")
    assert {one.status for one in answered} == {Status.SUCCEEDED}
    asked = sum("act=refuse-500" in call for call in provider.heard)
    assert asked <= 8 * 8, "nobody is asked more often than it may be"


@pytest.mark.prove
async def test_a_flood_of_one_workspace_is_overtaken_by_all_others(
    stack: DevStack, settings: Settings, workers: list[Child], tmp_path: Path
) -> None:
    simulator = Simulator.start(tmp_path, "--latency-ms=50")
    file = fresh_lane(tmp_path, "openai", rpm=600)
    told = simulator.environment() | {"AI_SETTINGS_FILE": str(file), "AI_FALLBACK_PROVIDERS": ""}
    try:
        start(stack, workers, 1, told | {"AI_PRIMARY_PROVIDER": "openai"})
        servers, flood, other = settings.kafka_bootstrap_servers, unique("flood"), unique("other")
        deadline = (datetime.now(UTC) + timedelta(seconds=60)).isoformat()
        # Each of them asks for itself: identical ones would wait for one answer.
        body = {"workspace_id": "flood", "prompt": flood, "deadline": deadline, "cache": {"enabled": False}}
        many = [(b"flood", json.dumps({"request_id": f"{flood}-{n}", **body}).encode()) for n in range(FLOOD)]
        await publish(servers, "ai.requests", many)
        await lane_state(settings, "openai:" + file.stem, lambda state: state.waiting > FLOOD * 0.8, within=120)
        async with reading(servers, RESPONSES) as consumer:
            before = len(simulator.calls("openai"))
            batch = requests(f"{other}-batch", 1, priority="batch")
            urgent = requests(f"{other}-urgent", 1, priority="interactive")
            await publish(servers, "ai.requests", [*batch, *requests(other, 48), *urgent])
            served = await answers(consumer, other, 49, within=60)
            assert not [one for one in served if "batch" in one.request_id], "as long as others wait"
        calls = simulator.calls("openai")[before:]
        turns = {mark: [n for n, call in enumerate(calls) if mark in call.workspace] for mark in (other, flood)}
        # A hundred turns are ten seconds of this lane; behind the flood it would be most of two thousand.
        assert turns[other][-1] < 100
        [urgent_turn] = [n for n, call in enumerate(calls) if f"{other}-urgent" in call.workspace]
        assert urgent_turn < 50
        # Later tests find the partition empty.
        await lane_state(settings, "openai:" + file.stem, lambda state: state.waiting == 0, within=150)
    finally:
        simulator.stop()

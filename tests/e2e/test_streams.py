"""Streamed answers on real processes: in order, whole, over stops, kills and faults; and what is cancelled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer

from app.devstack.child import Child
from app.devstack.stack import DevStack
from app.settings import Settings
from schemas.cancellation import Cancellation
from schemas.chunk import Chunk
from schemas.codec import decode, encode, header
from schemas.response import Response, Status
from schemas.usage import Outcome, UsageEvent
from streams.topology import CANCELLATIONS, REPLIES, USAGE
from tests.support.clock.waiting import eventually
from tests.support.provider.simulator import MINUTE, Simulator
from tests.support.reader.lanes import lane_state, requests
from tests.support.reader.topics import consume_until, publish, reading
from tests.support.stack.workers import WIDE_LANES, fresh_lane, lane_owner, start
from tests.support.values.names import unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

STREAMS = 200
#: How many of them go to each provider, where all take part.
PARTS = {"claude": 67, "openai": 67, "perplexity": 66}


@dataclass
class Streams:
    """What arrived on the reply topic of requests with this prefix."""

    prefix: str
    chunks: dict[str, list[Chunk]] = field(default_factory=lambda: defaultdict(list))
    responses: dict[str, Response] = field(default_factory=dict)
    #: Requests whose response came before a chunk of its own attempt.
    early: set[str] = field(default_factory=set)

    async def read(self, consumer: AIOKafkaConsumer, until: Callable[[], Any], within: float = 120.0) -> None:
        await consume_until(
            consumer, lambda _: until(), only=lambda record: record.key and self._hear(record), within=within
        )

    def _hear(self, record: Any) -> bool:
        name = record.key.decode()
        if not name.startswith(self.prefix):
            return False
        if header(record.headers, "ce_type") == Chunk.ce_type.encode():
            chunk = decode(Chunk, record.value)
            self.chunks[name].append(chunk)
            if name in self.responses and chunk.attempt == len(self.responses[name].attempts):
                self.early.add(name)
        else:
            self.responses[name] = decode(Response, record.value)
        return True

    def check(self, name: str) -> None:
        """Numbered without a gap within each attempt, and all of the answer in the last one."""
        response = self.responses[name]
        by_attempt: dict[int, list[Chunk]] = defaultdict(list)
        for chunk in self.chunks[name]:
            by_attempt[chunk.attempt].append(chunk)
        for pieces in by_attempt.values():
            assert [chunk.index for chunk in pieces] == list(range(len(pieces))), name
        if response.status is Status.SUCCEEDED:
            last = by_attempt[len(response.attempts)]
            assert "".join(chunk.content for chunk in last) == response.content, name
            assert response.time_to_first_chunk is not None


@pytest.fixture
async def consumer(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    async with reading(settings.kafka_bootstrap_servers, REPLIES) as running:
        yield running


def streamed(prefix: str, count: int, **fields: Any) -> list[tuple[bytes | None, bytes | None]]:
    """Requests whose answers are their prompts: some dozens of pieces each."""
    told = {"stream": True, "reply_to": REPLIES, "max_tokens": 500, **fields}
    return requests(prefix, count, more=" to and fro" * 10, **told)


def told(simulator: Simulator, tmp_path: Path, **more: str) -> dict[str, str]:
    file = fresh_lane(tmp_path, "openai", rpm=100_000)
    alone = {"AI_PRIMARY_PROVIDER": "openai", "AI_FALLBACK_PROVIDERS": "", "AI_MAX_IN_FLIGHT": "256"}
    return simulator.environment() | alone | {"AI_SETTINGS_FILE": str(file)} | more


async def test_many_streams_arrive_in_order_and_whole_although_a_worker_stops(
    stack: DevStack, settings: Settings, workers: list[Child], tmp_path: Path, consumer: AIOKafkaConsumer
) -> None:
    simulator = Simulator.start(tmp_path, "--response-style=echo", "--stream-chunk-delay-ms=30")
    try:
        start(stack, workers, 2, told(simulator, tmp_path))
        seen = Streams(unique("stop"))
        await publish(settings.kafka_bootstrap_servers, "ai.requests", streamed(seen.prefix, STREAMS))
        await seen.read(consumer, lambda: len(seen.chunks) > STREAMS // 2)
        lane_owner(workers).ask_to_stop()
        await seen.read(consumer, lambda: len(seen.responses) >= STREAMS)
        for name, response in seen.responses.items():
            seen.check(name)
            assert response.status is Status.SUCCEEDED
            assert len(response.attempts) == 1, "an orderly stop repeats nothing"
        assert not seen.early
        assert len(simulator.calls()) == STREAMS
    finally:
        simulator.stop()


@pytest.mark.prove
async def test_a_kill_leaves_complete_repeats_or_clear_failures_and_never_half_an_answer(
    stack: DevStack, settings: Settings, workers: list[Child], tmp_path: Path, consumer: AIOKafkaConsumer
) -> None:
    """All three providers stream at once; the worker that does most of it is killed, and the other one goes on.

    Each stream takes some seconds: enough to be killed in the middle, however late it is seen that it goes on.
    """
    simulator = Simulator.start(tmp_path, "--response-style=echo", "--stream-chunk-delay-ms=100")
    try:
        start(stack, workers, 2, simulator.environment() | WIDE_LANES | {"AI_MAX_IN_FLIGHT": "256"})
        seen = Streams(unique("kill"))
        asked = [
            record
            for provider, count in PARTS.items()
            for record in streamed(f"{seen.prefix}-{provider}", count, preferred_providers=[provider])
        ]
        await publish(settings.kafka_bootstrap_servers, "ai.requests", asked)
        await seen.read(consumer, lambda: len(seen.chunks) > STREAMS // 2)
        lane_owner(workers).kill()
        await seen.read(consumer, lambda: len(seen.responses) >= STREAMS)
        for name, response in seen.responses.items():
            seen.check(name)
            assert (response.status is Status.SUCCEEDED) is (response.error is None)
        assert not seen.early
        repeated = [one for one in seen.responses.values() if len(one.attempts) > 1]
        assert repeated
        assert {one.attempts[0].outcome for one in repeated} == {Outcome.IN_DOUBT}
        assert {one.provider for one in seen.responses.values()} == set(PARTS)
    finally:
        simulator.stop()


@pytest.mark.parametrize("minute", [5.0, pytest.param(MINUTE, marks=pytest.mark.prove)])
async def test_streams_that_the_provider_breaks_are_repeated_and_the_provider_has_nothing_to_complain_of(
    stack: DevStack, settings: Settings, workers: list[Child], tmp_path: Path, consumer: AIOKafkaConsumer, minute: float
) -> None:
    faults = [f"--stream-fault={kind}=0.05" for kind in ("disconnect", "truncate", "malformed")]
    faults += ["--stream-fault=stall=0.02", "--stream-stall-seconds=8"]
    faults += ["--error-rate=500=0.02", "--error-rate=529=0.02"]
    simulator = Simulator.start(tmp_path, "--response-style=echo", "--latency-ms=20", *faults)
    try:
        patient = {
            "AI_OPENAI_TIMEOUT": "4",
            "AI_RETRY_ATTEMPTS": "8",
            "AI_RETRY_DELAY": "0.5",
            "AI_MINUTE_SECONDS": str(minute),
        }
        start(stack, workers, 1, told(simulator, tmp_path, **patient))
        seen = Streams(unique("faults"))
        await publish(settings.kafka_bootstrap_servers, "ai.requests", streamed(seen.prefix, STREAMS))
        await seen.read(consumer, lambda: len(seen.responses) >= STREAMS, within=200)
        for name in seen.responses:
            seen.check(name)
        assert {one.status for one in seen.responses.values()} == {Status.SUCCEEDED}
        codes = {
            attempt.error.code
            for one in seen.responses.values()
            for attempt in one.attempts
            if attempt.error is not None
        }
        assert codes >= {"truncated", "malformed_answer"}
        verdict = simulator.verdict()
        assert verdict["errors"] == 0, verdict["findings"][:3]
    finally:
        simulator.stop()


async def test_a_request_that_waits_is_dropped_when_it_is_cancelled(
    stack: DevStack, settings: Settings, workers: list[Child], tmp_path: Path, consumer: AIOKafkaConsumer
) -> None:
    simulator = Simulator.start(tmp_path, "--latency-ms=20")
    try:
        file = fresh_lane(tmp_path, "openai", rpm=6)
        start(stack, workers, 1, told(simulator, tmp_path, AI_SETTINGS_FILE=str(file)))
        seen = Streams(unique("wait"))
        await publish(settings.kafka_bootstrap_servers, "ai.requests", streamed(seen.prefix, 30, stream=False))
        state = await lane_state(settings, "openai:" + file.stem, lambda state: state.waiting >= 20)
        await seen.read(consumer, lambda: len(seen.responses) >= 30 - state.waiting)
        waiting = [n for n in range(30) if f"{seen.prefix}-{n}" not in seen.responses]
        await publish(settings.kafka_bootstrap_servers, CANCELLATIONS, cancellations(seen.prefix, waiting[1:]))
        await seen.read(consumer, lambda: len(seen.responses) >= 29, within=20)
        dropped = [seen.responses[f"{seen.prefix}-{n}"] for n in waiting[1:]]
        assert {one.error.code if one.error else None for one in dropped} <= {"cancelled", None}
        cancelled = [one for one in dropped if one.error is not None]
        assert len(cancelled) >= len(dropped) - 2, "one or two may have had their turn meanwhile"
        assert all(one.attempts == () and one.status is Status.FAILED for one in cancelled)
        assert len(simulator.calls()) <= 30 - len(cancelled), "nobody was called for them"
        # The one that is left would be called in the next test.
        await publish(settings.kafka_bootstrap_servers, CANCELLATIONS, cancellations(seen.prefix, waiting[:1]))
        await seen.read(consumer, lambda: len(seen.responses) >= 30, within=20)
    finally:
        simulator.stop()


async def test_a_running_stream_ends_when_it_is_cancelled_and_what_it_used_is_counted(
    stack: DevStack, settings: Settings, workers: list[Child], tmp_path: Path, consumer: AIOKafkaConsumer
) -> None:
    simulator = Simulator.start(tmp_path, "--response-style=echo", "--stream-chunk-delay-ms=300")
    try:
        start(stack, workers, 1, told(simulator, tmp_path))
        servers, seen = settings.kafka_bootstrap_servers, Streams(unique("cut"))
        async with reading(servers, USAGE) as usage:
            await publish(servers, "ai.requests", streamed(seen.prefix, 1))
            [name] = [f"{seen.prefix}-0"]
            await seen.read(consumer, lambda: len(seen.chunks[name]) >= 3)
            await publish(servers, CANCELLATIONS, cancellations(seen.prefix, [0]))
            await seen.read(consumer, lambda: seen.responses, within=10)
            [record] = await consume_until(usage, bool, only=lambda record: name.encode() in record.value)
        response, used = seen.responses[name], decode(UsageEvent, record.value)
        assert response.error is not None
        assert response.error.code == "cancelled"
        assert (used.outcome, used.error_code, used.cost_source) == (Outcome.IN_DOUBT, "cancelled", "estimated")
        assert used.tokens.prompt_tokens > 0
        assert used.tokens.completion_tokens > 0
        assert used.cost == response.usage.cost > 0
        # A stream is in the simulator's journal when it has ended, and this one would go on for half a minute.
        await eventually(simulator.calls, within=5, what="the provider's side of the stream is closed")
    finally:
        simulator.stop()


def cancellations(prefix: str, numbers: list[int]) -> list[tuple[bytes | None, bytes | None]]:
    events = [Cancellation(request_id=f"{prefix}-{number}", workspace_id=f"w{number % 10}") for number in numbers]
    return [(event.workspace_id.encode(), encode(event)) for event in events]


async def test_a_request_that_is_cancelled_before_it_arrives_is_never_called(
    stack: DevStack, settings: Settings, workers: list[Child], tmp_path: Path, consumer: AIOKafkaConsumer
) -> None:
    simulator = Simulator.start(tmp_path)
    try:
        start(stack, workers, 1, told(simulator, tmp_path))
        servers, seen = settings.kafka_bootstrap_servers, Streams(unique("never"))
        await publish(servers, CANCELLATIONS, cancellations(seen.prefix, [0]))
        await publish(servers, "ai.requests", streamed(seen.prefix, 2))
        await seen.read(consumer, lambda: len(seen.responses) == 2)
        answers = [seen.responses[f"{seen.prefix}-{n}"] for n in range(2)]
        assert [one.status for one in answers] == [Status.FAILED, Status.SUCCEEDED]
        assert len(simulator.calls()) == 1
    finally:
        simulator.stop()

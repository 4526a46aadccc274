"""Reading batch by batch: committed after it is handled, never before, and a rebalance waits for the batch at hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, KafkaConnectionError

from streams.account.batch import BatchPolicy
from streams.runtime import batches
from streams.runtime.batches import BatchReader, incoming_of
from streams.runtime.errors import AbandonedError, StagePausedError
from streams.runtime.transport import DrainSignal
from tests.support.clock.waiting import eventually

HERE = TopicPartition("ai.usage", 3)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "RETRY", 0.001)


class Log:
    """A partition, and a consumer of it as aiokafka has it."""

    def __init__(self) -> None:
        self.length = 0
        self.position = 0
        self.commits: list[dict[TopicPartition, int]] = []
        self.commit_fails: list[Exception] = []
        self.stopped = False
        #: As long as it is set, a look takes until the partitions have changed hands.
        self.reassigning: asyncio.Event | None = None
        #: A look has come upon that.
        self.held = False

    @property
    def _subscription(self) -> Any:
        """As aiokafka keeps how far it has read."""
        state = SimpleNamespace(has_valid_position=True, position=self.position)
        assignment = SimpleNamespace(tps={HERE}, state_value=lambda _: state)
        return SimpleNamespace(subscription=SimpleNamespace(assignment=assignment))

    async def start(self) -> None: ...

    async def stop(self) -> None:
        self.stopped = True

    def subscribe(self, topics: list[str], listener: Any) -> None:
        self.topics, self.listener = topics, listener

    def assignment(self) -> set[TopicPartition]:
        return {HERE}

    def seek(self, partition: TopicPartition, offset: int) -> None:
        assert partition == HERE
        self.position = offset

    async def getmany(self, *, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        if self.reassigning is not None:
            self.held = True
            await self.reassigning.wait()
        end = min(self.length, self.position + max_records)
        if end == self.position:
            await asyncio.sleep(timeout_ms / 1000)
            return {}
        found = [SimpleNamespace(topic=HERE.topic, offset=offset, value=b"x") for offset in range(self.position, end)]
        self.position = end
        return {HERE: found}

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        if self.commit_fails:
            raise self.commit_fails.pop(0)
        self.commits.append(dict(offsets))

    @property
    def committed(self) -> int:
        return self.commits[-1][HERE] if self.commits else 0


@dataclass
class Handler:
    topic: str = HERE.topic
    taken: list[list[int]] = field(default_factory=list)
    checkpoints: int = 0
    fails: list[Exception] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    log: Log = field(default_factory=Log)
    committed_over: bool = False
    is_held_up: bool = False

    def __post_init__(self) -> None:
        self.gate.set()

    async def take(self, records: Sequence[Any]) -> None:
        await self.gate.wait()
        if self.fails:
            raise self.fails.pop(0)
        self.taken.append([record.offset for record in records])
        self.committed_over |= self.log.committed > records[0].offset

    async def checkpoint(self) -> None:
        self.checkpoints += 1

    def offsets(self) -> list[int]:
        return [offset for batch in self.taken for offset in batch]


@asynccontextmanager
async def reading(handler: Handler, rows: int = 10, seconds: float = 0.01) -> AsyncIterator[BatchReader]:
    log = handler.log
    reader = BatchReader(lambda: log, [handler], BatchPolicy(rows=rows, seconds=seconds), DrainSignal())
    await reader.start()
    try:
        yield reader
    finally:
        handler.gate.set()
        await reader.stop()
        assert log.stopped


async def until(condition: Any) -> None:
    await eventually(condition, every=0.001)


async def test_a_batch_is_committed_after_it_was_handled_and_told() -> None:
    handler = Handler()
    handler.gate.clear()
    async with reading(handler):
        handler.log.length = 3
        await until(lambda: handler.log.position == 3)
        await asyncio.sleep(0.02)
        assert (handler.log.commits, handler.checkpoints) == ([], 0)
        handler.gate.set()
        await until(lambda: handler.log.committed == 3)
    assert (handler.offsets(), handler.checkpoints) == ([0, 1, 2], 1)


async def test_a_backlog_comes_in_batches_of_the_capacity_and_shares_checkpoints() -> None:
    handler = Handler()
    handler.log.length = 95
    async with reading(handler, rows=10, seconds=10):
        await until(lambda: len(handler.taken) >= 4)
        handler.log.length = 95
    assert [len(batch) for batch in handler.taken][:4] == [20, 20, 20, 20]
    assert handler.offsets() == list(range(95))
    assert handler.log.committed == 95
    assert handler.checkpoints <= len(handler.taken)


async def test_a_batch_that_failed_is_read_again_and_not_committed_over() -> None:
    handler = Handler(fails=[RuntimeError("x"), KafkaConnectionError()])
    handler.log.length = 5
    async with reading(handler):
        await until(lambda: handler.log.committed == 5)
    assert handler.offsets() == list(range(5))
    assert not handler.committed_over


async def test_a_commit_that_failed_is_made_up_for() -> None:
    handler = Handler()
    handler.log.commit_fails = [CommitFailedError(), KafkaConnectionError()]
    handler.log.length = 5
    async with reading(handler):
        await until(lambda: handler.log.committed == 5)
    assert set(handler.offsets()) == set(range(5))


async def test_a_rebalance_waits_for_the_batch_at_hand_and_commits_it() -> None:
    handler = Handler()
    handler.gate.clear()
    async with reading(handler) as reader:
        handler.log.length = 4
        await until(lambda: handler.log.position == 4)
        revoking = asyncio.create_task(reader.on_partitions_revoked([HERE]))
        await asyncio.sleep(0.01)
        assert not revoking.done()
        handler.gate.set()
        await revoking
        assert handler.log.committed == 4


async def test_what_a_drain_has_made_a_batch_give_up_is_not_acknowledged_by_the_looks_after_it() -> None:
    handler = Handler(fails=[AbandonedError()])
    async with reading(handler):
        handler.log.length = 4
        await until(lambda: not handler.fails)
        await asyncio.sleep(0.05)
    assert (handler.offsets(), handler.log.commits) == ([], [])


async def test_what_is_passed_over_without_a_record_is_acknowledged() -> None:
    handler = Handler()
    async with reading(handler):
        handler.log.length = 2
        await until(lambda: handler.log.committed == 2)
        # An aborted transaction, and its marker.
        handler.log.length = handler.log.position = 5
        await until(lambda: handler.log.committed == 5)
    assert handler.offsets() == [0, 1]


async def test_records_that_fail_one_after_the_other_pause_the_sinks_until_they_do_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Handler(fails=[StagePausedError("no such column")] * 3)
    async with reading(handler) as reader:
        monkeypatch.setattr(reader, "_pause", 0.02)
        handler.log.length = 3
        await until(lambda: reader.paused == "no such column")
        assert handler.log.commits == []
        await until(lambda: handler.log.committed == 3)
        assert reader.paused is None
    assert handler.offsets() == [0, 1, 2]
    assert caplog.text.count("stage_paused: the sinks: no such column") == 1


async def test_a_rebalance_that_begins_during_a_look_does_not_wait_for_itself() -> None:
    handler = Handler()
    async with reading(handler, seconds=30) as reader:
        handler.log.length = 3
        await until(lambda: handler.log.position == 3)
        # As aiokafka has it: from here on nobody may look until the partitions are given up.
        handler.log.reassigning = asyncio.Event()
        await until(lambda: handler.log.held)
        await asyncio.wait_for(reader.on_partitions_revoked([HERE]), 20)
        assert (handler.offsets(), handler.log.committed) == ([0, 1, 2], 3)
        handler.log.reassigning.set()
        handler.log.length = 5
        handler.log.reassigning = None
        await until(lambda: handler.log.position == 5)
    assert handler.offsets() == [0, 1, 2, 3, 4]


async def test_a_batch_that_was_given_up_for_a_rebalance_is_not_committed() -> None:
    handler = Handler(fails=[AbandonedError()])
    handler.gate.clear()
    async with reading(handler) as reader:
        handler.log.length = 4
        await until(lambda: handler.log.position == 4)
        revoking = asyncio.create_task(reader.on_partitions_revoked([HERE]))
        await asyncio.sleep(0.01)
        handler.gate.set()
        await revoking
        assert handler.log.commits == []


async def test_a_stop_finishes_and_commits_the_batch_at_hand() -> None:
    handler = Handler()
    async with reading(handler, seconds=30):
        handler.log.length = 4
        await until(lambda: handler.log.position == 4)
        # Thirty seconds for more rows are not waited for.
    assert (handler.offsets(), handler.log.committed) == ([0, 1, 2, 3], 4)


async def test_a_stop_in_the_middle_of_a_backlog_acknowledges_all_that_is_done() -> None:
    handler = Handler()
    async with reading(handler) as reader:
        # As if the last checkpoint had been dear: the next one is far away.
        reader._checkpoint_due = float("inf")
        handler.log.length = 10**6
        await until(lambda: len(handler.taken) > 5)
        assert handler.checkpoints == 0
    assert handler.log.committed == len(handler.offsets())
    assert handler.checkpoints == 1


async def test_a_batch_ends_before_its_bytes_are_too_many() -> None:
    handler = Handler()
    handler.log.length = 5_000
    policy = BatchPolicy(rows=5_000, seconds=0.01, size=1_000)
    reader = BatchReader(lambda: handler.log, [handler], policy, DrainSignal())
    await reader.start()
    await until(lambda: handler.log.committed == 5_000)
    await reader.stop()
    assert max(len(batch) for batch in handler.taken) == batches.LOOK


def test_a_record_is_seen_as_admission_would_see_it() -> None:
    place = {"topic": "t", "partition": 1, "offset": 7, "timestamp": 1_767_225_600_123}
    found = incoming_of(SimpleNamespace(**place, key=None, value=b"v", headers=(("h", b"1"),)))
    assert (found.topic, found.partition, found.offset, found.timestamp) == ("t", 1, 7, 1_767_225_600_123)
    assert (found.key, found.value, found.headers) == (None, b"v", (("h", b"1"),))


async def test_the_reading_stands_still_where_records_wait_and_nothing_that_is_away_is_waited_for() -> None:
    handler = Handler()
    handler.gate.clear()
    async with reading(handler) as reader:
        handler.log.length = 3
        await until(lambda: handler.log.position == 3)
        before = reader.reading({HERE: 9})
        assert before.waits
        assert reader.reading({HERE: 9}) == before, "no step"
        handler.is_held_up = True
        assert not reader.reading({HERE: 9}).waits, "the ledger is away"
        handler.is_held_up = False
        assert not reader.reading({HERE: 3}).waits, "nothing is left to read"
        handler.gate.set()
        await until(lambda: reader.reading({HERE: 9}).steps > before.steps)


async def test_while_partitions_change_hands_nothing_is_acknowledged_that_was_given_up_before() -> None:
    handler = Handler(fails=[AbandonedError()])
    async with reading(handler) as reader:
        handler.log.length = 4
        await until(lambda: not handler.fails)
        handler.log.reassigning = asyncio.Event()
        await reader.on_partitions_revoked([HERE])
        await until(lambda: handler.log.held)
        await asyncio.sleep(0.3)
        assert handler.log.commits == []
        handler.log.position = 0
        handler.log.reassigning.set()
        await until(lambda: handler.log.committed == 4)
    assert handler.offsets() == [0, 1, 2, 3]


class Telling:
    """Tells what was deleted before it was read: the first time in vain."""

    def __init__(self) -> None:
        self.tries = 0

    async def tell_all(self, _: Any) -> None:
        self.tries += 1
        if self.tries == 1:
            raise KafkaConnectionError


async def test_nothing_is_committed_while_a_gap_before_it_is_not_told() -> None:
    handler, telling = Handler(), Telling()
    handler.log.length = 3
    policy = BatchPolicy(rows=10, seconds=0.01)
    reader = BatchReader(lambda: handler.log, [handler], policy, DrainSignal(), gone=cast(Any, telling))
    await reader.start()
    await until(lambda: handler.log.committed == 3)
    await reader.stop()
    assert telling.tries >= 2
    assert handler.offsets() == [0, 1, 2], "what was read when telling failed is read again, and handled once"


async def test_a_new_group_commits_where_it_begins_before_it_has_read_anything() -> None:
    handler = Handler()
    async with reading(handler):
        await until(lambda: handler.log.commits)
    assert handler.log.commits == [{HERE: 0}]

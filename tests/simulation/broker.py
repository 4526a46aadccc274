"""A Kafka cluster of one broker: logs, commits, a group, and the ways in which it refuses or keeps silent.

The network lies between it and everybody: each request and each answer takes a while that the dice say. What was sent
arrives also when its sender has died meanwhile.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple, cast
from zlib import crc32

import faust.types
from aiokafka.errors import KafkaConnectionError, KafkaTimeoutError, ProducerFenced, TopicAuthorizationFailedError

from streams.records import Record
from streams.runtime.errors import AbandonedError
from streams.runtime.lives import Life
from streams.runtime.outbox import DELIVERY_TIMEOUT_MS
from streams.runtime.tables import OWNER_KEY
from tests.simulation.loop import Process, VirtualLoop

#: Seconds, as in the product's own settings.
SESSION = 10.0
DELIVERY = DELIVERY_TIMEOUT_MS / 1000
REBALANCE = 60.0
#: Seconds between tries of a client that was refused.
BACKOFF = 0.1
#: What a request or an answer takes on its way, in seconds.
QUICK, SLOW = (0.0005, 0.004), (0.01, 0.3)
#: Offsets are in milliseconds since 1970 from here on.
START = 1_800_000_000.0


@cache
def _hash_of(topic: str) -> int:
    return crc32(topic.encode()) * 31


class TP(faust.types.TP):
    """A partition. Its hash is the same in each run, and with it the order of sets."""

    __slots__ = ()

    def __hash__(self) -> int:
        return _hash_of(self.topic) + self.partition


@dataclass(frozen=True)
class Logged:
    """A record in a log. One without a topic is a marker of somebody's transaction, which nobody is given."""

    topic: str
    partition: int
    offset: int
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp: int = 0

    @property
    def is_marker(self) -> bool:
        return not self.topic


@dataclass(eq=False)
class Member:
    """One of the group, in the group's books."""

    name: str
    process: Process
    heard_at: float
    #: Set while the group waits for it to join again.
    joining: asyncio.Future[Joined] | None = None


class Joined(NamedTuple):
    """What a member is told: the generation, its partitions, and those of which it keeps a second copy."""

    generation: int
    own: list[int]
    standby: list[int]


class FencedError(Exception):
    """The group does not know the member, or not in this generation."""


class Broker:
    """`partitions` is the number of partitions of every topic."""

    def __init__(self, loop: VirtualLoop, dice: random.Random, partitions: int) -> None:
        self.loop = loop
        self.dice = dice
        self.partitions = partitions
        self.logs: defaultdict[TP, list[Logged]] = defaultdict(list)
        self.committed: dict[TP, int] = {}
        self.group = Group(self)
        self.is_away = False
        #: It has got the requests and answers none of them: what waits is done when it goes on.
        self.is_still = False
        self._waiting: deque[Callable[[], None]] = deque()
        self._cut: dict[Process, float] = {}
        #: Whether the leader of a partition compares producers' epochs. All that Spillway is made for do.
        self.compares_epochs = True
        #: The epochs that were given out under each name, and those that each partition has seen of it.
        self._given: Counter[str] = Counter()
        self._seen: Counter[tuple[TP, str]] = Counter()
        #: Where each batch lies, by the producer's own number for it.
        self._batches: dict[object, list[int]] = {}
        #: Topics that take no record at the moment, and how they say so.
        self.closed: dict[str, Callable[[], Exception]] = {}
        self._changed: list[asyncio.Future[None]] = []
        #: All that have ever been workers.
        self.processes: list[Process] = []

    # What happens to it --------------------------------------------------------------------------------------------

    def go_away(self) -> None:
        self.is_away = True

    def stand_still(self) -> None:
        self.is_still = True

    def come_back(self) -> None:
        """The group's clocks have stood as long as it has."""
        self.is_away = self.is_still = False
        self.group.hear_all()
        waiting, self._waiting = self._waiting, deque()
        for do in waiting:
            do()
        self._tell()

    def mark(self, topic: str, partition: int) -> None:
        """Somebody ends a transaction there."""
        log = self.logs[TP(topic, partition)]
        log.append(Logged("", partition, len(log)))
        self._tell()

    # Requests ------------------------------------------------------------------------------------------------------

    async def ask(self, process: Process, do: Callable[[], Any]) -> Any:
        """Let something be done at the broker; raises what it raises, or that nobody answers."""
        answer: asyncio.Future[Any] = self.loop.create_future()

        def arrive() -> None:
            if self.is_away:
                return self._answer(answer, KafkaConnectionError(), process)
            if self.is_still:
                return self._waiting.append(arrive)
            try:
                result = do()
            except Exception as error:  # noqa: BLE001 - it is the answer
                result = error
            # Its answer may be lost on the way, or the broker with it.
            lost = self.dice.random() < 0.01
            return self._answer(answer, KafkaConnectionError() if lost else result, process)

        if not process.is_alive:
            return await answer
        self.loop.outside_at(self._arrival(process), arrive)
        return await answer

    def cut_off(self, process: Process, until: float) -> None:
        """What a process sends, and what is sent to it, arrives after this moment, in order."""
        self._cut[process] = until

    def _arrival(self, process: Process) -> float:
        """When something arrives that is sent now, to a process or from it."""
        return max(self.loop.time(), self._cut.get(process, 0.0)) + self._latency()

    def _answer(self, answer: asyncio.Future[Any], result: Any, process: Process) -> None:
        def say() -> None:
            if answer.done():
                return
            if isinstance(result, asyncio.Future):
                result.add_done_callback(lambda done: None if answer.done() else answer.set_result(done.result()))
            elif isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)

        self.loop.outside_at(self._arrival(process), say)

    def _latency(self) -> float:
        return self.dice.uniform(*(SLOW if self.dice.random() < 0.05 else QUICK))

    # Logs ----------------------------------------------------------------------------------------------------------

    def give_epoch(self, name: str) -> int:
        """A new epoch for whoever asks under a name."""
        self._given[name] += 1
        return self._given[name]

    def append_batch(self, records: list[Record], number: object, stamp: tuple[str, int] | None) -> list[int]:
        """A producer's batch, which is there once however often it is sent. `stamp` is a name and an epoch."""
        record = records[0]
        assert record.partition is not None
        place = TP(record.topic, record.partition)
        if stamp is not None and self.compares_epochs and record.topic not in self.closed:
            name, epoch = stamp
            if epoch < self._seen[place, name]:
                raise ProducerFenced
            self._seen[place, name] = epoch
        if number not in self._batches:
            self._batches[number] = self.append(records)
        return self._batches[number]

    def append(self, records: Iterable[Record]) -> list[int]:
        """All to one partition. Returns their offsets; raises what the topic is closed with."""
        offsets = []
        for record in records:
            if (refusal := self.closed.get(record.topic)) is not None:
                raise refusal()
            assert record.partition is not None
            log = self.logs[TP(record.topic, record.partition)]
            offsets.append(len(log))
            now = round((START + self.loop.time()) * 1000)
            log.append(Logged(record.topic, record.partition, len(log), record.key, record.value, record.headers, now))
        self._tell()
        return offsets

    def records(self, topic: str) -> list[Logged]:
        """All records of a topic, partition by partition."""
        found = [log for place, log in sorted(self.logs.items()) if place.topic == topic]
        return [record for log in found for record in log if not record.is_marker]

    def rows(self, changelog: str, partition: int) -> dict[bytes, bytes]:
        """A table made anew from its changelog."""
        rows: dict[bytes, bytes] = {}
        for record in self.logs[TP(changelog, partition)]:
            assert record.key is not None
            if record.key == OWNER_KEY:
                continue
            if record.value is None:
                rows.pop(record.key, None)
            else:
                rows[record.key] = record.value
        return rows

    async def something(self, seconds: float) -> None:
        """Wait until something is appended, for at most so many seconds."""
        news: asyncio.Future[None] = self.loop.create_future()
        self._changed.append(news)
        timer = self.loop.call_later(seconds, lambda: None if news.done() else news.set_result(None))
        await news
        timer.cancel()

    def _tell(self) -> None:
        changed, self._changed = self._changed, []
        for news in changed:
            if not news.done():
                news.set_result(None)


class Group:
    """The consumer group, as an eager protocol: at each change everybody gives up everything and joins again."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.members: dict[str, Member] = {}
        self.generation = 0
        self._begun_at: float | None = None
        broker.loop.outside_at(1.0, self._look)

    # What members ask for ------------------------------------------------------------------------------------------

    def join(self, name: str, process: Process) -> asyncio.Future[Joined]:
        """The result is there when all have joined."""
        loop = self._broker.loop
        member = self.members.setdefault(name, Member(name, process, loop.time()))
        member.heard_at = loop.time()
        joined = member.joining = loop.create_future()
        self._begin()
        self._end_if_complete()
        return joined

    def leave(self, name: str) -> None:
        if self.members.pop(name, None) is not None:
            self._begin()
            self._end_if_complete()

    def heartbeat(self, name: str, generation: int) -> bool:
        """Whether the group is as it was. Raises FencedError."""
        member = self.members.get(name)
        if member is None:
            raise FencedError
        member.heard_at = self._broker.loop.time()
        if generation != self.generation and self._begun_at is None:
            raise FencedError
        return self._begun_at is None

    def sync(self, name: str, generation: int) -> None:
        """The member takes up what it was given. Raises FencedError."""
        if name not in self.members or generation != self.generation:
            raise FencedError
        self.members[name].heard_at = self._broker.loop.time()

    def commit(self, name: str, generation: int, offsets: Mapping[TP, int]) -> None:
        if name not in self.members or generation != self.generation:
            raise FencedError
        self.members[name].heard_at = self._broker.loop.time()
        self._broker.committed.update(offsets)

    # What it does by itself ----------------------------------------------------------------------------------------

    def hear_all(self) -> None:
        now = self._broker.loop.time()
        for member in self.members.values():
            member.heard_at = now
        if self._begun_at is not None:
            self._begun_at = now

    def _begin(self) -> None:
        if self._begun_at is None:
            self._begun_at = self._broker.loop.time()

    def _end_if_complete(self) -> None:
        if self._begun_at is None or any(member.joining is None for member in self.members.values()):
            return
        self._begun_at = None
        self.generation += 1
        names = sorted(self.members)
        for at, name in enumerate(names):
            member = self.members[name]
            joining, member.joining = member.joining, None
            member.heard_at = self._broker.loop.time()
            if joining is not None and not joining.done():
                others = self._share(at - 1, len(names)) if len(names) > 1 else []
                joining.set_result(Joined(self.generation, self._share(at, len(names)), others))

    def _share(self, at: int, members: int) -> list[int]:
        return [partition for partition in range(self._broker.partitions) if partition % members == at % members]

    def _look(self) -> None:
        """Each second: who was not heard of for a session, and who does not come back to a rebalance."""
        loop = self._broker.loop
        if not (self._broker.is_away or self._broker.is_still):
            for name, member in list(self.members.items()):
                late = member.joining is None and loop.time() - member.heard_at > SESSION
                gone = member.joining is not None and not member.process.is_alive
                slow = (
                    self._begun_at is not None and member.joining is None and loop.time() - self._begun_at > REBALANCE
                )
                if late or gone or slow:
                    del self.members[name]
                    self._begin()
            self._end_if_complete()
        loop.outside_at(loop.time() + 1.0, self._look)


# What a process has of it --------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Identity:
    """Under which epoch an owner's rows go."""

    life: Life
    name: str
    epoch: int
    is_over: bool = False


@dataclass(eq=False)
class Sending:
    """A record on its way."""

    record: Record
    since: float
    sent: asyncio.Future[Any] = field(repr=False)
    identity: Identity | None = None


class Producer:
    """What the product's Outbox and Owners ask of `FencedProducer`: in order in each partition, each batch there once.
    Records are tried for two minutes, an owner's rows until its life ends.
    """

    def __init__(self, broker: Broker, process: Process) -> None:
        self._broker = broker
        self._process = process
        self._queues: defaultdict[TP, deque[Sending]] = defaultdict(deque)
        self._senders: dict[TP, asyncio.Task[None]] = {}
        self._identities: dict[int, Identity] = {}
        self.on_refused: Callable[[Life], None] = lambda _: None

    async def start(self) -> None: ...

    async def stop(self) -> None:
        while self._senders:
            await asyncio.wait([*self._senders.values()])

    async def take_epoch(self, name: str) -> tuple[Any, int]:
        while True:
            try:
                return name, await self._broker.ask(self._process, lambda: self._broker.give_epoch(name))
            except KafkaConnectionError:
                await asyncio.sleep(BACKOFF)

    def own(self, life: Life, name: Any, epoch: int) -> None:
        self.disown([life.partition])
        self._identities[life.partition] = Identity(life, name, epoch)

    def renew(self, life: Life, name: Any, epoch: int) -> None:
        if (identity := self._identities.get(life.partition)) is not None and identity.life == life:
            identity.name, identity.epoch = name, epoch

    def disown(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            if (identity := self._identities.pop(partition, None)) is None:
                continue
            identity.is_over = True
            for queue in self._queues.values():
                gone = [sending for sending in queue if sending.identity is identity]
                _fail(gone, AbandonedError())
                for sending in gone:
                    queue.remove(sending)

    async def send(
        self, topic: str, value: Any, key: Any, partition: int | None, _: Any, headers: Any
    ) -> asyncio.Future[Any]:
        if partition is None:
            partition = crc32(key or b"") % self._broker.partitions
        assert 0 <= partition < self._broker.partitions
        return self._take(Record(topic, key, value, tuple(headers or ()), partition), None)

    async def send_row(self, topic: str, value: Any, key: Any, life: Life, headers: Any = ()) -> asyncio.Future[Any]:
        identity = self._identities.get(life.partition)
        if identity is None or identity.life != life or identity.is_over:
            raise AbandonedError
        return self._take(Record(topic, key, value, tuple(headers), life.partition), identity)

    def _take(self, record: Record, identity: Identity | None) -> asyncio.Future[Any]:
        assert record.partition is not None
        place, loop = TP(record.topic, record.partition), self._broker.loop
        sent: asyncio.Future[Any] = loop.create_future()
        self._queues[place].append(Sending(record, loop.time(), sent, identity))
        if place not in self._senders:
            self._senders[place] = loop.create_task(self._send(place))
        return sent

    async def _send(self, place: TP) -> None:
        try:
            # Batches form while the request before them is on its way.
            await asyncio.sleep(0)
            while queue := self._queues[place]:
                batch = [queue.popleft()]
                while queue and len(batch) < 64 and queue[0].identity is batch[0].identity:
                    batch.append(queue.popleft())
                await self._send_batch(place, batch)
        finally:
            self._senders.pop(place, None)

    async def _send_batch(self, place: TP, batch: list[Sending]) -> None:
        loop, broker, identity = self._broker.loop, self._broker, batch[0].identity
        records = [sending.record for sending in batch]
        stamp = None if identity is None else (identity.name, identity.epoch)
        number = object()
        while True:
            try:
                left = None if identity is not None else max(batch[0].since + DELIVERY - loop.time(), 0.0)
                async with asyncio.timeout(left):
                    offsets = await broker.ask(self._process, lambda: broker.append_batch(records, number, stamp))
            except (TimeoutError, KafkaTimeoutError):
                # The broker may have it, or get it yet.
                return _fail(batch, KafkaTimeoutError())
            except KafkaConnectionError:
                if identity is not None and identity.is_over:
                    return _fail(batch, AbandonedError())
                if identity is None and loop.time() - batch[0].since >= DELIVERY:
                    return _fail(batch, KafkaTimeoutError())
                await asyncio.sleep(BACKOFF)
            except ProducerFenced:
                assert identity is not None
                was_over, identity.is_over = identity.is_over, True
                _fail(batch, AbandonedError())
                return None if was_over else self.on_refused(identity.life)
            except Exception as error:  # noqa: BLE001 - what the topic says
                if identity is not None:
                    # Nothing of an owner goes before what was refused.
                    batch += [sending for sending in self._queues[place] if sending.identity is identity]
                    self._queues[place] = deque(one for one in self._queues[place] if one.identity is not identity)
                return _fail(batch, error)
            else:
                for sending, offset in zip(batch, offsets, strict=True):
                    if not sending.sent.done():
                        said_at = broker.logs[place][offset].timestamp
                        place_of = SimpleNamespace(
                            topic=place.topic,
                            partition=place.partition,
                            offset=offset,
                            timestamp=said_at,
                            timestamp_type=1,
                        )
                        sending.sent.set_result(place_of)
                return None


def _fail(batch: list[Sending], error: Exception) -> None:
    for sending in batch:
        if not sending.sent.done():
            sending.sent.set_exception(type(error)())
            # Not everybody asks what became of it.
            sending.sent.exception()


def refused() -> Exception:
    return cast(Exception, TopicAuthorizationFailedError())


class Client:
    """What the product's consumer asks of aiokafka's: an assignment, positions, and records from there on."""

    def __init__(self, broker: Broker, process: Process) -> None:
        self._broker = broker
        self._process = process
        self.positions: dict[TP, int | None] = {}
        self.paused: set[TP] = set()
        # As `streams.runtime.reading.positions` looks at it.
        self._subscription = SimpleNamespace(subscription=SimpleNamespace(assignment=self))

    @property
    def tps(self) -> list[TP]:
        return sorted(self.positions)

    def state_value(self, tp: TP) -> Any:
        position = self.positions.get(TP(*tp))
        return SimpleNamespace(position=position, has_valid_position=position is not None)

    def assignment(self) -> set[TP]:
        return set(self.positions)

    def assign(self, places: Iterable[TP]) -> None:
        self.positions = dict.fromkeys(places)
        self.paused.clear()

    def pause(self, tp: Any) -> None:
        self.paused.add(TP(*tp))

    def resume(self, tp: Any) -> None:
        self.paused.discard(TP(*tp))

    def seek(self, tp: Any, offset: int) -> None:
        self.positions[TP(*tp)] = offset

    async def seek_to_beginning(self, *places: Any) -> None:
        for place in places:
            self.seek(place, 0)

    async def getmany(self, wanted: Iterable[TP], seconds: float) -> dict[TP, list[Logged]]:
        """Some of what is there, after a while."""
        broker, places = self._broker, sorted(set(wanted))
        try:
            async with asyncio.timeout(seconds):
                while not any(self._news_of(place) for place in places):
                    await broker.something(seconds)
                await broker.ask(self._process, lambda: None)
        except (TimeoutError, KafkaConnectionError):
            await asyncio.sleep(0)
            return {}
        found: dict[TP, list[Logged]] = {}
        for place in places:
            begin = self.positions.get(place)
            if begin is None or place in self.paused:
                continue
            part = broker.logs[place][begin : begin + broker.dice.choice((1, 3, 20))]
            if part:
                self.positions[place] = begin + len(part)
                found[place] = [record for record in part if not record.is_marker]
        return {place: part for place, part in found.items() if part}

    def _news_of(self, place: TP) -> bool:
        position = self.positions.get(place)
        return position is not None and place not in self.paused and len(self._broker.logs[place]) > position

    async def ask(self, do: Callable[[], Any]) -> Any:
        return await self._broker.ask(self._process, do)

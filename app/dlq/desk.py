"""Work on dead letters in Kafka: reading, sending again, removing."""

from __future__ import annotations

import heapq
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import RecordsToDelete

from app.audit.topics import partitions_of, read, reader, survey
from app.dlq.letters import Letter, Place, Wanted, letter_of, sent_again, why_not
from app.dlq.notes import Note, Notes, State
from app.kafka import KafkaUnavailableError, admin_client, cluster_of, explained
from app.settings import Settings
from app.topics import build_topology
from streams.topology import DEAD_LETTERS, MAX_DEAD_LETTER_BYTES, REDRIVES

#: Seconds that one record may take to arrive.
PATIENCE = 10.0
#: Letters that are sent together: what a crash in between can leave as begun.
TOGETHER = 100


class NoSuchLetterError(Exception):
    """There is no letter at a place. The message is one sentence."""


@dataclass
class Redriven:
    """What became of the letters that were meant: sent, and left where they are, each with the reason."""

    sent: list[Letter] = field(default_factory=list)
    left: list[tuple[Letter, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Removal:
    """Letters to be removed from the front of a partition: from `first` until before `end`."""

    partition: int
    first: int
    end: int

    @property
    def count(self) -> int:
        return max(self.end - self.first, 0)


class LetterDesk:
    """The dead letters of one deployment. Every method may raise KafkaUnavailableError."""

    def __init__(self, settings: Settings) -> None:
        self._cluster = cluster_of(settings)
        topology = build_topology(settings)
        self._readable = topology.own_names() - {DEAD_LETTERS, REDRIVES}

    # Looking -------------------------------------------------------------------------------------------------------

    async def newest(self, wanted: Wanted, most: int | None = None) -> tuple[list[Letter], Notes]:
        """The letters that are meant, the newest first and at most so many; and what was noted of them."""
        letters = (letter async for letter, _ in self._read(wanted))
        found: list[tuple[int, Place, Letter]] = []
        async for letter in letters:
            entry = (letter.buried_at, letter.place, letter)
            if most is None or len(found) < most:
                heapq.heappush(found, entry)
            elif most:
                heapq.heappushpop(found, entry)
        return [letter for _, _, letter in sorted(found, reverse=True)], await self._notes()

    async def one(self, place: Place) -> ConsumerRecord:
        """The record at a place. Raises NoSuchLetterError."""
        async with reader(self._cluster) as consumer:
            tp = await self._check(consumer, place)
            consumer.assign([tp])
            consumer.seek(tp, place.offset)
            batches = await consumer.getmany(tp, timeout_ms=int(PATIENCE * 1000), max_records=1)
            for record in batches.get(tp, ()):
                if record.offset == place.offset:
                    return record
        raise NoSuchLetterError(f"There is no dead letter at {place}.")

    async def _check(self, consumer: AIOKafkaConsumer, place: Place) -> TopicPartition:
        tp = TopicPartition(DEAD_LETTERS, place.partition)
        if tp not in await self._partitions(DEAD_LETTERS):
            raise NoSuchLetterError(f"{DEAD_LETTERS} has no partition {place.partition}.")
        first, end = (await consumer.beginning_offsets([tp]))[tp], (await consumer.end_offsets([tp]))[tp]
        if not first <= place.offset < end:
            held = f"holds {first} to {end - 1}" if first < end else "is empty"
            raise NoSuchLetterError(f"There is no dead letter at {place}: the partition {held}.")
        return tp

    async def _partitions(self, topic: str) -> list[TopicPartition]:
        async with admin_client(self._cluster) as admin:
            found = await partitions_of(admin, (topic,))
        if topic not in found:
            raise KafkaUnavailableError(self._cluster.without(topic))
        return found[topic]

    async def _records(self, topic: str, since: int = 0, *, compacted: bool = False) -> AsyncIterator[ConsumerRecord]:
        partitions, now = await self._partitions(topic), int(datetime.now(UTC).timestamp() * 1000)
        async with reader(self._cluster) as consumer:
            stretch = await survey(consumer, partitions, since, None, now)
        async for record in read(self._cluster, stretch, compacted=compacted):
            yield record

    async def _read(self, wanted: Wanted) -> AsyncIterator[tuple[Letter, ConsumerRecord]]:
        async for record in self._records(DEAD_LETTERS, wanted.since):
            letter = letter_of(record)
            if wanted.takes(letter):
                yield letter, record

    async def _notes(self) -> Notes:
        return Notes.of([record async for record in self._records(REDRIVES, compacted=True)])

    # Sending again -------------------------------------------------------------------------------------------------

    def refusal(self, letter: Letter, notes: Notes, *, again: bool) -> str | None:
        """Why a letter is not to be sent; None where it may be."""
        if reason := why_not(letter, self._readable):
            return reason
        note = notes.newest(letter)
        if note is None or again:
            return None
        sure = "" if note.state == "done" else ", and nobody knows whether it arrived"
        return f"it was sent again at {note.at}{sure}; --again sends it once more"

    async def redrive(self, letters: Sequence[Letter], *, again: bool, tell: Callable[[int], None]) -> Redriven:
        """Send letters to where they came from: the original bytes, key, headers and partition, in their order.

        `tell` hears how many are done.
        """
        run, done = str(uuid.uuid4()), Redriven()
        meant = Wanted(frozenset(letter.place for letter in letters), since=min(one.buried_at for one in letters))
        async with explained(self._cluster):
            # A letter may be larger by its headers than any other record.
            producer = self._cluster.producer(max_request_size=2 * MAX_DEAD_LETTER_BYTES)
            await producer.start()
            try:
                batch: list[tuple[Letter, ConsumerRecord]] = []
                async for pair in self._read(meant):
                    batch.append(pair)
                    if len(batch) == TOGETHER:
                        await self._send(producer, batch, run, done, again=again)
                        tell(len(done.sent))
                        batch = []
                await self._send(producer, batch, run, done, again=again)
            finally:
                await producer.stop()
        return done

    async def _send(
        self,
        producer: AIOKafkaProducer,
        batch: Sequence[tuple[Letter, ConsumerRecord]],
        run: str,
        done: Redriven,
        *,
        again: bool,
    ) -> None:
        before = await self._notes()
        refused = {letter.place: self.refusal(letter, before, again=again) for letter, _ in batch}
        done.left += [(letter, reason) for letter, _ in batch if (reason := refused[letter.place])]
        mine = [(letter, record) for letter, record in batch if refused[letter.place] is None]
        if not mine:
            return
        await _note(producer, [letter for letter, _ in mine], "begun", run)
        after = await self._notes()
        for letter, record in mine:
            if not after.has(letter, run, before):
                done.left.append((letter, "somebody else is sending it"))
                continue
            await _publish(producer, letter, record)
            done.sent.append(letter)
        sent = {letter.place for letter in done.sent}
        await _note(producer, [letter for letter, _ in mine if letter.place in sent], "done", run)

    # Removing ------------------------------------------------------------------------------------------------------

    async def up_to(self, places: Sequence[Place]) -> list[Removal]:
        """What goes if all letters up to these places go, themselves included. Raises NoSuchLetterError."""
        async with reader(self._cluster) as consumer:
            found = {}
            for place in sorted(places):
                tp = await self._check(consumer, place)
                first = (await consumer.beginning_offsets([tp]))[tp]
                found[place.partition] = Removal(place.partition, first, place.offset + 1)
        return list(found.values())

    async def all_there_is(self) -> list[Removal]:
        partitions = await self._partitions(DEAD_LETTERS)
        async with reader(self._cluster) as consumer:
            first, end = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        removals = [Removal(tp.partition, first[tp], end[tp]) for tp in partitions]
        return [removal for removal in removals if removal.count]

    async def remove(self, removals: Sequence[Removal]) -> None:
        places = {TopicPartition(DEAD_LETTERS, one.partition): RecordsToDelete(one.end) for one in removals}
        async with admin_client(self._cluster) as admin:
            await admin.delete_records(places)


async def _note(producer: AIOKafkaProducer, letters: Sequence[Letter], state: State, run: str) -> None:
    """All of it is with the broker when this returns."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    notes = [Note(letter.place, letter.buried_at, state, run, at) for letter in letters]
    for sent in [await producer.send(REDRIVES, note.value(), key=note.key(), partition=0) for note in notes]:
        await sent


async def _publish(producer: AIOKafkaProducer, letter: Letter, record: ConsumerRecord) -> None:
    origin = letter.origin
    if origin is None:
        raise ValueError("a letter without an origin cannot be sent")
    partitions = await producer.partitions_for(origin.topic)
    # Its own partition, where the topic still has it: keys alone do not say where lanes and workspaces live.
    partition = origin.partition if origin.partition in partitions else None
    headers = sent_again(letter, record)
    await producer.send_and_wait(origin.topic, record.value, key=record.key, partition=partition, headers=headers)

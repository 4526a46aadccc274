"""A dead letter sent again: its original bytes, key and headers, to the topic and partition that it came from."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from app.cli.errors import CommandError
from app.kafka import explained
from app.settings import Settings
from app.topics import build_topology
from schemas.dead_letter import DeadLetter
from streams.topology import DEAD_LETTERS, MAX_DEAD_LETTER_BYTES, MAX_RECORD_BYTES

#: Seconds in which the letter must be found.
PATIENCE = 5.0
#: Digits of an offset that Kafka can count.
LONGEST = 18


async def redrive(settings: Settings, place: str) -> str:
    """Send the letter at `partition/offset` again; it stays where it is as well. Returns what was done, in a sentence.

    Raises CommandError for a place that has no dead letter, or one that was not Spillway's; KafkaUnavailableError.
    """
    letter = await _fetch(settings.kafka_bootstrap_servers, parsed(place, settings.partitions))
    origin = letter.origin
    known = {spec.name: spec.partitions for spec in build_topology(settings).topics() if spec.cleanup == "delete"}
    # The headers are only a record's: they must not be able to have the page write just anywhere.
    if origin.topic == DEAD_LETTERS or origin.partition >= known.get(origin.topic, 0):
        raise CommandError(f"The dead letter {place} does not say which of Spillway's topics it came from.")
    servers = settings.kafka_bootstrap_servers
    with explained(servers):
        producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all", max_request_size=MAX_RECORD_BYTES)
        try:
            await producer.start()
            headers = list(letter.headers)
            sent = await producer.send_and_wait(
                origin.topic, letter.value, letter.key, origin.partition, headers=headers
            )
        finally:
            await producer.stop()
    return f"The dead letter {place} was sent again: {sent.topic}, partition {sent.partition}, offset {sent.offset}."


def parsed(place: str, partitions: int) -> tuple[TopicPartition, int]:
    """The place that a button names. Raises CommandError for what can be none."""
    partition, _, offset = place.partition("/")
    if not (partition.isascii() and partition.isdecimal() and offset.isascii() and offset.isdecimal()):
        raise CommandError("The place of a dead letter is its partition and offset, like 3/17.")
    if max(len(partition), len(offset)) > LONGEST or int(partition) >= partitions:
        raise _gone(place)
    return TopicPartition(DEAD_LETTERS, int(partition)), int(offset)


async def _fetch(servers: str, place: tuple[TopicPartition, int]) -> DeadLetter:
    with explained(servers):
        consumer = AIOKafkaConsumer(
            bootstrap_servers=servers, enable_auto_commit=False, max_partition_fetch_bytes=MAX_DEAD_LETTER_BYTES
        )
        try:
            await consumer.start()
            record = await _at(consumer, *place)
        finally:
            await consumer.stop()
    try:
        return DeadLetter.from_record(record.key, record.value, tuple(record.headers))
    except ValueError:
        raise CommandError("This record has none of the headers of a dead letter; where it was is not known.") from None


def _gone(place: str) -> CommandError:
    return CommandError(f"There is no dead letter at {place:.40} any more.")


async def _at(consumer: AIOKafkaConsumer, place: TopicPartition, offset: int) -> ConsumerRecord:
    gone = _gone(f"{place.partition}/{offset}")
    await consumer.topics()
    consumer.assign([place])
    async with asyncio.timeout(PATIENCE):
        start, end = (await consumer.beginning_offsets([place]))[place], (await consumer.end_offsets([place]))[place]
        if not start <= offset < end:
            raise gone
        consumer.seek(place, offset)
        record = await consumer.getone(place)
    if record.offset != offset:
        raise gone
    return record

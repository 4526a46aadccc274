"""Finding a response that nobody has waited for: a look back over `ai.responses`.

The rule: the responses of a workspace are in one partition, in the order in which they were given. It is read from the
record that was written `look_back` ago to its end. The topic keeps them for seven days.
"""

from __future__ import annotations

from datetime import datetime

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from app.client.connection import POLL_MS, Connection
from schemas.codec import UndecodableError, decode, header
from schemas.response import Response
from streams.topology import RESPONSES, partition_of


class Lookup:
    """One request's response on `ai.responses`."""

    def __init__(self, request_id: str, workspace_id: str) -> None:
        self._workspace = workspace_id.encode()
        self._id = f"{request_id}/response".encode()

    async def find(self, connection: Connection, since: datetime, *, wait: bool) -> Response | None:
        """The response, if it was given since then; with `wait`, as soon as it is. Ask for an end to that outside."""
        every = await connection.partitions(RESPONSES)
        place = TopicPartition(RESPONSES, partition_of(self._workspace, len(every)))
        async with connection.consumer() as consumer:
            consumer.assign([place])
            end = (await consumer.end_offsets([place]))[place]
            found = (await consumer.offsets_for_times({place: int(since.timestamp() * 1000)}))[place]
            consumer.seek(place, found.offset if found is not None else end)
            while wait or await consumer.position(place) < end:
                if (response := await self._read(consumer, place)) is not None:
                    return response
        return None

    async def _read(self, consumer: AIOKafkaConsumer, place: TopicPartition) -> Response | None:
        batches = await consumer.getmany(place, timeout_ms=POLL_MS)
        answers = (self._answer(record) for batch in batches.values() for record in batch)
        return next((answer for answer in answers if answer is not None), None)

    def _answer(self, record: ConsumerRecord) -> Response | None:
        """The record's response, if it is the one. The headers say so: the others are not read."""
        if record.key != self._workspace or header(record.headers, "ce_id") != self._id:
            return None
        try:
            return decode(Response, record.value)
        except UndecodableError:
            return None

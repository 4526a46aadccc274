"""The load of a round on its way: what was published, and what was answered so far."""

from __future__ import annotations

import asyncio
import json
import time
import zlib
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from bench.chaos_parts.mix import Act, Asked, Cancel, Hostile, Mix, Publish
from bench.chaos_parts.names import ALERTING, PARTITIONS, REPLIES, TIGHT
from bench.chaos_parts.stack import Stack
from tests.support.reader.topics import reading

#: Seconds between two looks at what is due, and those that the last records have to be acknowledged.
STEP, FLUSHED_WITHIN = 0.02, 90.0


@dataclass(frozen=True)
class Sent:
    """A hostile record, and where the broker has put it."""

    label: str
    partition: int
    offset: int


class Load:
    """Publishes a mix at a rate (requests a second). `foreign` is the number of the next requests whose partition is
    chosen by another client's partitioner.
    """

    def __init__(self, stack: Stack, mix: Mix, rate: float) -> None:
        self._stack, self._mix, self._rate = stack, mix, rate
        self.asked: dict[str, Asked] = {}
        self.answered: set[str] = set()
        self.hostile: list[Sent] = []
        self.foreign = 0
        self._pending: set[asyncio.Task[None]] = set()
        self._producer: AIOKafkaProducer | None = None
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Budgets first, and a topic for streams."""
        servers = self._stack.servers
        admin = AIOKafkaAdminClient(bootstrap_servers=servers)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(REPLIES, PARTITIONS, 1)])
        finally:
            await admin.close()
        self._producer = AIOKafkaProducer(
            bootstrap_servers=servers,
            acks="all",
            enable_idempotence=True,
            request_timeout_ms=60_000,
            max_request_size=5_000_000,
            linger_ms=5,
        )
        await self._producer.start()
        for budgets, action in ((TIGHT, "refuse"), (ALERTING, "alert")):
            for workspace, amount in budgets.items():
                body = {"workspace_id": workspace, "amount": amount, "action": action}
                await self._producer.send_and_wait("ai.budgets", json.dumps(body).encode(), workspace.encode())
        # Workers hear of budgets as of any record, a moment later.
        await asyncio.sleep(2)
        self._watching = asyncio.create_task(self._watch())

    async def run(self, seconds: float) -> None:
        begun, count = time.monotonic(), 0
        while (passed := time.monotonic() - begun) < seconds:
            due = int(passed * self._rate)
            for _ in range(min(due - count, 20 if self._rate < 300 else 200)):
                for act in self._mix.next():
                    self._do(act)
                count += 1
            if due - count > 2_000:
                count = due - 20
            await asyncio.sleep(STEP)

    async def flush(self) -> None:
        """What was never acknowledged was perhaps never published: what the topic has is what counts."""
        if self._pending:
            await asyncio.wait(self._pending, timeout=FLUSHED_WITHIN)

    async def stop(self) -> None:
        for task in (self._watching, *self._pending):
            if task is not None:
                task.cancel()
        if self._producer is not None:
            with suppress(KafkaError, OSError, TimeoutError):
                await asyncio.wait_for(self._producer.stop(), 20)

    # One thing --------------------------------------------------------------------------------------------------------

    def _do(self, act: Act) -> None:
        if isinstance(act, Publish):
            self.asked.setdefault(act.asked.id, act.asked)
            partition = act.partition
            if self.foreign > 0:
                self.foreign -= 1
                partition = zlib.crc32(act.asked.workspace.encode()) % PARTITIONS
            self._spawn(self._publish(act, partition))
        elif isinstance(act, Cancel):
            self._spawn(self._cancel(act))
        else:
            self._spawn(self._send_hostile(act))

    def _spawn(self, what: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(what)
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _publish(self, act: Publish, partition: int | None) -> None:
        if act.delay:
            await asyncio.sleep(act.delay)
        asked = act.asked
        asked.sent += 1
        try:
            await self._send("ai.requests", act.value, asked.workspace.encode(), partition)
            asked.acknowledged += 1
        except Exception as error:  # noqa: BLE001 - whatever the reason: it is not known to be published
            self._stack.note("publish_failed", what=asked.id, error=repr(error)[:120])
            if not asked.acknowledged and asked.sent <= 1:
                self.asked.pop(asked.id, None)

    async def _cancel(self, act: Cancel) -> None:
        await asyncio.sleep(act.delay)
        asked = act.asked
        body = json.dumps({"request_id": asked.id, "workspace_id": asked.workspace}).encode()
        try:
            await self._send("ai.cancellations", body, asked.workspace.encode(), None)
            asked.cancelled_at = time.time()
        except Exception as error:  # noqa: BLE001 - as above
            self._stack.note("cancel_failed", what=asked.id, error=repr(error)[:120])

    async def _send_hostile(self, act: Hostile) -> None:
        try:
            place = await self._send("ai.requests", act.value, act.key, act.partition, act.headers)
            self.hostile.append(Sent(act.label, place.partition, place.offset))
        except Exception as error:  # noqa: BLE001 - as above
            self._stack.note("publish_failed", what=act.label, error=repr(error)[:120])

    async def _send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int | None,
        headers: tuple[tuple[str, bytes], ...] = (),
    ) -> Any:
        assert self._producer is not None
        return await self._producer.send_and_wait(topic, value, key, partition, headers=list(headers))

    async def _watch(self) -> None:
        """Which requests have an answer."""
        async with reading(self._stack.servers, "ai.responses", from_start=True) as consumer:
            while True:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    for record in records:
                        with suppress(ValueError, KeyError, TypeError):
                            self.answered.add(json.loads(record.value)["request_id"])

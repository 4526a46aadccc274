"""What Faust's consumer does differently here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.transport.consumer import Consumer
from faust.types import TP
from mode.utils.queues import FlowControlEvent

from streams.runtime.transport import BUFFERED_BYTES, AckLastConsumer


async def test_nothing_flows_while_partitions_are_sought_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is handed over between the first seek and the last is thrown away by the flow's resumption."""
    flow, seen = FlowControlEvent(initially_suspended=False), []
    consumer = AckLastConsumer.__new__(AckLastConsumer)
    cast(Any, consumer).app = SimpleNamespace(flow_control=flow)
    stopped: list[bool] = []
    monkeypatch.setattr(consumer, "stop_flow", lambda: stopped.append(True))

    async def seek(_: Consumer) -> None:
        seen.append((flow.is_active(), bool(stopped)))

    monkeypatch.setattr(Consumer, "perform_seek", seek)
    flow.resume()
    await consumer.perform_seek()
    assert seen == [(False, True)]


class Handing(AckLastConsumer):
    """A consumer that has fetched some messages and hands them to one channel."""

    def __init__(self, sizes: list[int]) -> None:
        self.place, self.queue = TP("t", 0), asyncio.Queue[Any](maxsize=1_000)
        self.messages = [SimpleNamespace(offset=number, value=bytes(size)) for number, size in enumerate(sizes)]
        flow = FlowControlEvent(initially_suspended=False)
        flow.resume()
        topics = SimpleNamespace(_tp_index={self.place: [SimpleNamespace(queue=self.queue)]})
        parts: dict[str, Any] = {
            "app": SimpleNamespace(flow_control=flow, topics=topics),
            "_read_offset": {TP("t", 0): None},
        }
        vars(self).update(parts, suspend_flow=asyncio.Event(), callback=self.queue.put)
        self.handed = asyncio.Event()

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:  # noqa: ASYNC109, ARG002
        for message in self.messages:
            yield self.place, message
        self.handed.set()
        await asyncio.Event().wait()

    @property
    def should_stop(self) -> bool:
        return False


@pytest.mark.parametrize(("size", "at_once"), [(1_000, 900), (1024 * 1024, BUFFERED_BYTES // 1024**2 + 1)])
async def test_what_waits_for_an_agent_is_bounded_by_its_bytes(size: int, at_once: int) -> None:
    consumer = Handing([size] * 900)
    handing = asyncio.create_task(consumer._drain_messages(SimpleNamespace(should_stop=False)))
    try:
        largest, seen = 0, list[int]()
        while len(seen) < 900:
            # Whatever can be handed over has been when the one who hands over waits.
            for _ in range(2_000):
                await asyncio.sleep(0)
            largest = max(largest, consumer.queue.qsize())
            while not consumer.queue.empty():
                seen.append(consumer.queue.get_nowait().offset)
            await asyncio.sleep(0.011)
        assert largest == at_once
        assert seen == list(range(900))
        await consumer.handed.wait()
    finally:
        handing.cancel()

"""What Faust's consumer does differently here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.transport.consumer import Consumer
from mode.utils.queues import FlowControlEvent

from streams.runtime.transport import AckLastConsumer


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

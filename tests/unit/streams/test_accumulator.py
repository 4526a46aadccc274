"""Batches of owners' rows that wait, are sent, are sent again, and are given up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.structs import TopicPartition

from streams.runtime.errors import AbandonedError
from streams.runtime.fencing import Accumulator, Identity
from streams.runtime.lives import Life

PLACE = TopicPartition("changelog", 0)


async def test_a_row_that_was_sent_once_and_waits_to_be_sent_again_is_given_up_without_a_fault() -> None:
    """A broker that is away for longer than the worker is the owner."""
    faults: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, fault: faults.append(fault))
    owner = Identity(Life(0, 1))
    owner.take(7, 3)
    accumulator = Accumulator(None, 16_384, 0, 120.0, txn_manager=owner, loop=loop)
    accumulator.own = owner
    again = await accumulator.add_row(PLACE, b"k", b"sent once", owner)
    accumulator.reenqueue(accumulator._pop_batch(PLACE))
    accumulator.give_up(owner)
    with pytest.raises(AbandonedError):
        await again
    await accumulator.flush()
    await asyncio.sleep(0)
    assert faults == []
    assert not accumulator._pending_batches
    with pytest.raises(AbandonedError):
        await accumulator.add_row(PLACE, b"k", b"later", owner)

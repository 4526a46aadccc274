"""What a lane's successor must know, in a table: what was spent in the last hour, and how the lane stands.

The table is windowed: a key is a lane and a slot of its hour, three seconds long, and leaves the table with the slot.
Faust's own windowed tables are not used, because they live in event time (a request that has waited ten minutes would
be charged to the window of its arrival) and tell nobody when a write is safe. A call may be made only when the broker
has what it spends: a worker that is killed a moment later would else leave a successor that spends it again.

So that a busy lane does not write at every call, it claims ahead: a hundredth of its limit at a time. A successor of a
killed worker takes the claim for spent; an orderly stop, or the end of the slot, puts the true amount in its place.
"""

from __future__ import annotations

import contextlib
from asyncio import Future, Lock
from dataclasses import dataclass, field
from typing import Any

import orjson

from streams.dispatch.lane import Condition, Lane, Spent
from streams.runtime.errors import AbandonedError, StoreError
from streams.runtime.lives import Life
from streams.runtime.outbox import has_failed
from streams.runtime.tables import DurableTable

#: A claim is this share of the limit per minute.
CLAIM_SHARE = 0.01
#: What a lane claims a share of where it has no limit: what it spends is kept for the day on which it gets one.
UNLIMITED_RPM, UNLIMITED_TPM = 30_000, 30_000_000

_CONDITION = "condition"
_OF_A_CONDITION = ("rpm", "tpm", "paused_until", "opened_at", "resumed_at")

Row = Spent | Condition


def encode_row(row: Row) -> bytes:
    if isinstance(row, Spent):
        return orjson.dumps([row.slot, row.requests, row.tokens])
    return orjson.dumps({name: getattr(row, name) for name in _OF_A_CONDITION})


def decode_row(value: bytes) -> Row:
    """A row, also of a newer version: what this one does not know of it is ignored."""
    body = orjson.loads(value)
    if isinstance(body, list):
        return Spent(*body[:3])
    return Condition(**{name: body[name] for name in _OF_A_CONDITION if name in body})


@dataclass
class LaneMemory:
    """Keeps one lane's rows. `life` is the one of the lane's partition in which it is worked on."""

    lane: Lane
    name: str
    life: Life
    table: DurableTable[Row]
    #: What the table holds, or is on its way to it.
    _rows: dict[int, Spent] = field(default_factory=dict)
    _condition: Condition | None = None
    _noted: Future[Any] | None = None
    #: The write that covers the newest claim; calls below it wait for it as well.
    _claim: Future[Any] | None = None
    #: Claims one at a time: a call that finds its slot claimed must also find the write to wait for.
    _claiming: Lock = field(default_factory=Lock)

    def restore(self, now: float) -> None:
        """Tell the lane what its earlier owners have left."""
        rows = [row for _, row in self.table.scan(f"{self.name}|", self.life)]
        self._rows = {row.slot: row for row in rows if isinstance(row, Spent)}
        self._condition = next((row for row in rows if isinstance(row, Condition)), None)
        self.lane.restore(self._rows.values(), self._condition, now)

    async def cover(self, slot: int) -> Future[Any] | None:
        """Make sure that what was just reserved in a slot is in the table; await the result before the call."""
        async with self._claiming:
            spent, row = self.lane.spent(slot), self._rows.get(slot)
            if row is None or spent.requests > row.requests or spent.tokens > row.tokens or not self._is_covered:
                claimed = self._claimed(spent)
                # In the table first: a write that was refused has claimed nothing.
                self._claim = await self._put(claimed)
                self._rows[slot] = claimed
                if row is None:
                    await self._tidy(slot)
            await self.note()
            return self._claim

    @property
    def _is_covered(self) -> bool:
        """Whether the newest claim is with the broker, or on its way. A row that an earlier process has left in the
        local table may be no further than there.
        """
        return self._claim is not None and not has_failed(self._claim)

    async def close(self) -> None:
        """Put the true amounts in the place of claims, before somebody else takes the lane over."""
        with contextlib.suppress(AbandonedError, StoreError):
            for slot, row in list(self._rows.items()):
                if self.lane.spent(slot) != row:
                    await self._put(self._true(slot))
            await self.note()

    def _claimed(self, spent: Spent) -> Spent:
        limits = self.lane.effective
        return Spent(
            spent.slot,
            spent.requests + int((limits.rpm or UNLIMITED_RPM) * CLAIM_SHARE),
            spent.tokens + int((limits.tpm or UNLIMITED_TPM) * CLAIM_SHARE),
        )

    def _true(self, slot: int) -> Spent:
        spent = self._rows[slot] = self.lane.spent(slot)
        return spent

    async def _tidy(self, current: int) -> None:
        """At the first call of a slot: true amounts for the slots before, and farewell to those of an hour ago."""
        now = self.lane.moment_of(current)
        for slot, row in list(self._rows.items()):
            if slot >= current:
                continue
            if self.lane.is_forgotten(slot, now):
                del self._rows[slot]
                await self.table.put(self._key(slot), None, self.life)
            elif self.lane.spent(slot) != row:
                await self._put(self._true(slot))

    async def note(self) -> None:
        """Write down how the lane stands, if that has changed. Nobody needs to wait for it.

        Where the lane has another owner by now, it is not for us to say. A call that comes back after that is reported
        all the same: raised here, this would lose an answer that is paid for.
        """
        condition = self.lane.condition
        if condition != self._condition or (self._noted is not None and has_failed(self._noted)):
            self._condition = condition
            with contextlib.suppress(AbandonedError, StoreError):
                self._noted = await self.table.put(f"{self.name}|{_CONDITION}", condition, self.life)

    async def _put(self, spent: Spent) -> Future[Any]:
        return await self.table.put(self._key(spent.slot), spent, self.life)

    def _key(self, slot: int) -> str:
        return f"{self.name}|{slot}"

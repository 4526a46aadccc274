"""Which offsets may be committed: the heart of "acknowledged last". Pure; `transport.py` wires it into Faust.

Why this is not left to Faust (0.15.3): its consumer infers the offset to commit from the acknowledged offsets alone.
`Consumer._new_offset` takes a hole of one offset in front of them for a gap in the log and commits over it, so an event
that is still being worked on is lost if the process dies; before the first commit of a partition it checks nothing at
all; and at a rebalance it forgets what was acknowledged before the drain. Upstream reports: faust-streaming 312, 606.

Here the rule is stated the other way round: a partition may be committed up to the lowest offset that was delivered
and is not acknowledged. Holes in the log (compaction, transaction markers) need no special case then, because what
was never delivered is never waited for. Records that no agent is ever given (those of aborted transactions, the
markers of transactions) are committed over by the place up to which the partition was read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from typing import Protocol


class Delivery(Protocol):
    """A message as it was handed to an agent. Each redelivery is an object of its own."""

    offset: int

    @property
    def tp(self) -> Hashable: ...

    def __hash__(self) -> int: ...


class PartitionDeliveries:
    """The open deliveries of one partition, since it was assigned to this worker."""

    def __init__(self, begin: int = -1) -> None:
        # Counted, because a seek back can deliver an offset again while its first delivery is still open.
        self._open: Counter[int] = Counter()
        self._next = begin
        self._passed: tuple[int, int] | None = None

    def delivered(self, offset: int) -> None:
        self._open[offset] += 1
        self._next = max(self._next, offset + 1)

    def still_open(self, offset: int) -> None:
        """Delivered before what is read again now, and still worked on: it says nothing of what was read."""
        self._open[offset] += 1

    def acknowledged(self, offset: int) -> None:
        self._open[offset] -= 1
        if self._open[offset] <= 0:
            del self._open[offset]

    def passed(self, handed: int, position: int) -> None:
        """The partition was read up to `position`, and agents are given no more of that from `handed` on."""
        self._passed = handed, position

    def sought(self) -> None:
        """It will be read from another place on."""
        self._passed = None

    def committable(self) -> int | None:
        """The next offset to read after a restart, or None where nothing was delivered."""
        if self._open:
            # While a partition is read again, what lies before those that are still open has yet to be delivered.
            return min(self._next, *self._open)
        if self._passed is not None and self._next >= self._passed[0]:
            return max(self._next, self._passed[1])
        return self._next if self._next >= 0 else None


class Deliveries:
    """All open deliveries of a consumer.

    It has the methods of a set of messages, because Faust's stream iterator adds each message to such a set and its
    drain waits for the set to become empty. An abandoned delivery is no longer waited for, and never committed over.
    """

    def __init__(self) -> None:
        self._partitions: dict[Hashable, PartitionDeliveries] = {}
        self._waiting: dict[Delivery, PartitionDeliveries] = {}

    def add(self, message: Delivery) -> None:
        """The message has been handed to an agent."""
        partition = self._partition(message.tp)
        partition.delivered(message.offset)
        self._waiting[message] = partition

    def passed(self, tp: Hashable, handed: int, position: int) -> None:
        """See PartitionDeliveries. `handed` is -1 where agents were given nothing since the last seek."""
        self._partition(tp).passed(handed, position)

    def sought(self) -> None:
        """Every partition will be read from another place on."""
        for partition in self._partitions.values():
            partition.sought()

    def read_again(self, tp: Hashable) -> int | None:
        """What was given up of a partition will be delivered again: from which offset on. None: nothing of it was.

        Deliveries that are still worked on stay open.
        """
        partition = self._partitions.get(tp)
        offset = partition.committable() if partition is not None else None
        if offset is None:
            return None
        fresh = self._partitions[tp] = PartitionDeliveries(offset)
        for message in self._waiting:
            if message.tp == tp:
                fresh.still_open(message.offset)
                self._waiting[message] = fresh
        return offset

    def _partition(self, tp: Hashable) -> PartitionDeliveries:
        partition = self._partitions.get(tp)
        if partition is None:
            partition = self._partitions[tp] = PartitionDeliveries()
        return partition

    def acknowledge(self, message: Delivery) -> bool:
        """Everything that the message caused is safe. False for one that is not (or no longer) waited for."""
        partition = self._waiting.pop(message, None)
        if partition is None:
            return False
        partition.acknowledged(message.offset)
        return True

    def abandon(self, messages: Iterable[Delivery]) -> int:
        """Give these up: they will be delivered again, here or elsewhere. Returns how many were open."""
        return sum(self._waiting.pop(message, None) is not None for message in list(messages))

    def forget(self, partitions: Iterable[Hashable]) -> None:
        """These partitions are no longer this worker's: a late acknowledgement changes nothing any more."""
        gone = set(partitions)
        self.abandon(message for message in self._waiting if message.tp in gone)
        for partition in gone:
            self._partitions.pop(partition, None)

    def committable(self) -> dict[Hashable, int]:
        """The offset to commit for each partition that has one."""
        offsets = ((tp, partition.committable()) for tp, partition in self._partitions.items())
        return {tp: offset for tp, offset in offsets if offset is not None}

    def discard(self, message: Delivery) -> None:
        """Part of the set's interface. Only an acknowledgement ends a delivery, so nothing happens here."""

    def __iter__(self) -> Iterator[Delivery]:
        return iter(tuple(self._waiting))

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, message: object) -> bool:
        return message in self._waiting

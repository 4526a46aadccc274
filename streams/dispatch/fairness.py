"""Who is next in a lane: classes by priority, workspaces by fair shares, requests in their order. Pure.

Within a class it is start-time fair queueing (Goyal, Vin and Cheng, 1996): each workspace has a virtual clock, which a
request puts forward by its cost over the workspace's weight, and the workspace whose clock is furthest back is next.
A workspace that waits is therefore served after at most one request of every other one, however many those have; one
that was idle starts where the others are, less a small credit, and cannot save up more than that. The credit is what
keeps a flood from others: who uses less than the flood does stays behind its clock, and is served before it.

A flood has used up what the lane had saved, so that the others would meet its pace. Who has few requests waiting while
others have long lines is light (`FairQueue.is_light`): the lane keeps some room for those.

Between classes the higher priority is next. So that nothing waits for ever, a class whose next request has waited
longer than its patience gets one turn in `TURNS` although a higher class is waiting.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, TypeVar

from schemas.base import Priority

#: Highest first.
CLASSES = (Priority.INTERACTIVE, Priority.NORMAL, Priority.BATCH)
#: Seconds that a class waits behind higher ones before it gets its own turns.
PATIENCE: Mapping[Priority, float] = {Priority.INTERACTIVE: 0.0, Priority.NORMAL: 30.0, Priority.BATCH: 120.0}
#: Out of so many turns one is for a class whose patience is at its end.
TURNS = 10
#: A workspace with no more requests than these in a class asks little.
FEW = 5
#: How many workspaces are looked at for one that fits beside the first.
LOOKED_AT = 16

Payload = TypeVar("Payload")


@dataclass(slots=True, eq=False)
class Waiting(Generic[Payload]):
    """A request that waits. `cost` is its share of what is scarce (any unit, the same for all of a lane); `size` is in
    bytes. Times are seconds since 1970.
    """

    workspace: str
    priority: Priority
    cost: float
    deadline: float
    arrived_at: float
    payload: Payload
    size: int = 0
    gone: bool = False


@dataclass(slots=True)
class _Queue(Generic[Payload]):
    """One workspace's requests of one class. `clock` is its virtual time; `live` are those that have not left;
    `queued` says that the class's heap has it.
    """

    clock: float = 0.0
    waiting: deque[Waiting[Payload]] = field(default_factory=deque)
    live: int = 0
    queued: bool = False


class _Class(Generic[Payload]):
    """The workspaces of one class, by virtual time."""

    def __init__(self, weight: Callable[[str], float], ticket: Callable[[], int], credit: float) -> None:
        self._weight = weight
        self._credit = credit
        self._ticket = ticket
        self._queues: dict[str, _Queue[Payload]] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._clock = 0.0
        #: How many workspaces have requests that wait.
        self.workspaces = 0
        #: The clock of the workspace that is furthest ahead.
        self._furthest = 0.0
        self._tidy_at = 64

    def push(self, item: Waiting[Payload]) -> None:
        queue = self._queues.get(item.workspace)
        if queue is None:
            queue = self._queues[item.workspace] = _Queue(self._clock - self._credit)
        if not queue.queued:
            # Who has used less than others lately goes first, by the credit at most: nobody saves up more.
            queue.queued, queue.clock = True, max(queue.clock, self._clock - self._credit)
            heapq.heappush(self._heap, (queue.clock, self._ticket(), item.workspace))
        queue.waiting.append(item)
        queue.live += 1
        self.workspaces += queue.live == 1

    def head(self) -> Waiting[Payload] | None:
        """The next request, without what has left since."""
        while self._heap:
            queue = self._queues[self._heap[0][2]]
            while queue.waiting and queue.waiting[0].gone:
                queue.waiting.popleft()
            if queue.live:
                return queue.waiting[0]
            heapq.heappop(self._heap)
            self._rest(queue)
        return None

    def pop(self) -> Waiting[Payload]:
        """Take the head; call `head` before."""
        start, _, workspace = heapq.heappop(self._heap)
        queue = self._queues[workspace]
        item = queue.waiting.popleft()
        self._shrink(queue)
        self._clock = max(self._clock, start)
        queue.clock = start + item.cost / self._weight(workspace)
        self._furthest = max(self._furthest, queue.clock)
        if queue.live:
            heapq.heappush(self._heap, (queue.clock, self._ticket(), workspace))
        else:
            self._rest(queue)
        return item

    def heads(self) -> list[Waiting[Payload]]:
        """The next requests of some workspaces that are near their turn, in about their order."""
        # The front of a heap holds the smallest ones, if not only them: good enough, and it needs no sorting of all.
        front = sorted(self._heap[:LOOKED_AT])
        queues = [self._queues[workspace] for _, _, workspace in front]
        heads = (next((item for item in queue.waiting if not item.gone), None) for queue in queues)
        return [item for item in heads if item is not None]

    def take(self, item: Waiting[Payload]) -> None:
        """Take one of the `heads` out of its turn. Its workspace pays as for a turn; nobody else's clock moves."""
        queue = self._queues[item.workspace]
        while queue.waiting.popleft() is not item:
            pass
        self._shrink(queue)
        queue.clock += item.cost / self._weight(item.workspace)
        self._furthest = max(self._furthest, queue.clock)
        self._heap = [entry for entry in self._heap if entry[2] != item.workspace]
        if queue.live:
            self._heap.append((queue.clock, self._ticket(), item.workspace))
        heapq.heapify(self._heap)
        if not queue.live:
            self._rest(queue)

    def left(self, item: Waiting[Payload]) -> None:
        """One has left without its turn."""
        queue = self._queues[item.workspace]
        self._shrink(queue)
        if not self.workspaces:
            self._rest(queue)
        elif len(self._heap) > 2 * self.workspaces + 64:
            idle = [queue for queue in self._queues.values() if queue.queued and not queue.live]
            self._heap = [entry for entry in self._heap if self._queues[entry[2]].live]
            heapq.heapify(self._heap)
            for queue in idle:
                self._rest(queue)

    def _shrink(self, queue: _Queue[Payload]) -> None:
        """One less waits; the queue is cleared of those that have left before they outnumber the others."""
        queue.live -= 1
        if not queue.live:
            self.workspaces -= 1
            queue.waiting.clear()
        elif len(queue.waiting) > 2 * queue.live + 64:
            queue.waiting = deque(waiting for waiting in queue.waiting if not waiting.gone)

    def _rest(self, queue: _Queue[Payload]) -> None:
        """A workspace has nothing left. Those whose clock is not ahead of the class's are as good as new ones."""
        queue.queued = False
        if not self.workspaces:
            # Nobody waits: those who come next come as equals. Entries of those who left without their turn go too.
            self._heap.clear()
            self._clock, self._tidy_at = self._furthest + self._credit, 64
            self._queues.clear()
        elif len(self._queues) > self._tidy_at:
            self._queues = {
                name: queue
                for name, queue in self._queues.items()
                if queue.queued or queue.clock > self._clock - self._credit
            }
            self._tidy_at = 2 * len(self._queues) + 64

    def length(self, workspace: str) -> int:
        queue = self._queues.get(workspace)
        return queue.live if queue else 0


class FairQueue(Generic[Payload]):
    """The waiting requests of one lane. `weight` gives a workspace's share, in proportion to the others'; `credit` is
    the cost by which one that has used less than the others may be served before them.
    """

    def __init__(self, weight: Callable[[str], float] = lambda _: 1.0, credit: float = 0.0) -> None:
        tickets = count()
        self._classes = {name: _Class[Payload](weight, lambda: next(tickets), credit) for name in CLASSES}
        self._deadlines: list[tuple[float, int, Waiting[Payload]]] = []
        self._ticket = tickets
        self._turns = dict.fromkeys(CLASSES, 0)
        self._size = dict.fromkeys(CLASSES, 0)
        #: Bytes of all that wait.
        self.bytes = 0

    def __len__(self) -> int:
        return sum(self._size.values())

    def push(self, item: Waiting[Payload]) -> None:
        self._classes[item.priority].push(item)
        heapq.heappush(self._deadlines, (item.deadline, next(self._ticket), item))
        self._size[item.priority] += 1
        self.bytes += item.size

    def peek(self, now: float) -> Waiting[Payload] | None:
        """Who is next."""
        name = self._next_class(now)
        return None if name is None else self._classes[name].head()

    def pop(self, now: float) -> Waiting[Payload]:
        """Take the one that `peek` shows; raises LookupError where nobody waits."""
        name = self._next_class(now)
        if name is None:
            raise LookupError("nobody waits")
        item = self._classes[name].pop()
        self._gone(item)
        self._count_turn(name, now)
        return item

    def beside(self, first: Waiting[Payload]) -> list[Waiting[Payload]]:
        """Others of the first one's class that might go while it waits: the next ones of their workspaces."""
        return [item for item in self._classes[first.priority].heads() if item is not first]

    def take(self, item: Waiting[Payload]) -> None:
        """Take one that `beside` shows."""
        self._classes[item.priority].take(item)
        self._gone(item)

    def remove(self, item: Waiting[Payload]) -> None:
        """One that leaves without its turn."""
        if not item.gone:
            self._leave(item)

    def due(self, moment: float) -> Iterator[Waiting[Payload]]:
        """Take out all whose deadline is at that moment or before, the earliest first."""
        while self._deadlines and (self._deadlines[0][0] <= moment or self._deadlines[0][2].gone):
            item = heapq.heappop(self._deadlines)[2]
            if not item.gone:
                self._leave(item)
                yield item

    def next_deadline(self) -> float | None:
        while self._deadlines and self._deadlines[0][2].gone:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def items(self) -> list[Waiting[Payload]]:
        """All who wait, in order of arrival."""
        waiting = [(item.arrived_at, ticket, item) for _, ticket, item in self._deadlines if not item.gone]
        return [item for _, _, item in sorted(waiting, key=lambda entry: entry[:2])]

    def clear(self) -> list[Waiting[Payload]]:
        """Take out all, in the order of their deadlines."""
        return list(self.due(float("inf")))

    def is_light(self, item: Waiting[Payload]) -> bool:
        """Whether its workspace has few requests waiting, while others have more than their share of few."""
        if self._classes[item.priority].length(item.workspace) > FEW:
            return False
        return len(self) > FEW * sum(one.workspaces for one in self._classes.values())

    def ahead_of(self, workspace: str, priority: Priority) -> int:
        """About how many are served before a newcomer: all of higher classes, and fair shares of its own."""
        rank = CLASSES.index(priority)
        higher = sum(self._size[name] for name in CLASSES[:rank])
        own = self._classes[priority]
        rounds = own.length(workspace) + 1
        return higher + min(self._size[priority], rounds * max(own.workspaces, 1))

    def _leave(self, item: Waiting[Payload]) -> None:
        self._gone(item)
        self._classes[item.priority].left(item)

    def _gone(self, item: Waiting[Payload]) -> None:
        item.gone = True
        self._size[item.priority] -= 1
        self.bytes -= item.size
        if len(self._deadlines) > 2 * len(self) + 64:
            # Deadlines of those that left in their turn: they would stay until they pass.
            self._deadlines = [entry for entry in self._deadlines if not entry[2].gone]
            heapq.heapify(self._deadlines)

    def _next_class(self, now: float) -> Priority | None:
        waiting = [name for name in CLASSES if self._classes[name].head() is not None]
        for name in waiting[1:]:
            if self._turns[name] >= TURNS - 1 and self._is_impatient(name, now):
                return name
        return waiting[0] if waiting else None

    def _count_turn(self, taken: Priority, now: float) -> None:
        """Lower classes that are out of patience count the turns that others take."""
        self._turns[taken] = 0
        rank = CLASSES.index(taken)
        for name in CLASSES[rank + 1 :]:
            if self._is_impatient(name, now):
                self._turns[name] += 1

    def _is_impatient(self, name: Priority, now: float) -> bool:
        head = self._classes[name].head()
        return head is not None and now - head.arrived_at >= PATIENCE[name]

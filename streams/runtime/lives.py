"""Which partition numbers this process owns, and since which assignment."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import count
from typing import Any

from streams.runtime.errors import AbandonedError

#: The message that the present task works on. Each task that handles an event sets it: what the task has inherited is
#: that of whoever gave it its turn.
worked_on: ContextVar[Any] = ContextVar("worked_on", default=None)


@dataclass(frozen=True, slots=True)
class Life:
    """One ownership of a partition number by this process: from an assignment to the next rebalance, or to its loss.

    `number` is unique in the process. What was decided in one life must not be written in another one: another worker
    may have owned the partition in between.
    """

    partition: int
    number: int


class Lives:
    """The lives of this process.

    All topics with tables have the same number of partitions, and the assignor gives equal numbers to the same worker,
    so a number stands for that partition of all of them.
    """

    def __init__(self) -> None:
        self._numbers = count(1)
        self._current: dict[int, Life] = {}
        self._generation: int | None = None
        self._on_end: list[Callable[[frozenset[int]], None]] = []

    def on_end(self, callback: Callable[[frozenset[int]], None]) -> None:
        """Call with the partitions whose lives have just ended."""
        self._on_end.append(callback)

    def begin(self, partitions: Iterable[int], generation: int | None = None) -> dict[int, Life]:
        """These partitions are this process's from now on. Earlier lives end. `generation` is the consumer group's."""
        self.end()
        self._generation = generation
        for partition in sorted(partitions):
            self._current[partition] = Life(partition, next(self._numbers))
        return dict(self._current)

    def end(self) -> None:
        """None of the partitions is this process's any more."""
        ended, self._current = frozenset(self._current), {}
        if ended:
            for callback in self._on_end:
                callback(ended)

    def current(self, partition: int) -> Life | None:
        return self._current.get(partition)

    def owned(self) -> frozenset[int]:
        """The partition numbers that are this process's now."""
        return frozenset(self._current)

    def is_current(self, life: Life) -> bool:
        return self._current.get(life.partition) == life

    def has(self, message: Any) -> bool:
        """Whether a message was read since the last assignment."""
        generation = getattr(message, "generation_id", None)
        return generation is None or self._generation is None or generation == self._generation

    def of(self, where: int | Life) -> Life:
        """The present life of a partition. Raises AbandonedError where there is none, or where it is another one."""
        partition = where.partition if isinstance(where, Life) else where
        life = self._current.get(partition)
        if life is None or (isinstance(where, Life) and life != where):
            raise AbandonedError(f"partition {partition} is another worker's now")
        return life

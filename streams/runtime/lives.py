"""Which partition numbers this process owns, and since which assignment."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count


@dataclass(frozen=True, slots=True)
class Life:
    """One ownership of a partition number by this process: from an assignment to the next rebalance, or to its loss.

    `number` is unique in the process. What was decided in one life must not be written in another one: another worker
    may have owned the partition in between.
    """

    partition: int
    number: int


class Lives:
    """The lives of this process."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._current: dict[int, Life] = {}
        self._on_end: list[Callable[[frozenset[int]], None]] = []

    def on_end(self, callback: Callable[[frozenset[int]], None]) -> None:
        """Call with the partitions whose lives have just ended."""
        self._on_end.append(callback)

    def begin(self, partitions: Iterable[int]) -> dict[int, Life]:
        """These partitions are this process's from now on. Earlier lives end."""
        self.end()
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

    def is_current(self, life: Life) -> bool:
        return self._current.get(life.partition) == life

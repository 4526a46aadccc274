"""Rows that are on their way to a changelog. Pure.

A row enters the local store only when the broker has it. Until then it is read from here, also where the broker has
refused it: whoever wrote it tries again. So the local store is never ahead of its changelog: what is refused, or in
flight when the partition is lost, leaves nothing behind.

How far the store and the changelog agree is known exactly: the owner's rows follow each other without a gap. A gap
means that somebody else has written there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from typing import NamedTuple

Stored = bytes | None


class Pending(NamedTuple):
    """A row on its way. `number` is its place among all rows of the partition, in the order of their writing."""

    number: int
    value: Stored


class Unacknowledged:
    """The rows of one table and one life that are not in the local store yet. A value of None deletes."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._rows: dict[bytes, deque[Pending]] = {}

    def add(self, key: bytes, value: Stored) -> int:
        """The row is on its way; returns its number."""
        number = next(self._numbers)
        self._rows.setdefault(key, deque()).append(Pending(number, value))
        return number

    def get(self, key: bytes) -> Pending | None:
        """The newest row of a key that is on its way."""
        rows = self._rows.get(key)
        return rows[-1] if rows else None

    def stored(self, key: bytes, number: int) -> None:
        """The row, and with it all earlier ones of its key, are no longer needed: the store has it."""
        self._forget(key, lambda row: row.number <= number)

    def take_back(self, key: bytes, number: int) -> None:
        """The row was not even sent. What was written before it counts again."""
        self._forget(key, lambda row: row.number == number)

    def _forget(self, key: bytes, is_over: Callable[[Pending], bool]) -> None:
        rows = self._rows.get(key)
        if rows is None:
            return
        left = deque(row for row in rows if not is_over(row))
        if left:
            self._rows[key] = left
        else:
            del self._rows[key]

    def keys(self, prefix: bytes, start: bytes = b"") -> list[bytes]:
        """The keys with this prefix that are on their way, from `start` on, in the order of their bytes."""
        return sorted(key for key in self._rows if key.startswith(prefix) and key >= start)

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._rows.values())

    def __iter__(self) -> Iterator[bytes]:
        return iter(tuple(self._rows))


class Agreement:
    """Up to which offset a local store and its changelog agree, while one owner writes."""

    def __init__(self, fenced_at: int | None) -> None:
        """`fenced_at` is the offset of the owner's first row; None where it is not known: then nothing is noted."""
        self._last = fenced_at
        #: Whether a row of somebody else lies between rows of this owner.
        self.is_broken = False

    def acknowledged(self, offset: int) -> int | None:
        """The next own row is at this offset. Returns how far both agree; None where that cannot be said."""
        if self._last is None or self.is_broken:
            return None
        if offset != self._last + 1:
            # A negative offset is a broker's way to say that it has had the row before.
            self.is_broken = True
            return None
        self._last = offset
        return offset

"""A table of the ledger as the sink writes it: names, types on the wire, and where each value comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

R = TypeVar("R")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True)
class Shape(Generic[R]):
    """`refusal` says why a row cannot be stored, or None; `label` names it in that sentence."""

    table: str
    columns: tuple[tuple[str, str, Callable[[R], Any]], ...]
    refusal: Callable[[R], str | None]
    label: Callable[[R], str]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _, _ in self.columns)

    @property
    def types(self) -> tuple[str, ...]:
        return tuple(kind for _, kind, _ in self.columns)

    def turned(self, batch: Sequence[R]) -> list[list[Any]]:
        """The batch turned on its side: one list per column, in the order of the names."""
        return [[read(row) for row in batch] for _, _, read in self.columns]


def milliseconds(moment: datetime) -> int:
    """Since 1970."""
    return (moment - _EPOCH) // _MILLISECOND

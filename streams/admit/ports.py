"""What admission needs from outside: who has which model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Models(Protocol):
    """Who claims which model."""

    def claimants(self, model: str) -> tuple[str, ...]:
        """The providers that claim a model, configured or not, the best first; nobody knows a model without any."""
        ...

    def told(self, providers: Iterable[str]) -> str:
        """What these providers claim, for people."""
        ...

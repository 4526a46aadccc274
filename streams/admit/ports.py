"""What admission needs from outside: who has which model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from schemas.request import CommonRequest


class Models(Protocol):
    """Who claims which model."""

    def claimants(self, model: str) -> tuple[str, ...]:
        """The providers that claim a model, configured or not, the best first; nobody knows a model without any."""
        ...

    def plain(self, request: CommonRequest) -> CommonRequest:
        """The same request with its model by its shortest name, where both names mean the same here."""
        ...

    def told(self, providers: Iterable[str]) -> str:
        """What these providers claim, for people."""
        ...

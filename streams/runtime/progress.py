"""Whether the stages of a worker get on: what each says of itself, and who has stood still for too long. Pure.

A stage stands still when it has work that it could do now, and takes no step for a while. What it may rightly wait for
is no such work: a turn in a lane, a provider's answer, a broker or a database that is away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Standing:
    """`waits`: there is work that could be done now; `steps`: a count that each step changes."""

    waits: bool
    steps: int


class Stage(Protocol):
    """Who can be asked how it stands."""

    def standing(self) -> Standing: ...


class Progress:
    """Since when each stage has stood still. Times are in seconds, of any clock that only goes forward."""

    def __init__(self) -> None:
        self._steps: dict[str, int] = {}
        self._since: dict[str, float] = {}

    def look(self, stages: Mapping[str, Standing], now: float) -> dict[str, float]:
        """For how long each stage that has work to do has taken no step."""
        for name, standing in stages.items():
            if not standing.waits or self._steps.get(name) != standing.steps:
                self._since.pop(name, None)
            self._steps[name] = standing.steps
            if standing.waits:
                self._since.setdefault(name, now)
        for name in self._since.keys() - stages.keys():
            del self._since[name]
        return {name: now - since for name, since in self._since.items()}

"""What lanes have said of themselves, as admission sees it: the newest state of each lane of all workers. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import ValidationError

from schemas.control import LaneState, Mode

#: Seconds after which a lane's word is too old to send anybody away.
BELIEVED_FOR = 15.0


@dataclass
class LaneBoard:
    """Reads `ai.lanes`. A lane that has said nothing lately is taken to be free: most lanes are."""

    _states: dict[str, LaneState] = field(default_factory=dict)

    def hear(self, key: bytes | None, value: bytes | None) -> None:
        name = (key or b"").decode(errors="replace")
        if value is None:
            self._states.pop(name, None)
            return
        try:
            self._states[name] = LaneState.model_validate_json(value)
        except ValidationError:
            return

    def wait(self, lane: str, now: datetime) -> float:
        """About how many seconds a request would wait in a lane; infinite for one that is closed."""
        state = self._states.get(lane)
        if state is None:
            return 0.0
        age = (now - state.at).total_seconds()
        if age > BELIEVED_FOR:
            return 0.0
        if state.mode is not Mode.OPEN or state.circuit == "open":
            return math.inf
        return max((state.wait or 0.0) - age, 0.0)

    def known_wait(self, provider: str, now: datetime) -> float | None:
        """The longest wait in any of a provider's lanes, in seconds; None where one or all have said nothing lately."""
        names = [name for name, state in self._states.items() if state.provider == provider]
        if not names or any((now - self._states[name].at).total_seconds() > BELIEVED_FOR for name in names):
            return None
        return max(self.wait(name, now) for name in names)


Outlook = Callable[[str], float]


def always_free(_: str) -> float:
    """The outlook where nobody knows any."""
    return 0.0

"""For how long this worker may believe that its partitions are its own.

The group's coordinator gives a member's partitions away when it has not heard of it for the session's time-out. So from
the moment at which the last accepted heartbeat was sent the partitions are ours for that long, less a margin. The
moment of sending, and not that of the answer: an answer may have lain in the socket while the process stood still.

The lease spares calls that a successor makes too. It proves nothing, because a process may stand still between asking
and acting: what may enter a table is the broker's to say (`fencing.py`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka.protocol.group import HeartbeatRequest, SyncGroupRequest

#: Seconds by which the lease ends before the session does.
MARGIN = 1.0
NO_ERROR, ILLEGAL_GENERATION, UNKNOWN_MEMBER, REBALANCING, FENCED_MEMBER = 0, 22, 25, 27, 82
#: The coordinator does not know the member, or not in this generation.
THROWN_OUT = (ILLEGAL_GENERATION, UNKNOWN_MEMBER, FENCED_MEMBER)


def boot_clock() -> float:
    """Seconds of a clock that goes on while the machine sleeps, where there is one."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class Lease:
    """`session` and `rebalance` are the group's time-outs, in seconds."""

    def __init__(self, session: float, rebalance: float = 60.0, now: Callable[[], float] = boot_clock) -> None:
        self._session = session
        self._rebalance = rebalance
        self._now = now
        self._ends_at: float | None = None
        self._rebalancing_since: float | None = None

    def holds(self) -> bool:
        return self._ends_at is not None and self._now() < self._ends_at

    def heard(self, sent_at: float, error: int) -> None:
        """The coordinator has answered what was sent at that moment."""
        if error in THROWN_OUT:
            self._ends_at = None
        elif error == NO_ERROR:
            self._rebalancing_since = None
            self._ends_at = sent_at + self._session - MARGIN
        elif error == REBALANCING:
            # It waits for this member to join again, but not for ever.
            since = self._rebalancing_since = self._rebalancing_since or sent_at
            self._ends_at = min(sent_at + self._session, since + self._rebalance) - MARGIN

    def watch(self, send: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """A client's `send`, with an ear for what the coordinator says."""

        async def watched(node_id: Any, request: Any, **options: Any) -> Any:
            if not isinstance(request, HeartbeatRequest | SyncGroupRequest):
                return await send(node_id, request, **options)
            sent_at = self._now()
            answer = await send(node_id, request, **options)
            self.heard(sent_at, answer.error_code)
            return answer

        return watched

"""Requests that nobody wants any more. Pure.

Every worker hears of every cancellation; the one that holds the request drops it. One that is on its way between two
topics at that moment is held by nobody, so each worker remembers, and looks when a request arrives.
"""

from __future__ import annotations

from collections.abc import Callable

from schemas.cancellation import Cancellation
from schemas.codec import UndecodableError, decode
from streams.lifecycle import request_key

#: How many cancellations a worker remembers: the newest ones.
REMEMBERED = 100_000


class CancellationBoard:
    """The cancellations that were heard of, by the requests' keys."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._keys: dict[str, None] = {}
        self._listeners: list[Callable[[str], None]] = []

    def on_cancel(self, listener: Callable[[str], None]) -> None:
        """Tell the listener the key of each request that is cancelled from now on."""
        self._listeners.append(listener)

    def apply(self, value: bytes | None) -> bool:
        """Take over a record of the topic. False for one that is no cancellation; it changes nothing."""
        if value is None:
            return True
        try:
            event = decode(Cancellation, value)
        except UndecodableError:
            return False
        key = request_key(event.workspace_id, event.request_id)
        self._keys.pop(key, None)
        self._keys[key] = None
        if len(self._keys) > self._remembered:
            del self._keys[next(iter(self._keys))]
        for listener in self._listeners:
            listener(key)
        return True

    def __contains__(self, key: str) -> bool:
        return key in self._keys

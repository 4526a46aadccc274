"""Data of a stream that says nothing, and only keeps the connection open."""

from __future__ import annotations

import re

#: Data of events that only show that the server is there. Numbers and `null` are no words of anybody.
_HEARTBEAT = re.compile(
    r"|null|none|ok|true|\{\}|\[\]|-?[0-9.]+|\[?(ping|pong|heart[-_ ]?beat|keep[-_ ]?alive|processing|waiting)\W*",
    re.IGNORECASE,
)


def is_heartbeat(data: str) -> bool:
    """Whether the data of an event says nothing but that the server is alive."""
    return _HEARTBEAT.fullmatch(data.strip().strip('"').strip()) is not None

"""What several stages need from outside."""

from __future__ import annotations

from typing import Protocol


class TopicDirectory(Protocol):
    """Knows which topics exist."""

    async def exists(self, topic: str) -> bool:
        """Answer soon, from memory where it can. Never creates the topic that it is asked about.

        Raises DirectoryUnavailableError when the broker does not say in time.
        """
        ...


class DirectoryUnavailableError(Exception):
    """Nobody can say now whether a topic exists."""

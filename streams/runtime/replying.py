"""Sending a reply to a topic that somebody else owns: it may be gone, and must not hold up anything."""

from __future__ import annotations

import asyncio
import logging

from streams.ports import TopicDirectory
from streams.records import Record
from streams.runtime.agents import Incoming, dead_letter
from streams.runtime.outbox import Outbox, UndeliverableError

log = logging.getLogger(__name__)

#: Seconds that one reply may take; its topic may have been deleted since admission looked.
REPLY_TIMEOUT = 10.0


class Replies:
    """Sends replies, and buries those that nobody will ever take."""

    def __init__(self, outbox: Outbox, directory: TopicDirectory) -> None:
        self._outbox = outbox
        self._directory = directory

    async def send(self, incoming: Incoming, reply: Record) -> None:
        """Return when the reply is with the broker, or its input is in the dead letters with the reason."""
        try:
            return await asyncio.wait_for(self._outbox.publish(reply), REPLY_TIMEOUT)
        except TimeoutError:
            if await self._directory.exists(reply.topic):
                # The broker is slow or away, the topic is there: try the whole event again.
                raise
            reason = f"The reply topic {reply.topic} is gone."
        except UndeliverableError as error:
            reason = f"The reply topic {reply.topic} does not take the reply: {error}"
        log.warning("reply_undeliverable: %s", reply.topic)
        return await self._outbox.publish(dead_letter(incoming, "reply_undeliverable", reason))

"""Sending a reply to a topic that somebody else owns: it may be gone, and must not hold up anything."""

from __future__ import annotations

import asyncio
import logging

from aiokafka.errors import MessageSizeTooLargeError, TopicAuthorizationFailedError

from streams.ports import TopicDirectory
from streams.records import Record
from streams.runtime.incoming import Incoming
from streams.runtime.letters import bury
from streams.runtime.outbox import Outbox, UndeliverableError

log = logging.getLogger(__name__)

#: Seconds that one reply may take; its topic may have been deleted since admission looked.
REPLY_TIMEOUT = 10.0


class Replies:
    """Sends replies, and buries those that nobody will ever take."""

    def __init__(self, outbox: Outbox, directory: TopicDirectory) -> None:
        self._outbox = outbox
        self._directory = directory

    async def send(self, incoming: Incoming, *replies: Record) -> None:
        """Return when the replies, all to one topic, are with the broker, or their input is in the dead letters with
        the reason.
        """
        topic = replies[-1].topic
        try:
            async with asyncio.timeout(REPLY_TIMEOUT):
                return await self._outbox.publish(*replies)
        except TimeoutError:
            if await self._directory.exists(topic):
                # The broker is slow or away, the topic is there: try the whole event again.
                raise
            reason = f"The reply topic {topic} is gone."
        except UndeliverableError as error:
            reason = f"The reply topic {topic} does not take the reply: {error}"
        except MessageSizeTooLargeError:
            # It is the topic's owner who says how large a record may be.
            reason = f"The reply is larger than a record of the topic {topic} may be (max.message.bytes)."
        except TopicAuthorizationFailedError:
            # Asking again would hold up the partition until somebody changes an ACL.
            reason = f"The reply topic {topic} may not be written by Spillway."
        log.warning("reply_undeliverable: %s", topic)
        return await bury(self._outbox, incoming, "reply_undeliverable", reason)

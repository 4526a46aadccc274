"""Dead letters on their way: whatever a record holds, its letter is written, if need be with less of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

from aiokafka.errors import MessageSizeTooLargeError

from schemas.dead_letter import KEY_OMITTED, NO_VALUE, VALUE_OMITTED, DeadLetter
from streams.records import Record
from streams.runtime.incoming import Incoming
from streams.runtime.outbox import Outbox, UndeliverableError
from streams.topology import DEAD_LETTERS

log = logging.getLogger(__name__)

#: No waiting makes such a record fit.
TOO_LARGE = (MessageSizeTooLargeError, UndeliverableError)


def dead_letter(incoming: Incoming, code: str, message: str) -> Record:
    """The record that keeps an input's original bytes, and says why it is there."""
    value = None if incoming.value is None else bytes(incoming.value)
    headers = DeadLetter(incoming.origin, code, message, incoming.key, value, incoming.headers).to_headers()
    if value is None and incoming.key is None:
        # aiokafka's producer sends no such record.
        return Record(DEAD_LETTERS, None, b"", (*headers, (NO_VALUE, b"1")))
    return Record(DEAD_LETTERS, incoming.key, value, headers)


async def bury(outbox: Outbox, incoming: Incoming, code: str, message: str) -> None:
    """Return when the letter is with the broker. Raises what passes by itself: the broker is away.

    A letter that is larger than its topic takes is sent without its value, and at last without its key and headers; a
    compressed record may be larger than any that can be written. Where not even that is taken the place is in the log.
    """
    for letter in _smaller_and_smaller(incoming, code, message):
        try:
            return await outbox.publish(letter)
        except TOO_LARGE as error:
            log.error("dead_letter_too_large: %s: %s", incoming.place, type(error).__name__)  # noqa: TRY400
    log.error("dead_letter_lost: %s: %s: the record is left where it is", incoming.place, code)
    return None


def _smaller_and_smaller(incoming: Incoming, code: str, message: str) -> Iterator[Record]:
    letter = dead_letter(incoming, code, message)
    yield letter
    headers = letter.headers
    if incoming.value is not None:
        headers = (*headers, (VALUE_OMITTED, _size(incoming.value)))
        yield replace(letter, value=None if incoming.key is not None else b"", headers=headers)
    bare = dead_letter(replace(incoming, key=None, value=None, headers=()), code, message).headers
    omitted = ((VALUE_OMITTED, _size(incoming.value)), (KEY_OMITTED, _size(incoming.key)))
    yield Record(DEAD_LETTERS, None, b"", (*bare, *omitted))


def _size(part: bytes | None) -> bytes:
    return str(len(part or b"")).encode()

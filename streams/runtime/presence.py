"""Who lives: each worker says so a few times in each session, and every worker reads what all of them say.

A worker that has lost its partitions may still have calls on the wire. Whoever finds their marks waits for its report
while it lives. The words are records of one partition, stamped by the broker, so they have one order and one clock: a
worker is dead when that log goes on for its whole session without a word of it. Nobody's own clock is asked, and who
reads late takes nobody for dead too early.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
from asyncio import Future
from dataclasses import dataclass
from typing import Any, Protocol

from streams.records import Record
from streams.runtime.broadcast import APPEND_TIME
from streams.runtime.clock import BrokerClock
from streams.topology import OWNERS

log = logging.getLogger(__name__)

#: Words in one session: one may be late, and another one lost.
WORDS = 4
#: Seconds that a start waits for the first word to arrive, and an end for the last one.
FIRST_WORD, LAST_WORD = 10.0, 1.0
#: Words that a start says for the clock, until it is as exact as this (seconds): the first one may be slow.
FIRST_WORDS, EXACT = 3, 0.1
UNSAID = "others may take this worker for dead, and the time is not learned"


class Sends(Protocol):
    """The part of the outbox that is needed."""

    async def post_always(self, record: Record) -> Future[Any]: ...


@dataclass(frozen=True)
class Word:
    """A worker's last word: when, by the log's time, and the seconds for which it holds."""

    at: float
    lease: float


def word_record(name: str, lease: float) -> Record:
    """A word of the worker, as it is on the wire: it lives, for so many seconds."""
    return Record(OWNERS, name.encode(), json.dumps({"owner": name, "lease": lease}).encode(), partition=0)


def last_record(name: str) -> Record:
    """The worker's end: nothing of it is to be waited for."""
    return Record(OWNERS, name.encode(), None, partition=0)


def lease_in(value: bytes) -> float | None:
    """For how many seconds a word holds; None for what is none."""
    try:
        lease = json.loads(value)["lease"]
    except (ValueError, TypeError, KeyError):
        return None
    is_number = isinstance(lease, int | float) and not isinstance(lease, bool)
    return float(lease) if is_number and 0 < lease < math.inf else None


class Presence:
    """Says that this worker lives, and knows which others do. `session_timeout` is in seconds.

    Each acknowledged word also tells the clock what time it is at the broker.
    """

    def __init__(self, name: str, session_timeout: float, clock: BrokerClock, outbox: Sends) -> None:
        self.name = name
        self._timeout = session_timeout
        self._clock = clock
        self._outbox = outbox
        self._saying: asyncio.Task[None] | None = None
        #: By the steady clock: until when all others take this worker for alive.
        self._holds_until = -math.inf
        #: By the log's time: that of the newest record read, and that of the first word of this worker.
        self._log_time: float | None = None
        self._since: float | None = None
        self._words: dict[str, Word] = {}

    # Saying --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Say the first word, and return when it is with the broker, or has not got there for a while."""
        try:
            async with asyncio.timeout(FIRST_WORD):
                for _ in range(FIRST_WORDS):
                    await self.say()
                    if self._clock.uncertainty <= EXACT:
                        break
        except Exception as error:  # noqa: BLE001 - the worker goes on trying, and works without
            log.warning("word_unsaid: %s: %s", type(error).__name__, UNSAID)
        self._clock.begin()
        self._saying = asyncio.create_task(self.say_until_cancelled())

    async def stop(self) -> None:
        """Say that this worker has ended. Until then it goes on saying that it lives, while its calls are finished."""
        if self._saying is None:
            return
        self._saying.cancel()
        await asyncio.wait({self._saying})
        # Unsaid, its last word runs out by itself.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(LAST_WORD):
                await asyncio.shield(await self._outbox.post_always(last_record(self.name)))

    async def say_until_cancelled(self) -> None:
        """A word at once, and one each quarter of a session. While one is on its way no other is sent."""
        interval = self._timeout / WORDS
        while True:
            begun = self._clock.steady()
            try:
                await self.say()
            except Exception as error:  # noqa: BLE001 - whatever keeps this one back, the next one is said
                log.warning("word_unsaid: %s: %s", type(error).__name__, UNSAID)
            await asyncio.sleep(min(max(begun + interval - self._clock.steady(), interval / 10), interval))

    async def say(self) -> None:
        """One word; return when it has arrived. Raises whatever has kept it back."""
        sent = self._clock.steady()
        told = await asyncio.shield(await self._outbox.post_always(word_record(self.name, self._timeout)))
        stamp = told.timestamp if told.timestamp_type == APPEND_TIME else None
        self._clock.hear(sent, self._clock.steady(), stamp)
        self._holds_until = sent + self._timeout

    def holds(self) -> bool:
        """Whether all others still take this worker for alive: a word was sent within the session, and has arrived."""
        return self._clock.steady() < self._holds_until

    # Hearing -------------------------------------------------------------------------------------------------------

    def apply(self, key: bytes | None, value: bytes | None, timestamp: float | None) -> None:
        """A record of the topic, in its order. `timestamp` is the broker's, in seconds since 1970; None where it gives
        none: then the moment counts at which it is read.
        """
        now = self._clock.steady() if timestamp is None else timestamp
        self._pass(now)
        name = (key or b"").decode(errors="replace")
        if value is None:
            self._words[name] = Word(-math.inf, self._timeout)
        elif (lease := lease_in(value)) is not None:
            self._words[name] = Word(now, lease)
        if name == self.name and self._since is None:
            self._since = now
        self._forget()

    def _pass(self, now: float) -> None:
        """The log's time goes on to this one.

        A gap that is longer than the distance of this worker's own words, or a step back, means that the broker was
        away or that its clock has stepped: who was alive before could not say so, and has a session's time for it.
        """
        before, self._log_time = self._log_time, now
        if before is None:
            return
        is_far = self._since is not None and abs(now - before) > self._timeout / 2
        if now >= before and not is_far:
            return

        def moved(at: float, lease: float) -> float:
            """A moment of the log's time before, in that of now. Who was dead remains so."""
            if before - at >= lease:
                return -math.inf
            return now if is_far else min(at, now)

        self._words = {name: Word(moved(word.at, word.lease), word.lease) for name, word in self._words.items()}
        self._since = None if self._since is None else moved(self._since, self._timeout)

    def _forget(self) -> None:
        """Names of the dead leave the memory: once this worker has listened for a session, who is not known is dead."""
        now, since = self._log_time, self._since
        if now is None or since is None or now - since < self._timeout:
            return
        for name in [name for name, word in self._words.items() if now - word.at >= word.lease]:
            del self._words[name]

    def lives(self, name: str) -> bool:
        """Whether a worker may still finish a call and report it.

        Of a name that it does not know, a worker says no only after it has listened for a session.
        """
        if name == self.name or self._log_time is None:
            return True
        word = self._words.get(name)
        if word is not None:
            return self._log_time - word.at < word.lease
        return self._since is None or self._log_time - self._since < self._timeout

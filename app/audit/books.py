"""The facts of a period, put together by request. Pure, and small: some hundred bytes for each request."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from sys import intern
from zlib import crc32

from app.audit.facts import Answered, LedgerRow, OutcomeRow, Requested, Used
from app.audit.findings import Figures


@dataclass(slots=True)
class Attempt:
    """One attempt: its different usage records, and its row. `rows` may be more than one only by mistake."""

    number: int
    started: int
    month: str
    used: tuple[Used, ...] = ()
    row: LedgerRow | None = None
    rows: int = 0


@dataclass(slots=True)
class Life:
    """All that is known of one request. `asked` is 0 where no record of it lies in the period."""

    asked: int = 0
    due: int = 0
    waits: bool = False
    at_home: int = 0
    refused: int = 0
    answered_before: bool = False
    answers: tuple[Answered, ...] = ()
    outcomes: tuple[OutcomeRow, ...] = ()
    attempts: tuple[Attempt, ...] = ()

    def attempt(self, number: int) -> Attempt | None:
        return next((attempt for attempt in self.attempts if attempt.number == number), None)


@dataclass(frozen=True)
class Share:
    """Which of the requests: one of `of` parts of about the same size. A large period is read in several rounds."""

    number: int = 0
    of: int = 1

    def has(self, key: str) -> bool:
        return self.of == 1 or crc32(key.encode()) % self.of == self.number


@dataclass
class Books:
    """Takes facts in any order."""

    share: Share = Share()
    lives: dict[str, Life] = field(default_factory=dict)
    figures: Figures = field(default_factory=Figures)

    def request(self, fact: Requested) -> None:
        if not self.share.has(fact.key):
            return
        self.figures.note("request_records")
        life = self._life(fact.key)
        if not fact.home:
            self.figures.note("sent_on")
        # The first record is the request; a copy that was sent on comes later.
        life.asked = min(life.asked or fact.at, fact.at)
        life.due = max(life.due, fact.due)
        # One that admission has not read yet can have no answer, and the copy of one that was sent on neither.
        life.waits = life.waits or fact.waits
        life.at_home += fact.home
        life.refused += fact.refused

    def answer(self, fact: Answered) -> None:
        if not self.share.has(fact.key):
            return
        life = self._life(fact.key)
        known = next((answer for answer in life.answers if answer.meaning == fact.meaning), None)
        # Names are kept once, in the book: a copy in each fact would be half of its size.
        fact = fact._replace(key="")
        if known is None:
            life.answers = (*life.answers, fact)
            return
        self.figures.note("responses_again")
        if known.waits and not fact.waits:
            life.answers = tuple(fact if answer is known else answer for answer in life.answers)

    def usage(self, fact: Used) -> None:
        if not self.share.has(fact.key):
            return
        attempt = self._attempt(fact.key, fact.attempt, fact.started, fact.month)
        known = next((seen for seen in attempt.used if seen.version == fact.version), None)
        fact = fact._replace(key="", month="")
        if known is None:
            attempt.used = (*attempt.used, fact)
            return
        self.figures.note("usage_again")
        if known.waits and not fact.waits:
            attempt.used = tuple(fact if seen is known else seen for seen in attempt.used)

    def ledger_row(self, fact: LedgerRow) -> None:
        if not self.share.has(fact.key):
            return
        attempt = self._attempt(fact.key, fact.attempt, fact.started, fact.month)
        attempt.rows += 1
        if attempt.row is None or attempt.row.version < fact.version:
            attempt.row = fact._replace(key="", month="")

    def outcome_row(self, fact: OutcomeRow) -> None:
        if self.share.has(fact.key):
            life = self._life(fact.key)
            life.outcomes = (*life.outcomes, fact._replace(key=""))

    def answered_before(self, key: str) -> None:
        """A response from before the period: the request of the period was a repeat, and dropped."""
        if life := self.lives.get(key):
            life.answered_before = True

    def unanswered(self) -> Iterable[str]:
        """Requests without any response so far."""
        return (key for key, life in self.lives.items() if life.asked and not life.answers)

    def _life(self, key: str) -> Life:
        life = self.lives.get(key)
        if life is None:
            life = self.lives[key] = Life()
        return life

    def _attempt(self, key: str, number: int, started: int, month: str) -> Attempt:
        life = self._life(key)
        attempt = life.attempt(number)
        if attempt is None:
            attempt = Attempt(number, started, intern(month))
            life.attempts = (*life.attempts, attempt)
        return attempt


#: Since when a topic still holds the records of a workspace, in milliseconds since 1970.
HeldSince = Callable[[str], int]

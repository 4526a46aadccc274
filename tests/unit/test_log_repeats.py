"""A log that says the same over and over hides what matters."""

from __future__ import annotations

import logging

from app.log_repeats import BURST, INTERVAL, Repeats


class Log:
    """Loggers with the filter, and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.repeats = Repeats(lambda: self.now)
        self.lines: list[str] = []

    def say(
        self, words: str, *about: object, name: str = "streams.runtime.agents", level: int = logging.WARNING
    ) -> None:
        record = logging.LogRecord(name, level, "", 0, words, about, None)
        if self.repeats.filter(record):
            self.lines.append(record.getMessage())


def test_the_first_warnings_of_a_kind_are_written_and_the_others_counted() -> None:
    log = Log()
    for number in range(300):
        log.say("broker_refused: %s", number)
    assert log.lines == [f"broker_refused: {number}" for number in range(BURST)]
    log.now = INTERVAL
    log.say("broker_refused: %s", 300)
    log.say("broker_refused: %s", 301)
    assert log.lines[BURST:] == [
        f"broker_refused: 300 (and {300 - BURST} more of this kind that were left out)",
        "broker_refused: 301",
    ]


def test_kinds_do_not_share_their_room() -> None:
    log = Log()
    for _ in range(50):
        log.say("one: 100 %% of it")
        log.say("another")
        log.say("one: 100 %% of it", name="aiokafka.conn")
    assert len(log.lines) == 3 * BURST


def test_errors_of_our_own_and_what_is_told_of_single_requests_are_never_left_out() -> None:
    log = Log()
    for level in (logging.ERROR, logging.INFO):
        for number in range(100):
            log.say("dead_letter_lost: %s", number, level=level)
    assert len(log.lines) == 200


def test_a_librarys_errors_are_left_out_as_its_warnings_are() -> None:
    log = Log()
    for _ in range(100):
        log.say("Unable connect to node with id %s: %s", 1, "refused", name="aiokafka", level=logging.ERROR)
    assert len(log.lines) == BURST

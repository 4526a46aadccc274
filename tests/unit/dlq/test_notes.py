"""Two operators at the same letters: whatever the order of their steps, each letter is sent once."""

from __future__ import annotations

import copy
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from app.dlq.letters import Letter, Place
from app.dlq.notes import Note, Notes, State, read_note


def letter(offset: int = 1, buried_at: int = 5) -> Letter:
    return Letter(Place(0, offset), buried_at, "not_json", "", None, 1)


def note(state: State, run: str, of: Letter) -> Note:
    return Note(of.place, of.buried_at, state, run, "2026-11-25T12:00:00+00:00")


class Record:
    def __init__(self, key: bytes | None, value: bytes | None) -> None:
        self.key, self.value = key, value


def test_a_note_is_read_as_it_was_written_and_anything_else_is_none() -> None:
    written = note("done", "run", letter())
    assert read_note(Record(written.key(), written.value())) == written
    for key, value in ((b"x", written.value()), (written.key(), b"{}"), (None, None), (written.key(), b"[]")):
        assert read_note(Record(key, value)) is None


def test_a_letter_of_a_topic_that_was_made_anew_has_no_note() -> None:
    notes = Notes()
    notes.hear(note("done", "a", letter(buried_at=5)))
    assert notes.newest(letter(buried_at=5)) is not None
    assert notes.newest(letter(buried_at=6)) is None


class Operator:
    """Takes the steps of `LetterDesk._send`, one at a time, on a log that others write to as well."""

    def __init__(self, name: str, log: list[Note], sent: Counter[Place]) -> None:
        self.steps = self.work(name, log, sent)

    @staticmethod
    def work(name: str, log: list[Note], sent: Counter[Place]):  # type: ignore[no-untyped-def]
        one = letter()
        before = heard(log)
        yield
        if before.newest(one) is not None:
            return
        log.append(note("begun", name, one))
        yield
        after = heard(log)
        yield
        if after.has(one, name, before):
            sent[one.place] += 1
            yield
            log.append(note("done", name, one))


def heard(log: list[Note]) -> Notes:
    notes = Notes()
    for known in copy.copy(log):
        notes.hear(known)
    return notes


@given(st.lists(st.integers(0, 2), max_size=30))
def test_three_operators_at_once_send_a_letter_once(order: list[int]) -> None:
    log: list[Note] = []
    sent: Counter[Place] = Counter()
    operators = [Operator(name, log, sent) for name in "abc"]
    for turn in [*order, *[0] * 6, *[1] * 6, *[2] * 6]:
        next(operators[turn].steps, None)
    assert sent == {letter().place: 1}
    assert [known.state for known in log if known.state == "done"] == ["done"]

"""Which letters have been sent again: notes on a topic of one partition, so that all operators see one order.

A letter is noted as begun before it is sent and as done afterwards. Of two who begin the same letter, the one whose
note comes first has it. Who dies in between leaves a letter that is begun: whether it arrived, nobody knows, and it is
not sent again unless somebody says so. Pure but for `Notes.of`, which reads a record.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import orjson

from app.dlq.letters import Letter, Place

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiokafka import ConsumerRecord

State = Literal["begun", "done"]


@dataclass(frozen=True)
class Note:
    """`run` names who sends; `buried_at` tells a letter from one that had its place before the topic was made anew."""

    place: Place
    buried_at: int
    state: State
    run: str
    at: str

    def key(self) -> bytes:
        return str(self.place).encode()

    def value(self) -> bytes:
        return orjson.dumps({"buried_at": self.buried_at, "state": self.state, "run": self.run, "at": self.at})


def read_note(record: ConsumerRecord) -> Note | None:
    """None for what is no note."""
    try:
        body = orjson.loads(record.value or b"")
        place = Place.read((record.key or b"").decode())
        return Note(place, int(body["buried_at"]), body["state"], str(body["run"]), str(body["at"]))
    except (ValueError, KeyError, TypeError):
        return None


@dataclass
class Notes:
    """The notes in the order of their topic; those of each letter apart."""

    _known: dict[tuple[Place, int], list[Note]] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[ConsumerRecord]) -> Notes:
        notes = cls()
        for record in records:
            if (note := read_note(record)) is not None:
                notes.hear(note)
        return notes

    def hear(self, note: Note) -> None:
        self._known.setdefault((note.place, note.buried_at), []).append(note)

    def newest(self, letter: Letter) -> Note | None:
        """What was noted of a letter last."""
        known = self._known.get((letter.place, letter.buried_at))
        return known[-1] if known else None

    def has(self, letter: Letter, run: str, before: Notes) -> bool:
        """Whether a run may send a letter: its note is the first one that was not there before."""
        known = self._known.get((letter.place, letter.buried_at), [])
        earlier = {(note.run, note.state) for note in before._known.get((letter.place, letter.buried_at), [])}
        new = [note for note in known if (note.run, note.state) not in earlier]
        return bool(new) and new[0].run == run

"""The records of Kafka that the page needs, put together: what each says, and how much waits. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from aiokafka import ConsumerRecord, TopicPartition

from app.dlq.letters import Letter, Place, letter_of
from app.dlq.notes import Notes, read_note
from schemas.base import Event
from schemas.budget import BudgetState
from schemas.codec import UndecodableError, decode
from schemas.control import LaneState
from streams.budgets import BudgetBook
from streams.dispatch.control import ControlBoard
from streams.topology import BUDGET_STATE, BUDGETS, CONTROL, LANES, REDRIVES, Lane, dispatch_topic

AnyEvent = TypeVar("AnyEvent", bound=Event)

#: Dead letters that are shown.
LETTERS = 20
#: Seconds over which arrivals are counted.
MINUTE = 60.0

Offsets = Mapping[TopicPartition, int]


@dataclass
class Heard:
    """What the records of one connection say together. What is none of Spillway's changes nothing."""

    book: BudgetBook
    board: ControlBoard
    lanes: dict[str, LaneState] = field(default_factory=dict)
    states: dict[str, BudgetState] = field(default_factory=dict)
    letters: dict[Place, Letter] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)

    def hear(self, record: ConsumerRecord) -> None:
        if record.topic == LANES:
            _put(self.lanes, LaneState, record)
        elif record.topic == BUDGET_STATE:
            self._state(record)
        elif record.topic == BUDGETS:
            self.book.hear(record.key, record.value)
        elif record.topic == CONTROL:
            self.board.apply(record.key, record.value)
        elif record.topic == REDRIVES:
            if (note := read_note(record)) is not None:
                self.notes.hear(note)
        else:
            self._letter(letter_of(record))

    def _state(self, record: ConsumerRecord) -> None:
        """An older one may be left in the partition where the workspace was before there were more of them."""
        found: dict[str, BudgetState] = {}
        _put(found, BudgetState, record)
        for key, state in found.items():
            if key not in self.states or state.at >= self.states[key].at:
                self.states[key] = state

    def newest(self) -> tuple[Letter, ...]:
        found = sorted(self.letters.values(), key=lambda each: (each.buried_at, each.place), reverse=True)
        return tuple(found[:LETTERS])

    def _letter(self, letter: Letter) -> None:
        self.letters[letter.place] = letter
        if len(self.letters) > 10 * LETTERS:
            self.letters = {each.place: each for each in self.newest()}


def _put(known: dict[str, AnyEvent], model: type[AnyEvent], record: ConsumerRecord) -> None:
    key = (record.key or b"").decode(errors="replace")
    if record.value is None:
        known.pop(key, None)
        return
    try:
        known[key] = decode(model, record.value)
    except UndecodableError:
        return


def behind(committed: Offsets, ends: Offsets, starts: Offsets) -> dict[TopicPartition, int]:
    """Records of each partition that are not acknowledged. One that was never read waits from its start on."""
    return {place: max(end - committed.get(place, starts.get(place, 0)), 0) for place, end in ends.items()}


def by_lane(waiting: Offsets, lanes: Iterable[Lane]) -> dict[str, int]:
    """What waits in each lane's partition: the calls in flight are among it."""
    places = ((lane, TopicPartition(dispatch_topic(lane.provider), lane.partition)) for lane in lanes)
    return {lane.name: waiting[place] for lane, place in places if place in waiting}


def of_topics(waiting: Offsets, *topics: str) -> int:
    return sum(count for place, count in waiting.items() if place.topic in topics)


class Arrivals:
    """Records that came in the last minute, from how far a topic's end has moved."""

    def __init__(self) -> None:
        self._ends: deque[tuple[float, int]] = deque()

    def see(self, now: float, end: int) -> int | None:
        """`now` in seconds, `end` the sum of the topic's ends. None until it was watched for a minute."""
        if self._ends and end < self._ends[-1][1]:
            # The topic was made anew.
            self._ends.clear()
        self._ends.append((now, end))
        while len(self._ends) > 1 and now - self._ends[1][0] >= MINUTE:
            self._ends.popleft()
        first, began = self._ends[0]
        return end - began if now - first >= MINUTE else None

"""Records that were deleted before they were read: found, told, and only then committed over.

A topic's retention (and an operator's DeleteRecords) removes records whether or not they were read. A consumer whose
place lies before the log's start is told OffsetOutOfRange by the broker, and aiokafka moves it to the start without a
word to anybody. Here that one step is remembered (`Placed`): the place that was out of range, and the one that it was
moved to. That holds at an assignment, where the place is the committed offset, and later, where it is the next offset.

What is a gap, and what is none:

- Offsets that are missing *within* the log (compaction, the markers of transactions, aborted records) are none: the
  broker answers a fetch there with what comes next, and nobody is moved.
- A place *behind* the log's end (a topic that was made anew, a leader that had less) is none: it is moved back, and
  records are read again.
- A group without a committed offset reads from the earliest record. What was there before, and whether somebody has
  read it, nobody can say: no gap. So that there is an offset from the first moment on, readers commit the place where
  they begin, even where they have read nothing: else all that comes to a quiet partition while no worker runs could go
  unnoticed. Where the brokers have forgotten a group (offsets.retention.minutes), its gaps are unknown, too.
- A gap counts offsets. Markers of transactions have offsets as well, so the records may be fewer.
- Timers (`ai.ticks`) carry nothing that is not said again by the next one. All other inputs do, `ai.spend` included: a
  sum is replaced by a later one of its workspace, but there may be none.

A gap is told once: a line in the log, a dead letter, a metric; then it is acknowledged as a record is, so that the
group's committed offset passes it only after the broker has the letter. Who dies in between leaves it to the next owner
of the partition, whose letter has the same key (group, topic, partition, first offset).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from aiokafka.consumer import subscription_state
from aiokafka.errors import KafkaError
from faust.types import TP

from schemas.dead_letter import RECORDS_GONE, DeadLetter, Gap, Origin
from streams.metrics import NO_METRICS, Metrics
from streams.records import Record
from streams.runtime.deliveries import Deliveries
from streams.runtime.outbox import Outbox, UndeliverableError
from streams.topology import (
    BUDGET_ALERTS,
    DEAD_LETTERS,
    DISPATCH_PREFIX,
    REPORTS,
    REQUESTS,
    RESPONSES,
    SPEND,
    TICKS,
    USAGE,
)

log = logging.getLogger(__name__)

#: Seconds before a letter that was not taken is sent again.
RETRY = 1.0
#: Gaps that are known to be told; each partition that an accident hits has one.
REMEMBERED = 10_000
#: In the place of a record's timestamp, in Kafka's own words: none.
NO_TIMESTAMP = -1

#: A partition, as aiokafka names it, with the offset that was out of range and the log's start.
Jump = tuple[Any, int, int]


class Placed(subscription_state.TopicPartitionState):  # type: ignore[misc] # aiokafka has no types
    """aiokafka's state of an assigned partition, which remembers what it was moved over."""

    def __init__(self, assignment: Any) -> None:
        super().__init__(assignment)
        self._out_of_range: int | None = None
        self.jumps: list[tuple[int, int]] = []

    def await_reset(self, strategy: Any) -> None:
        # Of two resets in a row the first one knows the place.
        if self._position is not None:
            self._out_of_range = self._position
        super().await_reset(strategy)

    def reset_to(self, position: int) -> None:
        super().reset_to(position)
        before, self._out_of_range = self._out_of_range, None
        if before is not None and position > before:
            self.jumps.append((before, position))
            # Whoever asks does so at each fetch, and need not look through all partitions then.
            self._assignment.has_jumps = True

    def seek(self, position: int) -> None:
        super().seek(position)
        self._out_of_range = None


subscription_state.TopicPartitionState = Placed


def jumps(consumer: Any) -> list[Jump]:
    """What `consumer` was moved over since the last call."""
    subscription = consumer._subscription.subscription
    assignment = subscription.assignment if subscription is not None else None
    if assignment is None or not getattr(assignment, "has_jumps", False):
        return []
    assignment.has_jumps = False
    found = []
    for tp in assignment.tps:
        jumped: list[tuple[int, int]] = assignment.state_value(tp).jumps
        found += [(tp, before, after) for before, after in jumped]
        jumped.clear()
    return found


def carries_work(topic: str) -> bool:
    """Whether something is lost with a record of this input."""
    return topic != TICKS


class Gaps:
    """Which gaps of a group are to be told. Pure."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._under_way: set[Gap] = set()
        # In the order of telling.
        self._told: dict[Gap, None] = {}

    def new(self, found: Iterable[Jump]) -> list[Gap]:
        """Those that are neither told nor being told. A partition that is sought back jumps over the same again."""
        fresh = []
        for tp, before, after in found:
            gap = Gap(self._group, tp.topic, tp.partition, before, after - 1)
            if carries_work(gap.topic) and gap not in self._under_way and gap not in self._told:
                self._under_way.add(gap)
                fresh.append(gap)
        return fresh

    def told(self, gap: Gap) -> None:
        """The broker has its letter."""
        self._under_way.discard(gap)
        self._told[gap] = None
        if len(self._told) > REMEMBERED:
            del self._told[next(iter(self._told))]

    def given_up(self, gap: Gap) -> None:
        """Somebody else tells it; or this worker, if it gets the partition back."""
        self._under_way.discard(gap)


def letter(gap: Gap) -> Record:
    """The dead letter of a gap. There are no bytes to keep: the key names the gap, and headers its range."""
    origin = Origin(gap.topic, gap.partition, gap.first, NO_TIMESTAMP)
    headers = DeadLetter(origin, RECORDS_GONE, f"{gap.story}; {what_to_do(gap)}", None, None).to_headers()
    return Record(DEAD_LETTERS, gap.identity.encode(), None, (*headers, *gap.to_headers()))


_BY_TOPIC = {
    REQUESTS: "these requests were never seen here: let their senders publish them again",
    REPORTS: "answers and costs of calls are missing: compare with the provider's bill",
    SPEND: "thresholds that were crossed may be announced late, or not: `spillway budget list` says how months stand",
    USAGE: "the ledger lacks these attempts: compare with the provider's bill",
    RESPONSES: "the ledger's table outcomes lacks these answers",
    BUDGET_ALERTS: "the ledger's table alerts lacks these announcements",
}


def what_to_do(gap: Gap) -> str:
    """In half a sentence; the whole of it is in docs/runbook.md."""
    if gap.topic.startswith(DISPATCH_PREFIX):
        return "the requests that waited there are answered as expired; let their senders publish them again"
    if gap.topic == REQUESTS and gap.group.endswith("-ledger"):
        return "the ledger's table contents lacks their prompts"
    return _BY_TOPIC.get(gap.topic, "what they carried is lost")


@dataclass(eq=False)
class GapEnd:
    """An end of a gap, as a delivery: what is not acknowledged is not committed over."""

    tp: TP
    offset: int


@dataclass
class Gone:
    """Tells the gaps of one group. Used in the event loop of its consumer."""

    outbox: Outbox
    group: str
    metrics: Metrics = NO_METRICS
    retry: float = RETRY
    _telling: set[asyncio.Task[None]] = field(default_factory=set, init=False, repr=False)
    _left: list[Gap] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        self._gaps = Gaps(self.group)

    # For a consumer whose deliveries are acknowledged one by one ---------------------------------------------------

    def hold(self, consumer: Any, deliveries: Deliveries, is_input: Callable[[str], bool]) -> None:
        """Deliver what `consumer` was moved over, to be told in tasks. Call it, without a pause before, where records
        are handed over and where it is noted how far partitions are read: nothing beyond a gap is committed then.
        """
        for gap in self._gaps.new(jump for jump in jumps(consumer) if is_input(jump[0].topic)):
            tp = TP(gap.topic, gap.partition)
            ends = [GapEnd(tp, offset) for offset in sorted({gap.first, gap.last})]
            for end in ends:
                deliveries.add(end)
            task = asyncio.create_task(self._tell_until_told(gap, ends, deliveries))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _tell_until_told(self, gap: Gap, ends: list[GapEnd], deliveries: Deliveries) -> None:
        self._log(gap)
        while ends[0] in deliveries:
            try:
                await self._tell(gap)
            except (KafkaError, UndeliverableError, OSError) as error:
                log.warning("records_gone_untold: %s: %s", gap.place, type(error).__name__)
                await asyncio.sleep(self.retry)
            else:
                for end in ends:
                    deliveries.acknowledge(end)
                return
        self._gaps.given_up(gap)

    async def stop(self) -> None:
        """What is not told by now is told by the next owner of its partition."""
        for task in self._telling:
            task.cancel()
        if self._telling:
            await asyncio.wait(self._telling)

    # For a consumer that acknowledges batches ----------------------------------------------------------------------

    async def tell_all(self, consumer: Any) -> None:
        """Return when all that `consumer` was moved over is told. Raises what the producer does: call it again then,
        and commit nothing before.
        """
        fresh = self._gaps.new(jumps(consumer))
        for gap in fresh:
            self._log(gap)
        self._left += fresh
        if not self._left:
            return
        own = {(tp.topic, tp.partition) for tp in consumer.assignment()}
        while self._left:
            gap = self._left[0]
            if (gap.topic, gap.partition) in own:
                await self._tell(gap)
            else:
                self._gaps.given_up(gap)
            self._left.pop(0)

    # Telling -------------------------------------------------------------------------------------------------------

    def _log(self, gap: Gap) -> None:
        log.error("records_gone: %s: %s; %s", gap.place, gap.story, what_to_do(gap))

    async def _tell(self, gap: Gap) -> None:
        await self.outbox.publish(letter(gap))
        # Only now: what is told again by the next owner is counted there.
        self._gaps.told(gap)
        self.metrics.gone(gap.topic, gap.count)

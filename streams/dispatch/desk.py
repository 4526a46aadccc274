"""The desk of a lane: gives each waiting request its turn, or tells it to go elsewhere. Knows neither Kafka nor Faust.

A request waits until its lane can call (`Granted`), until waiting is of no use here (`PassOn`), until its deadline
(`TooLate`), or until this worker gives the lane up (`GivenUp`). Requests that have had an attempt here and wait for
their retry go first: they are few, and each holds a place in the log open.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from schemas.base import Priority
from schemas.control import Mode
from streams.commands import GONE_BACK, Place
from streams.dispatch.breaker import Caller, Circuit
from streams.dispatch.fairness import FairQueue, Waiting
from streams.dispatch.lane import Lane, Reservation
from streams.dispatch.ports import Answer, Failure
from streams.dispatch.quota import NEVER

#: A call's cost in a lane without limits, where only the number of calls at one time is scarce.
UNLIMITED_COST = 0.001
#: What a workspace may have used less than others, and is served before them for: this share of a minute's quota.
CREDIT = 0.1
#: Bytes of the requests that may wait in one lane's memory.
LOOK_AHEAD_BYTES = 64 * 1024 * 1024
#: A lane that reads on when its queue has shrunk to this share of its look-ahead: not at every single turn.
READ_ON = 0.75
#: Seconds by which a moment is certainly over.
A_MOMENT = 0.01
#: Seconds between two looks whether calls may be made again.
LOOK_AGAIN = 0.25
#: Who would be called less than so many seconds before its deadline does not wait for that if another provider can call
#: it earlier, and no more than so many go there at one time: that one has said how it stands a moment ago.
BACK_IN_TIME = 10.0
BACK_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Granted:
    """The call may be made, now; the reservation ends with `Desk.settle` or `Desk.release`."""

    reservation: Reservation


@dataclass(frozen=True, slots=True)
class PassOn:
    """This lane will not call in time. `reason` is a key of `decide.REASONS`, or GONE_BACK."""

    reason: str


@dataclass(frozen=True, slots=True)
class TooLate:
    """The deadline has passed, and nothing was paid."""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """This worker no longer owns the lane."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Nobody wants the answer any more, and nothing was paid."""


Turn = Granted | PassOn | TooLate | GivenUp | Cancelled
Call = Callable[[Turn], None]


@dataclass(slots=True, eq=False)
class Visitor:
    """One who waits. `call` is told the turn, once."""

    place: Place
    call: Call


Item = Waiting[Visitor]


class Desk:
    """One lane's waiting room. Every method that may give turns does so before it returns.

    `clock` gives seconds since 1970; `wake_at` is asked to call `serve` at a moment; `look_ahead` is how many may wait,
    and `look_ahead_bytes` how large they may be together, before `reading` is told to stop (False) and later to go on
    (True); `jitter` draws from [0, 1); `may_call` says whether this worker may make calls at the moment.
    """

    def __init__(
        self,
        lane: Lane,
        *,
        clock: Callable[[], float],
        wake_at: Callable[[float], None],
        reading: Callable[[bool], None],
        jitter: Callable[[], float],
        look_ahead: int = 20_000,
        look_ahead_bytes: int = LOOK_AHEAD_BYTES,
        weight: Callable[[str], float] = lambda _: 1.0,
        may_call: Callable[[], bool] = lambda: True,
    ) -> None:
        self.lane = lane
        self._may_call = may_call
        self._clock = clock
        self._wake_at = wake_at
        self._reading = reading
        self._jitter = jitter
        self._look_ahead = look_ahead
        self._look_ahead_bytes = look_ahead_bytes
        self._queue: FairQueue[Visitor] = FairQueue(weight, CREDIT)
        self._tickets = count()
        #: Those who may go elsewhere, by deadline.
        self._movable: list[tuple[float, int, Item]] = []
        #: Those who wait for a retry, by the moment before which they must not be called.
        self._returning: list[tuple[float, int, Item]] = []
        #: How many wait for another one to be over, and their bytes.
        self._beside = self._beside_bytes = 0
        self._is_reading = True
        self._given_up = False
        #: Whether there may be some who wait that can go back to other providers.
        self._may_go_back = False

    @property
    def waiting(self) -> int:
        return len(self._queue) + len(self._returning)

    # Arrivals ------------------------------------------------------------------------------------------------------

    def arrive(self, place: Place, call: Call, size: int = 0) -> Item | None:
        """A request of `size` bytes has come. Returns its place in the queue, unless it has had its turn already."""
        now = self._clock()
        if refused := self._turned_away(place, now):
            call(refused)
            return None
        visitor = Visitor(place, call)
        item = Waiting(place.workspace, place.priority, self._cost(place), place.deadline, now, visitor, size)
        self._queue.push(item)
        self._may_go_back |= bool(place.back)
        if place.has_fallback:
            heapq.heappush(self._movable, (place.deadline, next(self._tickets), item))
        self._stop_reading_when_full()
        self.serve()
        return item

    def come_again(self, place: Place, call: Call, not_before: float) -> Item | None:
        """A request whose attempt has failed waits for the next one."""
        now = self._clock()
        if refused := self._turned_away(place, now):
            call(refused)
            return None
        item = Waiting(place.workspace, place.priority, self._cost(place), place.deadline, now, Visitor(place, call))
        heapq.heappush(self._returning, (not_before, next(self._tickets), item))
        self.serve()
        return item

    def cancel(self, item: Item) -> None:
        """Nobody wants it any more. Nothing happens if it has had its turn."""
        if item.gone:
            return
        returning = [entry for entry in self._returning if entry[2] is not item]
        if len(returning) < len(self._returning):
            heapq.heapify(returning)
            self._returning, item.gone = returning, True
        else:
            self._queue.remove(item)
        item.payload.call(Cancelled())
        self.serve()

    def _turned_away(self, place: Place, now: float) -> Turn | None:
        if self._given_up:
            return GivenUp()
        if place.deadline <= now:
            return TooLate()
        reason = self._refusal(place, now)
        return PassOn(reason) if reason else None

    def _cost(self, place: Place) -> float:
        """The share of the scarcer limit that a call takes."""
        limits = self.lane.effective
        requests = 1.0 / limits.rpm if limits.rpm else 0.0
        tokens = place.tokens / limits.tpm if limits.tpm else 0.0
        return max(requests, tokens) or UNLIMITED_COST

    def _refusal(self, place: Place, now: float) -> str | None:
        """Why this request should not wait here, if there is a reason."""
        lane = self.lane
        if lane.mode is not Mode.OPEN:
            return str(lane.mode) if place.has_fallback else None
        if self._is_cut_off(place, now):
            return "circuit_open"
        if not place.has_fallback:
            return None
        ahead = self._queue.ahead_of(place.workspace, place.priority) + len(self._returning)
        wait = lane.wait_for(ahead, place.tokens, now)
        return "too_busy" if now + wait + lane.latency > place.deadline else None

    def _is_cut_off(self, place: Place, now: float) -> bool:
        """Whether the open circuit sends this request away.

        One that can go elsewhere goes. Of the others an interactive one is told at once, because somebody waits for
        it; any other waits for the probe, if its deadline allows: an outage of a minute fails no batch.
        """
        breaker = self.lane.breaker
        ready = breaker.ready_at(now, place.key)
        if ready is not None and ready <= now:
            return False  # The circuit is closed, or it may be the probe.
        if place.has_fallback or place.priority is Priority.INTERACTIVE:
            return True
        probe = breaker.ready_at(now)
        return probe is not None and probe + self.lane.latency > place.deadline

    # Turns ---------------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Give every turn that can be given now, and ask to be woken for the next one."""
        while not self._given_up:
            now = self._clock()
            for item in self._queue.due(now):
                item.payload.call(TooLate())
            first = self._next(now)
            if first is None:
                self._sleep_until(NEVER)
                break
            if not self._may_call():
                # Asked before each turn: one who wakes from a stand-still finds many that could be given at once.
                self._send_away_before(now, now)
                self._expire_returning(now)
                self._sleep_until(min(now + LOOK_AGAIN, self._next_to_send_away()))
                break
            light = self._queue.is_light(first)
            # A retry that waited for others' pace would hold up those behind it, light ones among them.
            failed = first.payload.place.key if self._is_returning(first) else None
            ready = self.lane.ready_at(
                first.payload.place.tokens, now, light=light or failed is not None, failed=failed
            )
            beside, other = self._one_beside(first, ready, now) if ready > now else (NEVER, None)
            if other and beside <= now:
                self._queue.take(other)
                other.payload.call(Granted(self._reserve(other, now)))
            elif ready > now:
                # Where all calls that may be made are on their way, one may end at any moment.
                self._send_away_before(now if ready == NEVER else ready, now)
                self._expire_returning(now)
                self._sleep_until(min(ready, beside, self._next_to_send_away()))
                break
            else:
                self._take(first, now)
                first.payload.call(Granted(self._reserve(first, now, light=light)))
        self._forget_who_left()
        self._read_on_when_there_is_room()

    def _stop_reading_when_full(self) -> None:
        if not self._given_up and self._is_reading and self._fullness() >= 1.0:
            self._is_reading = False
            self._reading(False)

    def _read_on_when_there_is_room(self) -> None:
        if not self._given_up and not self._is_reading and self._fullness() <= READ_ON:
            self._is_reading = True
            self._reading(True)

    def _forget_who_left(self) -> None:
        """Those who had their turn would stay among those who may go elsewhere until their deadlines."""
        if len(self._movable) > 2 * len(self._queue) + 64:
            self._movable = [entry for entry in self._movable if not entry[2].gone]
            heapq.heapify(self._movable)

    def _fullness(self) -> float:
        """The share of the look-ahead that is taken."""
        waiting, size = len(self._queue) + self._beside, self._queue.bytes + self._beside_bytes
        return max(waiting / self._look_ahead, size / self._look_ahead_bytes)

    def _one_beside(self, first: Item, ready: float, now: float) -> tuple[float, Item | None]:
        """One with fewer tokens that may go while the first waits for its own, without making it wait longer: the one
        that may go soonest, and when.
        """
        found: tuple[float, Item | None] = NEVER, None
        if self.lane.mode is not Mode.OPEN or ready == NEVER:
            return found
        need = first.payload.place.tokens
        for item in self._queue.beside(first):
            tokens = item.payload.place.tokens
            moment = self.lane.ready_beside(need, ready, tokens, now) if tokens < need else NEVER
            if moment < found[0]:
                found = moment, item
            if moment <= now:
                break
        return found

    def _reserve(self, item: Item, now: float, *, light: bool = False) -> Reservation:
        place = item.payload.place
        return self.lane.reserve(Caller(place.key, place.workspace), place.tokens, now, light=light)

    def _next(self, now: float) -> Item | None:
        returning = self._next_returning(now)
        if returning is None or self.lane.circuit(now) is Circuit.CLOSED:
            return returning or self._queue.peek(now)
        # A failure may be the request's own fault: as a probe it would keep the circuit open for all others.
        return self._queue.peek(now) or returning

    def _next_returning(self, now: float) -> Item | None:
        while self._returning and self._returning[0][0] <= now:
            item = self._returning[0][2]
            if item.deadline > now:
                return item
            # The worker, or its lane, has stood still.
            heapq.heappop(self._returning)[2].gone = True
            item.payload.call(TooLate())
        return None

    def _is_returning(self, item: Item) -> bool:
        return bool(self._returning) and self._returning[0][2] is item

    def _take(self, item: Item, now: float) -> None:
        if self._is_returning(item):
            heapq.heappop(self._returning)[2].gone = True
        else:
            self._queue.pop(now)

    def _sleep_until(self, ready: float) -> None:
        """Until the lane can call again, a retry may be made, or a deadline passes: whatever is first."""
        deadline = self._queue.next_deadline()
        now = self._clock()
        retries = [not_before for not_before, _, _ in self._returning if not_before > now]
        deadlines = [item.deadline for _, _, item in self._returning]
        moment = min([ready, *retries, *deadlines, *([] if deadline is None else [deadline])])
        if moment < NEVER:
            self._wake_at(moment)

    def _expire_returning(self, now: float) -> None:
        late = [entry for entry in self._returning if entry[2].deadline <= now]
        if late:
            self._returning = [entry for entry in self._returning if entry[2].deadline > now]
            heapq.heapify(self._returning)
        for _, _, item in late:
            item.gone = True
            item.payload.call(TooLate())

    def _send_away_before(self, ready: float, now: float) -> None:
        """Those who can go elsewhere and cannot make it here any more, if a call may be made at `ready`."""
        if self.lane.mode is not Mode.OPEN:
            return
        horizon = ready + self.lane.latency
        while self._movable and (self._movable[0][0] < horizon or self._movable[0][2].gone):
            item = heapq.heappop(self._movable)[2]
            if not item.gone and item.deadline > now:
                self._queue.remove(item)
                item.payload.call(PassOn("too_busy"))

    def _next_to_send_away(self) -> float:
        """When the first of them could not make it any more, though a call were made at once."""
        if self.lane.mode is not Mode.OPEN or not self._movable:
            return NEVER
        return self._movable[0][0] - self.lane.latency + A_MOMENT

    # Ends ----------------------------------------------------------------------------------------------------------

    def send(self, held: Reservation) -> bool:
        """A call goes out now; False: it must not, because there is no room for it any more. See `Lane.send`."""
        return self.lane.send(held, self._clock())

    def settle(self, held: Reservation, result: Answer | Failure) -> None:
        """A call has ended."""
        now = self._clock()
        if self.lane.settle(held, result, now, self._jitter()):
            self._evacuate(lambda place: "circuit_open" if self._is_cut_off(place, now) else None)
        self.serve()

    def release(self, held: Reservation) -> None:
        """A call was not made after all."""
        self.lane.release(held, self._clock())
        self.serve()

    def send_back(self, wait_at: Callable[[str], float | None]) -> None:
        """Those that cannot make it here go back to a provider that has passed them on, and can call them by now.

        `wait_at` is how many seconds one would wait at another provider; None: nobody knows.
        """
        if not self._may_go_back:
            return
        now, ahead, gone = self._clock(), 0, 0
        items = self._queue.items()
        names = {name for item in items for name in item.payload.place.back}
        self._may_go_back = bool(names)
        waits = {name: wait for name in names if (wait := wait_at(name)) is not None}
        for item in items:
            place = item.payload.place
            soonest = min((waits[name] for name in place.back if name in waits), default=NEVER)
            latest = place.deadline - BACK_IN_TIME
            is_in_time = now + self.lane.wait_for(ahead, place.tokens, now) + self.lane.latency <= latest
            if is_in_time or now + soonest > latest or gone == BACK_AT_ONCE:
                ahead += 1
                continue
            gone += 1
            self._queue.remove(item)
            item.payload.call(PassOn(GONE_BACK))
        if gone:
            self.serve()

    def set_mode(self, mode: Mode) -> None:
        """The operator's wish."""
        self.lane.mode = mode
        if mode is Mode.DRAINING:
            self._evacuate(lambda place: "draining" if place.has_fallback else None)
        self.serve()

    def hold(self, held: bool) -> None:
        """This worker makes no new calls for now, or does so again."""
        self.lane.is_held = held
        self.serve()

    def keep_beside(self, size: int) -> None:
        """A request of `size` bytes waits for another one of this lane to be over. It counts for what may wait."""
        self._beside += 1
        self._beside_bytes += size
        self._stop_reading_when_full()

    def let_go(self, size: int) -> None:
        """It waits no longer."""
        self._beside -= 1
        self._beside_bytes -= size
        self._read_on_when_there_is_room()

    def give_up(self) -> None:
        """This worker no longer owns the lane."""
        self._given_up = True
        items = [*self._queue.clear(), *(entry[2] for entry in self._returning)]
        self._returning, self._movable = [], []
        for item in items:
            item.gone = True
            item.payload.call(GivenUp())

    def _evacuate(self, reason_for: Callable[[Place], str | None]) -> None:
        """Send away all for whom there is a reason; the others keep their places."""
        returning = [(entry, reason_for(entry[2].payload.place)) for entry in self._returning]
        self._returning = [entry for entry, reason in returning if reason is None]
        heapq.heapify(self._returning)
        queued = [(item, reason_for(item.payload.place)) for item in self._queue.items()]
        leaving = [*((entry[2], reason) for entry, reason in returning), *queued]
        for item, reason in queued:
            if reason is not None:
                self._queue.remove(item)
        for item, reason in leaving:
            if reason is not None:
                item.gone = True
                item.payload.call(PassOn(reason))

"""The lanes that this worker owns: each with its desk, its memory and its alarm, and what it says of itself."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from aiokafka.errors import KafkaError

from schemas.codec import encode
from schemas.control import LaneState, LimitState
from streams.dispatch.control import ControlBoard
from streams.dispatch.decide import RetryPolicy
from streams.dispatch.desk import LOOK_AHEAD_BYTES, Desk
from streams.dispatch.lane import Lane, Reservation
from streams.dispatch.memory import LaneMemory, Row
from streams.dispatch.ownership import Ownership
from streams.dispatch.ports import MINUTE, Answer, Failure
from streams.dispatch.quota import NEVER
from streams.outlook import LaneBoard
from streams.records import Record
from streams.runtime.lives import Life
from streams.runtime.outbox import Outbox, UndeliverableError, has_failed
from streams.runtime.tables import DurableTable
from streams.runtime.transport import DrainSignal
from streams.topology import LANES
from streams.topology import Lane as LanePlace

log = logging.getLogger(__name__)

#: Seconds between two words of a lane that has something new to say, and of one that has not.
SAY_NEWS = 1.0
SAY_ALIVE = 5.0


def _every_weight(_: str) -> float:
    return 1.0


@dataclass(frozen=True)
class DispatchConfig:
    """`in_flight` is the number of calls at once in one lane, `look_ahead` of requests that may wait in its desk, and
    `look_ahead_bytes` what they may have together.

    `weight` is a workspace's share of a lane, in proportion to the others'; `chunk_interval` is the seconds between
    two chunks of a streamed answer; `known_for` is the seconds for which a request id is known; `minute` is the seconds
    of the minute that limits and circuits count in.
    """

    retry: RetryPolicy
    in_flight: int = 64
    look_ahead: int = 20_000
    look_ahead_bytes: int = LOOK_AHEAD_BYTES
    chunk_interval: float = 0.05
    known_for: float = math.inf
    weight: Callable[[str], float] = _every_weight
    minute: float = MINUTE


#: Goes on or stops reading a lane's partition: what is not read waits in Kafka, and costs no memory.
Read = Callable[[LanePlace, bool], None]


class Alarm:
    """Calls a function at the moment that was asked for last, in seconds since 1970."""

    def __init__(self, ring: Callable[[], None], clock: Callable[[], float]) -> None:
        self._ring = ring
        self._clock = clock
        self._set: asyncio.TimerHandle | None = None

    def at(self, moment: float) -> None:
        self.off()
        # A timer may ring a little early by the other clock; a moment later costs nothing.
        delay = max(moment - self._clock(), 0.0) + 0.001
        self._set = asyncio.get_running_loop().call_later(min(delay, 3600.0), self._ring)

    def off(self) -> None:
        if self._set is not None:
            self._set.cancel()
            self._set = None


@dataclass
class Station:
    """A lane as this worker owns it, in one life of its partition."""

    place: LanePlace
    desk: Desk
    memory: LaneMemory
    alarm: Alarm
    said: LaneState | None = None

    @property
    def life(self) -> Life:
        return self.memory.life

    @property
    def lane(self) -> Lane:
        return self.desk.lane


class Stations:
    """The lanes that this worker owns, each made when its first command arrives or when it is said how it stands.

    They are left at a drain, or when their partitions are lost. Calls go on; a lane that is taken over again knows
    those that are still on the wire. `owned` are the lanes whose partition and tables the worker has at the moment.
    """

    def __init__(
        self,
        *,
        owned: Callable[[], Iterable[LanePlace]],
        read: Read,
        drain: DrainSignal,
        config: DispatchConfig,
        control: ControlBoard,
        table: DurableTable[Row],
        outbox: Outbox,
        clock: Callable[[], datetime],
        ownership: Ownership,
        board: LaneBoard,
    ) -> None:
        self._board = board
        self._owned = owned
        self._read = read
        self._drain = drain
        self._config = config
        self._control = control
        self._table = table
        self._outbox = outbox
        self._clock = clock
        self._stations: dict[str, Station] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._held_for: set[str] = set()
        self._ownership = ownership
        #: The calls on the wire by their lanes' names, of earlier lives too.
        self._on_the_wire: defaultdict[str, list[Reservation]] = defaultdict(list)
        drain.on_drain(self.leave)
        ownership.on_end(self.leave)

    def now(self) -> float:
        return self._clock().timestamp()

    def find(self, place: LanePlace) -> Station | None:
        """The lane's station; a new one goes on where the lane's earlier owner stopped. None where the lane is not this
        worker's.
        """
        life = self._ownership.life(place.partition)
        if life is None:
            return None
        station = self._stations.get(place.name)
        if station is None or station.life != life:
            station = self._stations[place.name] = self._open(place, life)
        return station

    def _open(self, place: LanePlace, life: Life) -> Station:
        lane = Lane(
            self._control.limits_for(place),
            concurrency=self._config.in_flight,
            shards=place.shards,
            mode=self._control.mode_for(place),
            minute=self._config.minute,
            is_held=bool(self._held_for),
        )
        memory = LaneMemory(lane, place.name, life, self._table)
        memory.restore(self.now())
        lane.resume(self._control.resumed_at(place))
        for held in self._on_the_wire.get(place.name, ()):
            lane.adopt(held)
        # The two know each other: the alarm is set by the desk, which it wakes.
        alarm = Alarm(lambda: desk.serve(), self.now)  # noqa: PLW0108
        desk = Desk(
            lane,
            clock=self.now,
            wake_at=alarm.at,
            reading=partial(self._read, place),
            jitter=random.random,
            look_ahead=self._config.look_ahead,
            look_ahead_bytes=self._config.look_ahead_bytes,
            weight=self._config.weight,
            may_call=partial(self._ownership.may_call, life),
        )
        return Station(place, desk, memory, alarm)

    def leave(self) -> None:
        """The worker gives its partitions up: whoever waits is somebody else's now."""
        stations, self._stations = self._stations, {}
        for station in stations.values():
            station.alarm.off()
            station.desk.give_up()
            closing = asyncio.get_running_loop().create_task(station.memory.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closed)

    # Calls ---------------------------------------------------------------------------------------------------------

    def begin(self, station: Station, held: Reservation) -> None:
        """A call goes on the wire. It ends with `end`."""
        self._on_the_wire[station.place.name].append(held)
        present = self._stations.get(station.place.name)
        if present is not None and present is not station:
            present.lane.adopt(held)

    async def end(self, station: Station, held: Reservation, result: Answer | Failure | None) -> None:
        """A call is not on the wire any more, or has not been there (None). `station` is where its turn was given.

        Where the lane is another worker's by now, nothing is to be said of it; where it has come back, it is told in
        its present life.
        """
        calls = self._on_the_wire[station.place.name]
        if held in calls:
            calls.remove(held)
        if not calls:
            del self._on_the_wire[station.place.name]
        present = self._stations.get(station.place.name)
        if present is None:
            return
        if result is None:
            present.desk.release(held)
        else:
            present.desk.settle(held, result)
            await present.memory.note()

    def _closed(self, closing: asyncio.Task[None]) -> None:
        self._closing.discard(closing)
        if not closing.cancelled() and (error := closing.exception()) is not None:
            # A successor then takes what was claimed ahead for spent.
            log.warning("lane_not_closed: %s", type(error).__name__)

    def hold(self, held: bool, why: str = "reports wait for the broker") -> None:
        """Make no new calls in any lane, or make them again. Each reason ends for itself."""
        (self._held_for.add if held else self._held_for.discard)(why)
        for station in list(self._stations.values()):
            station.desk.hold(bool(self._held_for))

    def apply_control(self) -> None:
        """The operator has set something."""
        for station in self._stations.values():
            limits, mode = self._control.limits_for(station.place), self._control.mode_for(station.place)
            if limits != station.lane.limits:
                station.lane.set_limits(limits)
                log.info("lane_limits: %s: %s", station.place.name, limits)
            if mode != station.lane.mode:
                log.info("lane_mode: %s: %s", station.place.name, mode)
            station.lane.resume(self._control.resumed_at(station.place))
            station.desk.set_mode(mode)

    def send_back(self) -> None:
        """Those that cannot be called here in time go back to providers that can by now. Call it every second or so."""
        for station in list(self._stations.values()):
            station.desk.send_back(lambda provider: self._board.known_wait(provider, self._clock()))

    def states(self) -> list[LaneState]:
        """How each lane stands now."""
        now = self._clock()
        return [lane_state(station, now) for station in self._stations.values()]

    async def announce(self) -> None:
        """Say how each lane stands, one without work included, when that has changed, until cancelled."""
        while True:
            await asyncio.sleep(SAY_NEWS)
            if not self._drain.draining:
                for place in self._owned():
                    # A lane without work is opened, too.
                    self.find(place)
            self.send_back()
            now = self._clock()
            for station in list(self._stations.values()):
                state = lane_state(station, now)
                if station.said is None or _is_news(station.said, state):
                    station.said = state
                    await self._say(Record(LANES, state.lane.encode(), encode(state), partition=0))

    async def _say(self, record: Record) -> None:
        """Nobody waits for it, and nothing is lost with it: the next word follows in seconds."""
        try:
            said = await self._outbox.post(record)
        except (KafkaError, UndeliverableError) as error:
            log.warning("lane_unsaid: %s", type(error).__name__)
        else:
            said.add_done_callback(has_failed)


def lane_state(station: Station, now: datetime) -> LaneState:
    """What a lane says of itself."""
    lane, moment = station.lane, now.timestamp()
    used, limits = lane.used(moment), lane.effective
    wait = lane.wait_for(station.desk.waiting, lane.usual_tokens, moment)
    probe_at = lane.breaker.probe_at
    return LaneState(
        lane=station.place.name,
        provider=station.place.provider,
        mode=lane.mode,
        circuit=lane.circuit(moment).value,
        waiting=station.desk.waiting,
        in_flight=lane.in_flight,
        wait=None if wait == NEVER else round(wait, 3),
        paused_until=_moment(lane.paused_until) if lane.paused_until > moment else None,
        reopens_at=_moment(probe_at) if probe_at is not None else None,
        rpm=LimitState(used=used.rpm or 0, limit=limits.rpm),
        rph=LimitState(used=used.rph or 0, limit=limits.rph),
        tpm=LimitState(used=used.tpm or 0, limit=limits.tpm),
        tph=LimitState(used=used.tph or 0, limit=limits.tph),
        at=now,
    )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _is_news(said: LaneState, state: LaneState) -> bool:
    quiet = (state.at - said.at).total_seconds() < SAY_ALIVE
    return not quiet or state.model_copy(update={"at": said.at}) != said

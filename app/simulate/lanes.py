"""The lanes whose limits are proposed, each with its real desk, by a clock that jumps."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count

from app.simulate.history import Past
from streams.dispatch.desk import Desk
from streams.dispatch.lane import Lane
from streams.dispatch.quota import Limits
from streams.topology import Lane as LaneName
from streams.topology import Topology

Action = Callable[[], None]


class Clock:
    """Virtual time, in seconds since 1970: what is due next happens next, and no time passes in between."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Action]] = []
        self._tickets = count()

    def at(self, moment: float, action: Action) -> None:
        heapq.heappush(self._events, (max(moment, self.now), next(self._tickets), action))

    def run(self) -> None:
        """Until nothing is left to happen."""
        while self._events:
            self.now, _, action = heapq.heappop(self._events)
            action()


@dataclass
class Alarm:
    """Wakes a desk; a later wish takes the place of an earlier one."""

    clock: Clock
    ring: Action = field(default=lambda: None)
    _due: float | None = None

    def wake_at(self, moment: float) -> None:
        if moment != self._due:
            self._due = moment
            self.clock.at(moment, lambda: self._ring_if(moment))

    def _ring_if(self, moment: float) -> None:
        if moment == self._due:
            self._due = None
            self.ring()


@dataclass(frozen=True)
class LaneRules:
    """How the deployment's lanes are made. `limits` are by quota; a lane of any other quota is not simulated."""

    topology: Topology
    limits: Mapping[str, Limits]
    concurrency: int
    look_ahead: int
    weights: Mapping[str, float]


class Lanes:
    """Desks by lane, made when the first request comes to one."""

    def __init__(self, rules: LaneRules, clock: Clock) -> None:
        self._rules = rules
        self._clock = clock
        self._desks: dict[LaneName, Desk] = {}

    def desk_for(self, past: Past, number: int) -> Desk | None:
        """Where an attempt waits for its turn; None where its lane's limits stay as they were."""
        usage = past.attempts[number]
        lane = self._rules.topology.lane(usage.provider, usage.model, past.workspace, past.request_id)
        if lane.quota not in self._rules.limits:
            return None
        if lane not in self._desks:
            self._desks[lane] = self._desk(lane)
        return self._desks[lane]

    def _desk(self, lane: LaneName) -> Desk:
        rules, alarm = self._rules, Alarm(self._clock)
        limits = rules.limits[lane.quota].shard(lane.shard, lane.shards)
        desk = Desk(
            Lane(limits, concurrency=rules.concurrency, shards=lane.shards),
            clock=lambda: self._clock.now,
            wake_at=alarm.wake_at,
            reading=lambda _: None,
            # The middle of the spread: the same history ends the same way each time.
            jitter=lambda: 0.5,
            look_ahead=rules.look_ahead,
            weight=lambda workspace: rules.weights.get(workspace, 1.0),
        )
        alarm.ring = desk.serve
        return desk

"""One seed, one history: requests, workers, faults at random moments, and then calm until nothing waits any more."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from unittest import mock

import orjson

from schemas.cancellation import Cancellation
from schemas.codec import encode
from schemas.control import Mode
from schemas.usage import Tokens
from streams.dispatch import crew
from streams.dispatch.ports import NOT_SENT, Answer, Call, Delta, ErrorClass, Failure, Tell
from streams.dispatch.quota import Limits
from streams.records import Record
from streams.sharing import CachePolicy
from streams.topology import REPORTS, REQUESTS
from tests.simulation.broker import START, TP, Broker, refused
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.stores import Disk
from tests.simulation.worker import INPUTS, PROVIDERS, REPLIES_TO, TABLES, TOPOLOGY, Deployment, Worker

#: Seconds in which requests are published and faults begin.
BUSY = 40.0
#: Seconds after which everything has been answered, or never will be: the longest deadline and what follows it.
PATIENCE = 900.0
WORKSPACES = ("acme", "globex", "initech", "umbrella")

RESULTS: tuple[tuple[int, Answer | Failure], ...] = (
    (70, Answer("hello", "m-1", "stop", Tokens(prompt_tokens=3, completion_tokens=5))),
    (6, Failure(ErrorClass.RETRYABLE, "rate_limited", "slow down", retry_after=1.0)),
    (6, Failure(ErrorClass.RETRYABLE, "truncated", "cut off", may_be_billed=True)),
    (6, Failure(ErrorClass.RETRYABLE, "server_error", "no")),
    (4, Failure(ErrorClass.FALL_BACK, "bad_key", "no")),
    (4, Failure(ErrorClass.TERMINAL, "invalid_request", "no")),
)


@dataclass(eq=False)
class Made:
    """A call that reached the provider. Times are seconds of the history."""

    attempt: str
    worker: Worker
    begun_at: float
    ended_at: float | None = None


@dataclass
class Told:
    """What happened, in words, for whoever looks for the reason of a failure."""

    lines: list[str] = field(default_factory=list)

    def say(self, at: float, words: str) -> None:
        self.lines.append(f"{at:8.3f} {words}")


class SimulatedProvider:
    """Implements dispatch.ports.Provider: takes its time, and answers as the dice say."""

    kinds = frozenset({"completion"})
    timeout = 60.0

    def __init__(self, history: History, process: Process, name: str) -> None:
        self.name = name
        self._history = history
        self._process = process

    def model_for(self, _: object) -> str:
        return f"{self.name}-1"

    async def call(self, call: Call, tell: Tell | None = None) -> Answer | Failure:
        history = self._history
        if not call.may_send():
            return NOT_SENT
        made = history.begin(self._process, call.attempt_id)
        dice = random.Random(f"{history.seed}/{call.attempt_id}/{len(history.journal)}")  # noqa: S311
        seconds = dice.uniform(20.0, 60.0) if dice.random() < history.long_calls else dice.uniform(*history.latency)
        is_late = seconds > call.timeout
        for _ in range(3):
            await asyncio.sleep(min(seconds, max(call.timeout, 0.0)) / 3)
            if tell is not None:
                await tell(Delta("hel"))
        made.ended_at = history.loop.time()
        if is_late:
            return Failure(ErrorClass.RETRYABLE, "timeout", "too late", may_be_billed=True)
        weights, results = zip(*history.results, strict=True)
        chosen: Answer | Failure = dice.choices(results, weights)[0]
        return chosen

    async def close(self) -> None: ...


class History:
    """Runs one seed. `requests` is how many there are, `accidents` the names of what may happen, and `more` is what
    else is said of it (attributes by name); where they are not given the dice say it.
    """

    def __init__(
        self, seed: int, *, requests: int | None = None, accidents: tuple[str, ...] | None = None, **more: Any
    ) -> None:
        self.seed = seed
        self.dice = dice = random.Random(seed)  # noqa: S311 - a die, and nothing secret
        self.loop = VirtualLoop()
        # Of its own: whatever the product asks the broker more or less, the accidents are the same.
        self.broker = Broker(self.loop, random.Random(f"{seed}/network"), TOPOLOGY.partitions)  # noqa: S311
        self.told = Told()
        self.journal: list[Made] = []
        self.published: dict[str, str] = {}
        self.workers: dict[str, Worker] = {}
        self.processes: list[Process] = []
        self.ends: dict[str, list[float]] = {}
        self.disks: dict[str, Disk] = {}
        self._incarnations = 0
        self.long_calls = dice.choice((0.0, 0.0, 0.1, 0.4))
        self.latency = dice.choice(((0.05, 2.0), (0.05, 2.0), (0.01, 0.1)))
        self.in_bursts = dice.random() < 0.7
        self.closable, self.results = CLOSABLE, RESULTS
        #: What operators have set, by provider.
        self._modes: dict[str, Mode] = {}
        limits = dice.choice((Limits(), Limits(), Limits(rpm=60), Limits(rpm=30, tpm=200_000)))
        self.deployment = Deployment(
            limits,
            drain_timeout=dice.choice((2.0, 20.0)),
            cache=CachePolicy(enabled=dice.random() < 0.5),
            sweep_interval=30.0,
        )
        self._requests = dice.randint(5, 45) if requests is None else requests
        self._accidents = FAULTS if accidents is None else tuple(getattr(History, name) for name in accidents)
        self._faults = dice.choice((0, 1, 2, 2, 3, 4)) if accidents is None else 2 * len(accidents)
        self.size = dice.choice((1, 1, 2, 3))
        self._faults_end_at = 0.0
        self._outages = 0
        #: From when to when nobody could hear of a process; None: of any.
        self.silences: list[tuple[Process | None, float, float]] = []
        for name, value in more.items():
            setattr(self, name, value)

    # The whole of it -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Raises nothing for what goes wrong in it: see `checks.py`."""
        state = random.getstate()
        random.seed(self.seed)
        before = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        was_collecting = gc.isenabled()
        gc.disable()
        try:
            with ExitStack() as patches:
                patches.enter_context(mock.patch.object(crew, "WITHOUT_CALL", 5))
                self.loop.run_until_complete(self._live())
        finally:
            random.setstate(state)
            logging.disable(before)
            if was_collecting:
                gc.enable()

    def end(self) -> None:
        """Let go of everything. What is looked at must have been looked at."""
        before = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            self.loop.bury(self.processes)
        finally:
            logging.disable(before)

    async def _live(self) -> None:
        for number in range(self.size):
            self.start(f"worker-{number}")
        for number in range(self._requests):
            self._at(self._moment_of_burst(), self._publish, number)
        for _ in range(self._faults):
            self._at(self.dice.uniform(1.0, BUSY), self.dice.choice(self._accidents), self)
        for partition in range(TOPOLOGY.partitions):
            self._at(self.dice.uniform(0.0, BUSY), self.broker.mark, REQUESTS, partition)
        await self._until(BUSY)
        await self._until(self._faults_end_at)
        self.calm()
        await self._until_quiet(self.loop.time() + PATIENCE)

    def calm(self) -> None:
        """No fault any more, and everybody is back."""
        self.say("calm")
        for process in self.processes:
            process.interrupt_at = None
        for name in list(self._modes):
            self._steer(name, Mode.OPEN)
        self.broker.closed.clear()
        self.broker.come_back()
        for name, disk in self.disks.items():
            disk.is_full = False
            worker = self.workers.get(name)
            if worker is None or not worker.process.is_alive:
                self.start(name)
            elif worker.process.is_still:
                worker.process.go_on()

    async def _until(self, moment: float) -> None:
        await asyncio.sleep(max(moment - self.loop.time(), 0.0))

    async def _until_quiet(self, limit: float) -> None:
        """Until nothing waits, and a little longer: what comes then should not have come."""
        quiet_since: float | None = None
        while self.loop.time() < limit:
            await self._until(self.loop.time() + 1.0)
            if not self.is_quiet():
                quiet_since = None
            elif quiet_since is None:
                quiet_since = self.loop.time()
            elif self.loop.time() - quiet_since >= 5.0:
                return

    def is_quiet(self) -> bool:
        called = any(made.ended_at is None and made.worker.process.is_alive for made in self.journal)
        return not (called or self.waiting()) and all(
            not len(worker.app.consumer.deliveries) and not worker.app.rebalancing for worker in self.living()
        )

    def waiting(self) -> dict[TP, int]:
        """How much of each input nobody has acknowledged. Ticks and markers at the end are nobody's work."""
        left: dict[TP, int] = {}
        for place, log in sorted(self.broker.logs.items()):
            if place.topic in INPUTS and place.topic != "ai.ticks":
                end = len(log)
                behind = end - self.broker.committed.get(place, 0)
                if behind > 0 and any(not record.is_marker for record in log[end - behind :]):
                    left[place] = behind
        return left

    def living(self) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.process.is_alive and not worker.process.is_still]

    # What happens --------------------------------------------------------------------------------------------------

    def say(self, words: str) -> None:
        self.told.say(self.loop.time(), words)

    def _at(self, moment: float, do: Callable[..., Any], *args: Any) -> None:
        self.loop.outside_at(moment, do, *args)

    def after(self, seconds: float, do: Callable[..., Any], *args: Any) -> None:
        """Part of a fault: calm comes after it."""
        moment = self.loop.time() + seconds
        self._faults_end_at = max(self._faults_end_at, moment + 0.5)
        self._at(moment, do, *args)

    def start(self, name: str) -> None:
        worker = self.workers.get(name)
        if worker is not None and worker.process.is_alive:
            return
        self._incarnations += 1
        incarnation = f"{name}.{self._incarnations}"
        self.say(f"{incarnation} starts")
        disk = self.disks.setdefault(name, Disk())
        provide = lambda process, provider: SimulatedProvider(self, process, provider)  # noqa: E731
        again = lambda: self.after(3.0, self.start, name)  # noqa: E731
        started = self.workers[name] = Worker(
            incarnation, self.loop, self.broker, disk, self.deployment, provide, again
        )
        self._at(self.loop.time() + 0.001, self._tell_modes, started)
        self.processes.append(started.process)

    def begin(self, process: Process, attempt: str) -> Made:
        worker = next(worker for worker in self.workers.values() if worker.process is process)
        made = Made(attempt, worker, self.loop.time())
        self.journal.append(made)
        return made

    def _moment_of_burst(self) -> float:
        if not self.in_bursts:
            return self.dice.uniform(0.5, BUSY)
        return self.dice.choice((0.5, 5.0, 12.0, 25.0)) + self.dice.expovariate(1.0)

    def _publish(self, number: int) -> None:
        """A request of an application, with all that its client may do to it."""
        if self.broker.is_away or self.broker.is_still:
            return self._at(self.loop.time() + 0.5, self._publish, number)
        dice = self.dice
        workspace = dice.choice(WORKSPACES)
        body: dict[str, Any] = {
            "request_id": f"r-{number}",
            "workspace_id": workspace,
            "prompt": f"question {dice.randint(0, 12)}",
            "priority": dice.choice(("normal", "normal", "interactive", "batch")),
        }
        if dice.random() < 0.5:
            body["preferred_providers"] = dice.choice((["claude"], ["openai"], ["openai", "claude"]))
        if dice.random() < 0.3:
            deadline = START + self.loop.time() + dice.uniform(5.0, 120.0)
            body["deadline"] = datetime.fromtimestamp(deadline).astimezone().isoformat()
        if dice.random() < 0.3:
            body["reply_to"] = REPLIES_TO
            body["stream"] = dice.random() < 0.5
        self.published[f"r-{number}"] = workspace
        value = _json(body)
        home = TOPOLOGY.workspace_partition(workspace)
        partition = dice.randrange(TOPOLOGY.partitions) if dice.random() < 0.1 else home
        copies = 2 if dice.random() < 0.1 else 1
        self.broker.append([Record(REQUESTS, workspace.encode(), value, (), partition)] * copies)
        if dice.random() < 0.05:
            self._at(self.loop.time() + dice.uniform(0.0, 5.0), self._cancel, number, workspace)
        return None

    def _cancel(self, number: int, workspace: str) -> None:
        told = encode(Cancellation(request_id=f"r-{number}", workspace_id=workspace))
        for worker in self.living():
            worker.process.start(_tell(worker, told))

    # Faults --------------------------------------------------------------------------------------------------------

    def _victim(self) -> tuple[str, Worker] | None:
        alive = [(name, worker) for name, worker in self.workers.items() if worker.process.is_alive]
        return self.dice.choice(alive) if alive else None

    def kill(self, within_steps: int | None = None) -> None:
        """A worker dies between two of its steps, and another one of its name comes after a while."""
        if (found := self._victim()) is None:
            return
        name, worker = found
        process, steps = worker.process, self.dice.randint(0, 200) if within_steps is None else within_steps
        back_in = self.dice.choice((0.5, 3.0, 15.0))
        self._faults_end_at = max(self._faults_end_at, self.loop.time() + 1.0)

        def die() -> None:
            if process.is_alive:
                self.say(f"{process.name} is killed")
                process.kill()
                self.after(back_in, self.start, name)

        process.on_interrupt, process.interrupt_at = die, process.steps + steps

    def stop(self) -> None:
        if (found := self._victim()) is None:
            return
        name, worker = found
        self.say(f"{worker.process.name} is asked to stop")
        worker.stop()
        self.after(self.deployment.drain_timeout + 8.0, self.start, name)

    def join(self) -> None:
        self.start(f"worker-{len(self.disks)}")

    def away(self) -> None:
        seconds = self.dice.choice((0.5, 3.0, 10.0, 30.0, 150.0))
        self.say(f"the broker is away for {seconds} s")
        self._silent(None, seconds)
        self._outages += 1
        self.broker.go_away()
        self.after(seconds, self._come_back)

    def frozen(self) -> None:
        seconds = self.dice.choice((1.0, 4.0, 18.0, 130.0))
        self.say(f"the broker stands still for {seconds} s")
        self._silent(None, seconds)
        self._outages += 1
        self.broker.stand_still()
        self.after(seconds, self._come_back)
        if self.dice.random() < 0.5:
            self.after(self.dice.uniform(0.0, seconds), self.kill)

    def stands_still(self) -> None:
        """A worker stands still between two of its steps: paused, swapped out, without a processor."""
        if (found := self._victim()) is None:
            return
        process, seconds = found[1].process, self.dice.choice((2.0, 6.0, 9.0, 12.0, 20.0, 40.0))

        def stop() -> None:
            if process.is_alive and not process.is_still:
                self.say(f"{process.name} stands still for {seconds} s")
                process.stand_still()
                self._silent(process, seconds)
                self.after(seconds, go_on)

        def go_on() -> None:
            if process.is_alive and process.is_still:
                self.say(f"{process.name} goes on")
                process.go_on()

        process.on_interrupt, process.interrupt_at = stop, process.steps + self.dice.randint(0, 200)
        self._faults_end_at = max(self._faults_end_at, self.loop.time() + 1.0)

    def cut_off(self) -> None:
        """The network between a worker and the broker keeps everything back, and brings it later."""
        if (found := self._victim()) is None:
            return
        process, seconds = found[1].process, self.dice.choice((2.0, 9.0, 12.0, 20.0, 40.0))
        self.say(f"{process.name} is cut off for {seconds} s")
        self._silent(process, seconds)
        self.broker.cut_off(process, self.loop.time() + seconds)
        self.after(seconds, self.say, f"{process.name} is reached again")

    def clock_jumps(self) -> None:
        """Somebody sets the clock of a worker's machine."""
        if (found := self._victim()) is None:
            return
        worker, seconds = found[1], self.dice.choice((-3600.0, -20.0, 20.0, 300.0, 3600.0))
        self.say(f"the clock of {worker.process.name} jumps by {seconds} s")
        worker.skew += seconds

    def _silent(self, process: Process | None, seconds: float) -> None:
        self.silences.append((process, self.loop.time(), self.loop.time() + seconds))

    def _come_back(self) -> None:
        self.say("the broker is back")
        self._outages -= 1
        if not self._outages:
            self.broker.come_back()

    def full_disk(self) -> None:
        if (found := self._victim()) is None:
            return
        name, worker = found
        disk, seconds = self.disks[name], self.dice.choice((2.0, 12.0, 40.0))
        self.say(f"the disk of {worker.process.name} is full for {seconds} s")
        disk.is_full = True
        self.after(seconds, setattr, disk, "is_full", False)

    def lane_mode(self) -> None:
        """An operator pauses a provider's lanes, or drains them."""
        name, mode = self.dice.choice(PROVIDERS), self.dice.choice((Mode.PAUSED, Mode.DRAINING))
        self.say(f"the lanes of {name} are {mode}")
        self._steer(name, mode)
        self.after(self.dice.choice((2.0, 15.0)), self._steer, name, Mode.OPEN)

    def lanes_in_turn(self) -> None:
        """An operator pauses one provider's lanes, then the other's, and opens them in that order: what has been passed
        on by the first and waits at the second goes back.
        """
        first, second = PROVIDERS
        self.say(f"the lanes of {first} and {second} are paused, one after the other")
        self._steer(first, Mode.PAUSED)
        self.after(3.0, self._steer, second, Mode.PAUSED)
        self.after(self.dice.choice((6.0, 12.0)), self._steer, first, Mode.OPEN)
        self.after(self.dice.choice((20.0, 60.0)), self._steer, second, Mode.OPEN)

    def _steer(self, name: str, mode: Mode) -> None:
        self._modes[name] = mode
        for worker in self.living():
            self._tell_modes(worker)

    def _tell_modes(self, worker: Worker) -> None:
        worker.process.start(_steer(worker, dict(self._modes)))

    def closed_topic(self) -> None:
        """One topic takes no records, by an ACL or for want of replicas, and says so each time."""
        topic = self.dice.choice(self.closable)
        seconds = self.dice.choice((2.0, 12.0, 140.0))
        self.say(f"{topic} is closed for {seconds} s")
        self.broker.closed[topic] = refused
        self.after(seconds, self.broker.closed.pop, topic, None)


CLOSABLE = (
    REPORTS,
    "ai.responses",
    "ai.usage",
    *(f"ai.dispatch.{name}" for name in PROVIDERS),
    *(TOPOLOGY.changelog(table) for table in TABLES),
)
FAULTS: tuple[Callable[[History], None], ...] = (
    History.kill,
    History.kill,
    History.stop,
    History.join,
    History.away,
    History.frozen,
    History.full_disk,
    History.closed_topic,
    History.lane_mode,
    History.stands_still,
    History.cut_off,
    History.clock_jumps,
)


def _json(body: dict[str, Any]) -> bytes:
    return orjson.dumps(body)


async def _steer(worker: Worker, modes: dict[str, Mode]) -> None:
    for name, mode in modes.items():
        worker.steer(name, mode)


async def _tell(worker: Worker, told: bytes) -> None:
    # As the broadcast does it.
    with contextlib.suppress(Exception):
        worker.cancellations.apply(told)

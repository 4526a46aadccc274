"""What a load feels when workers come and go, while one answer in ten takes 45 s.

    python bench/scaling_out.py                       1 → 2 → 4 → 2 workers, three restarts, a kill -9; some 15 minutes
    python bench/scaling_out.py --only kill --seed 7 --logs .prove/scaling
    python bench/scaling_out.py --hold 10 --slow-s 8  short, to see that it runs

Twelve partitions, and in each as many requests a second as in any other. All that is done with a request is done in the
partition with the number of its own, so that one worker has all of it. Before each step it waits until all partitions
flow. A partition is silent when no call begins or nothing is answered.

It ends with an error when a request whose worker was not killed was called twice or is in doubt, when a partition was
silent for more than 5 s, or one of the killed worker's for more than 15 s, and when a request has no answer or a call
has no row in the ledger. In doubt is what the ledger calls so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from aiokafka import AIOKafkaProducer

from app.clickhouse.client import ClickHouse
from app.devstack.child import Child
from app.devstack.stack import DevStack
from app.settings import Settings
from app.topics import build_topology
from bench.proving.running import stop_in_order
from bench.scaling.figures import Call, Seen, Step, called_twice, figures, one_after_another, silence, table
from streams.topology import REQUESTS, RESPONSES
from tests.support.clock.pace import Pace
from tests.support.clock.waiting import eventually
from tests.support.provider.instant import Provider
from tests.support.reader.topics import reading
from tests.support.stack.running import free_stack, settings_of
from tests.support.stack.workers import WIDE_LANES

#: Faust gives a worker up to partitions / workers of them, rounded up: of 6 the fourth worker may get none.
PARTITIONS = 12
#: Milliseconds that an answer takes that is not slow.
QUICK_MS = 300
#: Before a step, each partition has flowed for so many seconds, without a gap of more than so many.
STEADY, GAP = 10.0, 2.0
STEADY_WITHIN = 240.0
#: Seconds that a worker has to be ready, and to stop in order: longer than any call.
READY_WITHIN, STOPS_WITHIN = 120.0, 120.0
#: How many work when they are restarted, or one is killed.
WORKERS = 3
PARTS = ("scale", "restarts", "kill")
#: Of each attempt: its outcome, and when its row was written, in seconds since 1970.
Rows = dict[str, tuple[str, float]]
LEDGER = """\
SELECT concat(request_id, '/', toString(attempt)), toString(outcome), toUnixTimestamp64Milli(recorded_at) FROM ledger"""
MORE = {
    **WIDE_LANES,
    "AI_PARTITIONS": str(PARTITIONS),
    "AI_LANE_SHARDS": str(PARTITIONS),
    "AI_PRIMARY_PROVIDER": "openai",
    "AI_FALLBACK_PROVIDERS": "",
    "AI_MAX_IN_FLIGHT": "512",
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    # The topics are made by this process's settings.
    os.environ.update(MORE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stack = free_stack(folder / "stack")
        stack.start()
        slow = ("--slow-every", str(options.slow_every), "--slow-s", str(options.slow_s))
        provider = Provider.start(folder, QUICK_MS, *slow)
        wrong = ["it did not come to its end"]
        try:
            wrong = asyncio.run(_Run(stack, provider, options).all())
        finally:
            # Without waiting for calls: what counts is counted.
            for worker in _workers(stack):
                worker.kill()
            provider.stop()
            stack.stop()
            if wrong and options.logs:
                shutil.copytree(stack.folder / "logs", options.logs, dirs_exist_ok=True)
                shutil.copy(provider.journal, options.logs / "journal.jsonl")
    return 1 if wrong else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, help="one part; else all of them, one after another")
    parser.add_argument(
        "--seed", type=int, default=1, help="draws who is restarted and killed, and which calls are slow"
    )
    parser.add_argument("--rate", type=float, default=24.0, help="requests a second")
    parser.add_argument("--hold", type=float, default=60.0, help="seconds that each step is watched when it is done")
    parser.add_argument("--slow-every", type=int, default=10, help="one attempt in so many is slow")
    parser.add_argument("--slow-s", type=float, default=45.0, help="seconds that a slow answer takes")
    parser.add_argument("--logs", type=Path, help="where the logs and the journal go if anything is wrong")
    return parser.parse_args(arguments)


def _workers(stack: DevStack) -> list[Child]:
    return [part for name, part in stack.parts.items() if name.startswith("worker")]


@dataclass
class _Load:
    """Requests on their way, and what came of them."""

    settings: Settings
    provider: Provider
    seed: int
    rate: float
    partitions: dict[str, int] = field(default_factory=dict)
    answers: list[tuple[str, float]] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    ended: dict[str, float] = field(default_factory=dict)
    _read: int = 0

    async def publish(self) -> None:
        """Until it is cancelled: partition after partition, at a rate."""
        topology = build_topology(self.settings)
        workspaces: dict[int, str] = {}
        number = 0
        while len(workspaces) < PARTITIONS:
            workspaces.setdefault(topology.workspace_partition(f"w{number}"), f"w{number}")
            number += 1
        pace, number = Pace(self.rate), 0
        async with AIOKafkaProducer(bootstrap_servers=self.settings.kafka_bootstrap_servers, acks="all") as producer:
            while True:
                partition = number % PARTITIONS
                workspace, salt = workspaces[partition], 0
                # Its lane must be in the same partition; by its id it could be in any.
                while (
                    topology.lane("openai", "", workspace, name := f"s{self.seed}-{number}-{salt}").partition
                    != partition
                ):
                    salt += 1
                body = {
                    "request_id": name,
                    "workspace_id": workspace,
                    "prompt": "hello",
                    "max_tokens": 64,
                    "cache": {"enabled": False},
                }
                self.partitions[name] = partition
                await producer.send(REQUESTS, json.dumps(body).encode(), key=workspace.encode())
                number += 1
                await pace.step()

    async def watch(self) -> None:
        """Until it is cancelled: answers, as they come."""
        async with reading(self.settings.kafka_bootstrap_servers, RESPONSES, from_start=True) as consumer:
            while True:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    for record in records:
                        name = json.loads(record.value)["request_id"]
                        if name in self.partitions:
                            self.answers.append((name, record.timestamp / 1000))

    def read_journal(self) -> None:
        """What the provider has written since the last time."""
        with self.provider.journal.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                told = json.loads(line)
                # Workers also look whether the provider is there.
                if (told["id"] or "").rsplit("/", 1)[0] not in self.partitions:
                    continue
                if told["event"] == "start":
                    worker = told["path"].split("/")[1].removeprefix("from-")
                    self.calls.append(Call(told["id"], worker, told["t"]))
                else:
                    self.ended[told["id"]] = told["t"]

    def is_steady(self) -> bool:
        """Whether each partition flows, without a gap, for a while."""
        self.read_journal()
        until = time.time()
        since = until - STEADY
        begun: dict[int, list[float]] = defaultdict(list)
        answered: dict[int, list[float]] = defaultdict(list)
        for call in self.calls:
            begun[self.partitions[call.request]].append(call.at)
        for name, moment in self.answers:
            answered[self.partitions[name]].append(moment)
        return all(
            silence(moments[number], since, until) < GAP
            for moments in (begun, answered)
            for number in range(PARTITIONS)
        )

    @property
    def unanswered(self) -> int:
        return len(self.partitions.keys() - {name for name, _ in self.answers})

    def seen(self, rows: Rows) -> Seen:
        doubts = [(attempt, moment) for attempt, (outcome, moment) in rows.items() if outcome == "in_doubt"]
        return Seen(self.partitions, self.calls, self.ended, self.answers, doubts)


class _Run:
    def __init__(self, stack: DevStack, provider: Provider, options: argparse.Namespace) -> None:
        self._stack, self._provider, self._options = stack, provider, options
        self._settings = settings_of(stack)
        self._dice = random.Random(f"scaling-{options.seed}")  # noqa: S311 - the same again for the same seed
        self._load = _Load(self._settings, provider, options.seed, options.rate)
        self._steps: list[Step] = []

    async def all(self) -> list[str]:
        """Everything that was wrong, in words."""
        parts: dict[str, Callable[[], Awaitable[None]]] = {
            "scale": self._scale,
            "restarts": self._restarts,
            "kill": self._kill,
        }
        chosen = [self._options.only] if self._options.only else list(PARTS)
        await self._run(1 if chosen[0] == "scale" else WORKERS)
        watching = asyncio.create_task(self._load.watch())
        publishing = asyncio.create_task(self._load.publish())
        try:
            for part in chosen:
                await parts[part]()
            publishing.cancel()
            with suppress(asyncio.CancelledError):
                await publishing
            within = 2 * self._options.slow_s + 60
            with suppress(AssertionError):
                await eventually(lambda: not self._load.unanswered, within=within, every=0.5)
            rows: Rows = {}
            # The sink is the last to know.
            with suppress(AssertionError):
                await eventually(lambda: self._has_all(rows), within=60, every=1.0)
        finally:
            watching.cancel()
            publishing.cancel()
        return self._tell(rows)

    # Parts ------------------------------------------------------------------------------------------------------------

    async def _scale(self) -> None:
        await self._step("1 → 2", lambda: self._run(2))
        await self._step("2 → 4", lambda: self._run(4))
        await self._step("4 → 2", lambda: self._end(self._dice.sample(self._running(), 2)))

    async def _restarts(self) -> None:
        await self._enough()
        for number, worker in enumerate(self._dice.sample(self._running(), 3), 1):

            async def restart(worker: Child = worker) -> None:
                await self._end([worker])
                await self._begin([worker])

            await self._step(f"restart {number}", restart)

    async def _kill(self) -> None:
        await self._enough()
        victim = self._dice.choice(self._running())

        async def kill() -> None:
            await asyncio.to_thread(victim.kill)

        await self._step("kill -9", kill, killed=victim.name)

    async def _enough(self) -> None:
        if (count := len(self._running())) != WORKERS:
            await self._step(f"{count} → {WORKERS}", lambda: self._run(WORKERS))

    async def _step(self, name: str, action: Callable[[], Awaitable[None]], killed: str | None = None) -> None:
        await eventually(
            self._load.is_steady, within=STEADY_WITHIN, every=1.0, what=f"all partitions flow before {name}"
        )
        begin = time.time()
        await action()
        took = time.time() - begin
        print(f"{name}: done after {took:.1f} s", flush=True)
        await asyncio.sleep(self._options.hold)
        self._steps.append(Step(name, begin, time.time(), took, killed))

    # Workers ----------------------------------------------------------------------------------------------------------

    def _running(self) -> list[Child]:
        return [worker for worker in _workers(self._stack) if worker.alive()]

    async def _run(self, count: int) -> None:
        """Start what is missing to so many workers."""
        missing = count - len(self._running())
        resting = [worker for worker in _workers(self._stack) if not worker.alive()]
        first = len(_workers(self._stack)) + 1
        for number in range(first, first + max(0, missing - len(resting))):
            more = self._provider.environment(f"worker-{number}")
            worker = self._stack.worker(number, **more, **MORE)
            worker.grace = STOPS_WITHIN
            resting.append(worker)
        await self._begin(resting[: max(0, missing)])

    @staticmethod
    async def _begin(workers: Sequence[Child]) -> None:
        for worker in workers:
            await asyncio.to_thread(worker.start)
        for worker in workers:
            await asyncio.to_thread(worker.wait_ready, READY_WITHIN)

    @staticmethod
    async def _end(workers: Sequence[Child]) -> None:
        stopped = await asyncio.gather(*(asyncio.to_thread(worker.stop) for worker in workers))
        assert all(stopped), "a worker did not stop by itself"

    # Results ----------------------------------------------------------------------------------------------------------

    async def _has_all(self, rows: Rows) -> bool:
        """Read the ledger; whether it has each call."""
        async with ClickHouse(self._settings) as database:
            rows |= {attempt: (outcome, ms / 1000) for attempt, outcome, ms in (await database.query(LEDGER)).rows}
        self._load.read_journal()
        return {call.attempt for call in self._load.calls} <= rows.keys()

    def _tell(self, rows: Rows) -> list[str]:
        seen = self._load.seen(rows)
        found = [figures(seen, step) for step in one_after_another(self._steps)]
        wrong = [f"{one.step.name}: {words}" for one in found for words in one.wrong]
        if unanswered := self._load.unanswered:
            wrong.append(f"{unanswered} requests have no answer")
        if missing := {call.attempt for call in seen.calls} - rows.keys():
            wrong.append(f"{len(missing)} calls have no row in the ledger")
        told = f"requests {len(seen.partitions)}, called twice {called_twice(seen.calls)}, in doubt {len(seen.doubts)}"
        print(f"\n{table(found)}\n\n{told}")
        print("wrong: " + "; ".join(wrong) if wrong else "ok", flush=True)
        return wrong


if __name__ == "__main__":
    stop_in_order()
    sys.exit(main())

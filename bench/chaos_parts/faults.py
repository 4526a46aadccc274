"""The faults of a plan, done to a stack."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace

from bench.chaos_parts.load import Load
from bench.chaos_parts.names import PROVIDERS
from bench.chaos_parts.plan import Fault
from bench.chaos_parts.stack import Process, Stack

#: Seconds that a worker has to stop in order.
STOPS_WITHIN = 75.0
#: Workers at most.
WORKERS = 4
#: Calls in the journal, counted from its end, among which a lane's owner is looked for.
LATELY = 4_000
#: Requests that another client's partitioner sends elsewhere.
FOREIGN = 120


class Faults:
    """Does faults, each beside the others. A worker that is the victim of one is left alone by the rest."""

    def __init__(self, stack: Stack, load: Load) -> None:
        self._stack, self._load = stack, load
        self._busy: set[int] = set()
        self.kinds: dict[str, Callable[[Fault], Awaitable[object]]] = {
            "kill": self._kill,
            "wipe": self._wipe,
            "kill2": self._kill_two,
            "killstart": self._kill_while_starting,
            "term": self._stop,
            "start": self._start,
            "freeze": self._stand_still,
            "freezeowner": self._owner_stands_still,
            "freezeall": self._all_stand_still,
            "brokerkill": self._kill_broker,
            "brokerout": self._broker_away,
            "brokerfreeze": self._broker_stands_still,
            "chkill": self._kill_clickhouse,
            "chfreeze": self._clickhouse_stands_still,
            "provdown": self._provider_away,
            "alldown": self._all_providers_away,
            "limits": self._set_limits,
            "pause": self._pause,
            "foreign": self._foreign,
        }

    async def do(self, fault: Fault) -> None:
        try:
            await self.kinds[fault.kind](fault)
        except Exception as error:  # noqa: BLE001 - a fault that cannot be done is no finding
            self._stack.note("fault_error", kind=fault.kind, error=repr(error)[:200])

    # Workers ----------------------------------------------------------------------------------------------------------

    def _victim(self, choice: int, *, alive: bool = True, also_still: bool = False) -> int | None:
        found = [
            number
            for number, worker in self._stack.workers.items()
            if worker.alive == alive and (also_still or not worker.stands_still) and number not in self._busy
        ]
        return found[choice % len(found)] if found else None

    def _restart(self, number: int, *, wipe: bool = False) -> None:
        if wipe:
            shutil.rmtree(self._stack.data(number), ignore_errors=True)
        if not self._stack.worker(number).alive:
            self._stack.worker(number).start()
            self._stack.note("worker_start", worker=number, wipe=wipe)

    def _skip(self, kind: str) -> None:
        self._stack.note("skip", kind=kind)

    def _kill_now(self, number: int) -> None:
        worker = self._stack.workers[number]
        self._stack.note("kill", worker=number, stood_still=worker.stands_still)
        worker.kill()

    async def _kill(self, fault: Fault, *, wipe: bool = False) -> None:
        number = self._victim(fault.victim, also_still=True)
        if number is None:
            return self._skip("kill")
        self._busy.add(number)
        self._kill_now(number)
        await asyncio.sleep(fault.away)
        self._restart(number, wipe=wipe)
        self._busy.discard(number)
        return None

    async def _wipe(self, fault: Fault) -> None:
        await self._kill(fault, wipe=True)

    async def _kill_two(self, fault: Fault) -> None:
        second = replace(fault, victim=fault.victim + 1, away=fault.away + 1)
        await asyncio.gather(self._kill(fault), self._kill(second))

    async def _kill_while_starting(self, fault: Fault) -> None:
        number = self._victim(fault.victim, also_still=True)
        if number is None:
            return self._skip("killstart")
        self._busy.add(number)
        self._kill_now(number)
        for seconds in (fault.early, fault.early / 2 + 1):
            await asyncio.sleep(1)
            self._restart(number, wipe=fault.share < 0.4)
            await asyncio.sleep(seconds)
            self._stack.note("kill_early", worker=number, after=seconds)
            self._stack.workers[number].kill()
        await asyncio.sleep(1)
        self._restart(number)
        self._busy.discard(number)
        return None

    async def _stop(self, fault: Fault) -> None:
        number = self._victim(fault.victim)
        if number is None:
            return self._skip("term")
        self._busy.add(number)
        worker = self._stack.workers[number]
        self._stack.note("term", worker=number)
        worker.ask_to_stop()
        ended = await worker.ended(STOPS_WITHIN)
        self._stack.note("term_done", worker=number, ended=ended, code=worker.exit_code)
        if not ended:
            self._stack.note("term_hangs", worker=number)
            worker.kill()
        await asyncio.sleep(fault.away)
        self._restart(number)
        self._busy.discard(number)
        return None

    async def _start(self, fault: Fault) -> None:
        number = self._victim(fault.victim, alive=False)
        if number is None:
            number = max(self._stack.workers) + 1
            if number > WORKERS:
                return self._skip("start")
        self._restart(number)
        return None

    # Stand-stills -----------------------------------------------------------------------------------------------------

    async def _stand_still(self, fault: Fault) -> None:
        number = self._victim(fault.victim)
        if number is None:
            return self._skip("freeze")
        await self._still([number], fault.still)
        return None

    async def _owner_stands_still(self, fault: Fault) -> None:
        """The worker that was the last to call a provider."""
        number = self._caller(fault.provider)
        if number is None or not self._stack.workers[number].alive or number in self._busy:
            return self._skip("freezeowner")
        await self._still([number], fault.still)
        return None

    async def _all_stand_still(self, fault: Fault) -> None:
        free = [number for number, worker in self._stack.workers.items() if worker.alive and number not in self._busy]
        await self._still(free[: fault.count], fault.still)

    async def _still(self, numbers: Sequence[int], seconds: float) -> None:
        for number in numbers:
            self._busy.add(number)
            self._stack.workers[number].stand_still()
            self._stack.note("freeze", worker=number, seconds=seconds)
        await asyncio.sleep(seconds)
        for number in numbers:
            self._stack.workers[number].go_on()
            self._stack.note("thaw", worker=number)
            self._busy.discard(number)

    def _caller(self, provider: str) -> int | None:
        for line in reversed(self._stack.journal.read_text().splitlines()[-LATELY:]):
            call = json.loads(line)
            if call["event"] == "start" and call["provider"] == provider:
                return int(call["worker"].removeprefix("w"))
        return None

    # The broker and ClickHouse ----------------------------------------------------------------------------------------

    async def _kill_broker(self, fault: Fault) -> None:
        await self._broker_down(min(fault.away, 6))

    async def _broker_away(self, fault: Fault) -> None:
        await self._broker_down(fault.still)

    async def _broker_down(self, seconds: float) -> None:
        self._stack.note("broker_kill")
        self._stack.broker.kill()
        await asyncio.sleep(seconds)
        self._stack.broker.start()
        self._stack.note("broker_up", answers=await self._stack.broker_answers())

    async def _broker_stands_still(self, fault: Fault) -> None:
        await self._part_stands_still("broker", self._stack.broker, fault.outage)

    async def _kill_clickhouse(self, fault: Fault) -> None:
        self._stack.note("clickhouse_kill")
        self._stack.clickhouse.kill()
        await asyncio.sleep(fault.away)
        self._stack.clickhouse.start()
        self._stack.note("clickhouse_up", answers=await self._stack.clickhouse_answers())

    async def _clickhouse_stands_still(self, fault: Fault) -> None:
        await self._part_stands_still("clickhouse", self._stack.clickhouse, fault.outage)

    async def _part_stands_still(self, name: str, part: Process, seconds: float) -> None:
        part.stand_still()
        self._stack.note(f"{name}_freeze", seconds=seconds)
        await asyncio.sleep(seconds)
        part.go_on()
        self._stack.note(f"{name}_thaw")

    # Providers, limits, lanes, clients --------------------------------------------------------------------------------

    async def _provider_away(self, fault: Fault) -> None:
        await self._providers_down([fault.provider], fault.outage)

    async def _all_providers_away(self, fault: Fault) -> None:
        await self._providers_down(PROVIDERS, min(fault.outage, 10))

    async def _providers_down(self, names: Iterable[str], seconds: float) -> None:
        self._stack.note("provider_down", providers=list(names))
        await self._stack.tell_providers("down", *names)
        await asyncio.sleep(seconds)
        await self._stack.tell_providers("up", *names)
        self._stack.note("provider_up", providers=list(names))

    async def _set_limits(self, fault: Fault) -> None:
        rpm = int(200 + fault.share * 500)
        done = await self._stack.command("limits", "set", "openai", "--rpm", str(rpm), within=40)
        self._stack.note("limits", rpm=rpm, code=done.code, error=done.err[-200:] if done.code else "")

    async def _pause(self, fault: Fault) -> None:
        done = await self._stack.command("lanes", "pause", fault.provider, within=40)
        self._stack.note("pause", provider=fault.provider, code=done.code)
        await asyncio.sleep(min(fault.outage, 12))
        done = await self._stack.command("lanes", "resume", fault.provider, within=40)
        self._stack.note("resume", provider=fault.provider, code=done.code)

    async def _foreign(self, _: Fault) -> None:
        self._load.foreign = FOREIGN
        self._stack.note("foreign")


async def restore(stack: Stack) -> None:
    """Bring everything back, and end what providers do by themselves."""
    for part in (stack.broker, stack.clickhouse):
        part.go_on()
        if not part.alive:
            part.start()
    await stack.broker_answers()
    await stack.clickhouse_answers()
    for worker in stack.workers.values():
        worker.go_on()
        if not worker.alive:
            stack.note("found_dead", name=worker.name, code=worker.exit_code)
            worker.start()
    await stack.tell_providers("up", *PROVIDERS)
    await stack.tell_providers("calm")
    for provider in PROVIDERS:
        await stack.command("lanes", "resume", provider)
    await stack.command("limits", "reset", "openai")
    stack.note("restored")

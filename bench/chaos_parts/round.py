"""One round: a stack, a load, faults, quiet, and everything recomputed. The results go into the round's folder."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.chaos_parts import again, faults
from bench.chaos_parts.checks import CHECKS, logs, silences
from bench.chaos_parts.facts import LEDGER, Facts, Found, calls_of, gather, rows_of
from bench.chaos_parts.load import Load
from bench.chaos_parts.mix import Mix
from bench.chaos_parts.names import CHANGELOG
from bench.chaos_parts.plan import Fault, write
from bench.chaos_parts.records import behind
from bench.chaos_parts.stack import Limits, Stack

#: Seconds that faults have to end after the load.
FAULTS_END_WITHIN = 260.0
#: Seconds between two looks, and how many must show nothing missing.
LOOK, LOOKS = 2.0, 2
#: Seconds before the round from which on the audit looks, and those that it may take.
AUDIT_FROM, AUDIT_WITHIN = 120.0, 180.0
#: Seconds between two looks at the workers' memory.
SAMPLE = 3.0
#: Characters of a value that are written down.
SHOWN = 900


@dataclass(frozen=True)
class Round:
    """What is done. Times are in seconds, the rate is requests a second; `bound` is how long it may take until all is
    quiet. `keep` leaves the data of the broker and the workers behind.
    """

    seed: int
    folder: Path
    plan: Sequence[Fault]
    seconds: float = 70.0
    rate: float = 45.0
    workers: int = 3
    limits: Limits = field(default_factory=Limits)
    mix: str = "all"
    many: int = 200
    bound: float = 240.0
    keep: bool = False
    repeat: bool = True
    rebuild: bool = True


@dataclass
class Result:
    """What came of it. `wrong` has what is not nothing and should be."""

    seed: int
    plan: list[tuple[float, str]]
    published: int = 0
    quiet_after: float = 0.0
    #: What was still missing when the time to become quiet was over.
    missing: dict[str, Any] = field(default_factory=dict)
    checks: dict[str, Found] = field(default_factory=dict)
    memory: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    silences: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""

    @property
    def wrong(self) -> dict[str, int | str]:
        found: dict[str, int | str] = {"unquiet": str(self.missing)[:150]} if self.missing else {}
        for check in self.checks.values():
            found |= {word: count for word, count in check.wrong.items() if count}
        return found

    def line(self) -> str:
        """`ok`, or each thing that is wrong and how often."""
        said = " ".join(f"{word}={count}" for word, count in self.wrong.items()) or "ok"
        return f"seed {self.seed}: {said} ({self.published} requests, quiet after {self.quiet_after:.1f} s)"

    def write(self, file: Path) -> None:
        checks = {name: {"wrong": found.wrong, "figures": found.figures} for name, found in self.checks.items()}
        body = {**vars(self), "checks": checks, "wrong": self.wrong}
        file.write_text(json.dumps(body, indent=1, default=str) + "\n")


async def run(told: Round) -> Result:
    """The whole round, some four minutes. What it has found is also in result.json, with examples."""
    shutil.rmtree(told.folder, ignore_errors=True)
    stack = Stack(told.folder, told.seed, told.limits)
    write(stack.folder / "plan.json", told.plan)
    result = Result(told.seed, [(fault.at, fault.kind) for fault in told.plan])
    load = Load(stack, Mix(told.seed, told.mix, told.many), told.rate)
    try:
        await stack.start(told.workers)
        stack.note("started")
        begun = time.time()
        watching = asyncio.create_task(_watch_memory(stack, result))
        await load.start()
        await _load_and_faults(stack, load, told)
        result.quiet_after, result.missing = await _quiet(stack, load, told.bound)
        stack.note("quiet", seconds=result.quiet_after, missing=result.missing)
        watching.cancel()
        await load.stop()
        result.published = len(load.asked)
        facts = await gather(stack, load)
        _write_down(facts, stack.folder)
        result.checks = {name: check(facts) for name, check in CHECKS.items()}
        result.silences = silences(facts)
        result.checks["audit"] = await _audit(stack, begun)
        texts = {w.name: w.log.read_text(errors="replace") for w in stack.workers.values() if w.log.exists()}
        result.checks["logs"] = logs(texts)
        if told.repeat:
            result.checks["repeat"] = await again.repeat(stack, facts)
        if told.rebuild:
            result.checks["rebuild"] = await again.rebuild(stack, facts)
    except BaseException as error:
        result.error = repr(error)[:500]
        raise
    finally:
        result.write(stack.folder / "result.json")
        stack.kill()
        if not told.keep:
            for folder in ("kafka", "clickhouse", *(stack.data(number).name for number in stack.workers)):
                shutil.rmtree(stack.folder / folder, ignore_errors=True)
    return result


async def _load_and_faults(stack: Stack, load: Load, told: Round) -> None:
    doer = faults.Faults(stack, load)
    begun = time.monotonic()
    publishing = asyncio.create_task(load.run(told.seconds))
    running = []
    for fault in told.plan:
        await asyncio.sleep(max(0.0, begun + fault.at - time.monotonic()))
        stack.note("fault", kind=fault.kind)
        running.append(asyncio.create_task(doer.do(fault)))
    await publishing
    stack.note("published", requests=len(load.asked))
    if running:
        _, late = await asyncio.wait(running, timeout=FAULTS_END_WITHIN)
        for task in late:
            task.cancel()
    await faults.restore(stack)
    await load.flush()


async def _quiet(stack: Stack, load: Load, bound: float) -> tuple[float, dict[str, Any]]:
    """Wait until each request has an answer, each record is acknowledged and each call has its row, for so many seconds
    at most. Returns the seconds, and what is missing.
    """
    begun, looks = time.monotonic(), 0
    missing: dict[str, Any] = {}
    while (passed := time.monotonic() - begun) < bound:
        await asyncio.sleep(LOOK)
        before, missing = missing, await _missing(stack, load)
        if missing and missing != before:
            stack.note("unquiet", **missing)
        looks = 0 if missing else looks + 1
        if looks == LOOKS:
            return round(passed, 1), {}
    return round(passed, 1), missing or {"quiet": "only at the last look"}


async def _missing(stack: Stack, load: Load) -> dict[str, Any]:
    silent = [name for name in load.asked if name not in load.answered]
    try:
        unread = await asyncio.wait_for(behind(stack.servers), 30)
        rows = rows_of(await stack.ask_clickhouse(LEDGER))
    except Exception as error:  # noqa: BLE001 - whatever the reason: it is looked again
        return {"cannot be asked": repr(error)[:100]}
    calls = calls_of(stack.journal.read_text().splitlines())
    without = sorted({call.attempt for call in calls} - rows.keys())
    if not silent and not unread and not without:
        return {}
    return {
        "unanswered": len(silent),
        "such as": silent[:3],
        "unread": dict(list(unread.items())[:6]),
        "calls without a row": len(without),
        "such calls": without[:3],
    }


async def _audit(stack: Stack, begun: float) -> Found:
    """The project's own auditor must agree."""
    since = datetime.fromtimestamp(begun - AUDIT_FROM, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    done = await stack.command("audit", "--from", since, "--patience", "1", "--json", within=AUDIT_WITHIN)
    figures: dict[str, Any] = {"code": done.code}
    try:
        told = json.loads(done.out)
        figures |= {"findings": told.get("findings"), "figures": told.get("figures")}
    except ValueError:
        figures["said"] = (done.out + done.err)[-600:]
    return Found({"audit": "late" if done.code is None else done.code}, figures)


async def _watch_memory(stack: Stack, result: Result) -> None:
    """Of each worker: the first, the largest and the last MB."""
    while True:
        for worker in stack.workers.values():
            if now := worker.megabytes:
                first, most, _ = result.memory.get(worker.name, (now, now, now))
                result.memory[worker.name] = (first, max(most, now), now)
        await asyncio.sleep(SAMPLE)


def _write_down(facts: Facts, folder: Path) -> None:
    """What topics had, to look at when the broker is gone."""
    for topic, name in ((CHANGELOG, "changelog"), ("ai.responses", "responses"), ("ai.attempts", "attempts")):
        with (folder / f"{name}.jsonl").open("w") as file:
            for record in facts.topic(topic):
                key, value = (
                    part.decode(errors="replace")[:SHOWN] if part is not None else None
                    for part in (record.key, record.value)
                )
                file.write(json.dumps([*record.place, record.timestamp, key, value]) + "\n")


def show(folder: Path) -> str:
    """The figures and examples of a round."""
    with suppress(FileNotFoundError):
        told = json.loads((folder / "result.json").read_text())
        lines = [f"{name} {json.dumps(check)[:1800]}" for name, check in told["checks"].items()]
        lines += [f"{name} {json.dumps(told[name])}" for name in ("silences", "memory", "missing", "error")]
        return "\n".join([*lines, f"wrong {json.dumps(told['wrong'])}"])
    return f"there are no results in {folder}"

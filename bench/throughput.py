"""Spillway with one worker beside a bare aiokafka-and-SDK loop: same machine, same instant provider, one run.

    python bench/throughput.py                       # about three minutes; prints the table of docs/benchmarks.md

“Added” is the time from publishing a request to seeing its reply, less the median of a direct SDK call in this run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

sys.path.insert(0, str(Path(__file__).parents[1]))

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from openai import AsyncOpenAI, DefaultAioHttpClient

from app.devstack.stack import DevStack
from tests.support.clock.pace import Pace
from tests.support.provider.instant import Provider
from tests.support.reader.topics import reading
from tests.support.stack.running import free_stack
from tests.support.stack.workers import start_workers
from tests.support.values.names import unique

WORKSPACES = 40
WARM_UP = 500
PARTITIONS = 6
#: Seconds that the last reply of a load may take.
PATIENCE = 60.0


@dataclass
class Load:
    """One load: milliseconds of CPU per request, seconds of each latency, requests per second."""

    rate: float
    requests: int
    throughput: float = 0.0
    cpu_ms: float = 0.0
    latencies: list[float] = field(default_factory=list)

    def quantile_ms(self, share: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1000


@dataclass
class Subject:
    """What is measured: a process that reads one topic and answers on another."""

    name: str
    pid: int
    requests: str
    replies: str
    loads: list[Load] = field(default_factory=list)
    peak_mb: float = 0.0


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_rss_mb(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


async def run_load(servers: str, subject: Subject, load: Load) -> Load:
    """Publish at the rate (0: at once), and wait for every reply."""
    sent: dict[str, float] = {}
    async with (
        reading(servers, subject.replies) as consumer,
        AIOKafkaProducer(bootstrap_servers=servers, acks="all") as producer,
    ):
        hearing = asyncio.create_task(_read(consumer, sent, load))
        used, begun = cpu_seconds(subject.pid), time.perf_counter()
        pace = Pace(load.rate) if load.rate else None
        for number in range(load.requests):
            identity, workspace = unique("b"), f"w{number % WORKSPACES}"
            body = {
                "request_id": identity,
                "workspace_id": workspace,
                "prompt": "hello",
                "max_tokens": 64,
                "cache": {"enabled": False},
            }
            if subject.name == "Spillway":
                body |= {"reply_to": subject.replies, "preferred_providers": ["openai"]}
            sent[identity] = time.perf_counter()
            await producer.send(subject.requests, json.dumps(body).encode(), key=workspace.encode())
            if pace is not None:
                await pace.step()
        await asyncio.wait_for(hearing, PATIENCE)
    load.throughput = load.requests / (time.perf_counter() - begun)
    load.cpu_ms = (cpu_seconds(subject.pid) - used) * 1000 / load.requests
    return load


async def _read(consumer: AIOKafkaConsumer, sent: dict[str, float], load: Load) -> None:
    async for record in consumer:
        seen = time.perf_counter()
        begun = sent.pop(record.key.decode(), None)
        if begun is not None:
            load.latencies.append(seen - begun)
            if len(load.latencies) == load.requests:
                return


async def direct_call_ms(base_url: str) -> float:
    """The median of a call through the SDK alone, in milliseconds."""
    taken = []
    async with AsyncOpenAI(
        api_key="instant", base_url=base_url, max_retries=0, http_client=DefaultAioHttpClient()
    ) as client:
        for _ in range(200):
            begun = time.perf_counter()
            await client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hello"}])
            taken.append(time.perf_counter() - begun)
    return statistics.median(taken) * 1000


async def create_topics(servers: str, *names: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names])
    finally:
        await admin.close()


@contextmanager
def spillway(stack: DevStack, provider: Provider, replies: str) -> Iterator[Subject]:
    (worker,) = start_workers(stack, provider, 1)
    try:
        yield Subject("Spillway", worker.pid or 0, "ai.requests", replies)
    finally:
        worker.stop()


@contextmanager
def bare_loop(servers: str, provider: Provider, requests: str, replies: str, log: IO[bytes]) -> Iterator[Subject]:
    command = [sys.executable, str(Path(__file__).with_name("bare_loop.py"))]
    arguments = [servers, f"http://127.0.0.1:{provider.port}/v1", requests, replies]
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=log)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield Subject("bare loop", process.pid, requests, replies)
    finally:
        process.terminate()
        process.wait(10)


def measure(servers: str, subject: Subject, options: argparse.Namespace) -> Subject:
    asyncio.run(run_load(servers, subject, Load(100.0, WARM_UP)))
    loads = [Load(rate, int(rate * options.seconds)) for rate in options.rates] + [Load(0.0, options.burst)]
    for load in loads:
        print(f"{subject.name}: {load.requests} requests at {load.rate or 'once'}", file=sys.stderr)
        subject.loads.append(asyncio.run(run_load(servers, subject, load)))
    subject.peak_mb = peak_rss_mb(subject.pid)
    return subject


def table(subjects: list[Subject], call_ms: float) -> str:
    lines = [f"| | {' | '.join(subject.name for subject in subjects)} |", f"|---|{'---|' * len(subjects)}"]

    def row(what: str, values: list[str]) -> None:
        lines.append(f"| {what} | {' | '.join(values)} |")

    for number, load in enumerate(subjects[0].loads):
        same = [subject.loads[number] for subject in subjects]
        if not load.rate:
            row(f"{load.requests:,} at once: requests/s", [f"{one.throughput:.0f}" for one in same])
            row("CPU per request, ms", [f"{one.cpu_ms:.2f}" for one in same])
            continue
        for share in (0.5, 0.99):
            added = [f"{one.quantile_ms(share) - call_ms:.1f}" for one in same]
            row(f"{load.rate:.0f}/s: added latency, p{share * 100:.0f}, ms", added)
        row(f"{load.rate:.0f}/s: CPU per request, ms", [f"{one.cpu_ms:.2f}" for one in same])
    row("memory at its peak, MB", [f"{subject.peak_mb:.0f}" for subject in subjects])
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=float, nargs="*", default=[100.0, 300.0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--burst", type=int, default=5_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "bare.log").open("wb") as log:
        stack = free_stack(Path(folder) / "stack")
        provider = Provider.start(Path(folder), 0)
        try:
            stack.start()
            servers = stack.environment()["AI_KAFKA_BOOTSTRAP_SERVERS"]
            asyncio.run(create_topics(servers, "bare.requests", "bare.replies", "bench.replies"))
            call_ms = asyncio.run(direct_call_ms(f"http://127.0.0.1:{provider.port}/v1"))
            with bare_loop(servers, provider, "bare.requests", "bare.replies", log) as subject:
                bare = measure(servers, subject, options)
            with spillway(stack, provider, "bench.replies") as subject:
                ours = measure(servers, subject, options)
        finally:
            stack.stop()
            provider.stop()
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}; a direct SDK call takes {call_ms:.1f} ms.\n")
    print(table([ours, bare], call_ms))


if __name__ == "__main__":
    main()

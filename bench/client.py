"""The Python client beside a bare producer and consumer: the same requests, the same broker, the same instant answers.

    python bench/client.py                       # about a minute; prints the table of docs/benchmarks.md

No worker runs: a process answers each request on `ai.replies` as soon as it reads it, so what differs is the client.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from app.client import SpillwayClient, SyncSpillwayClient
from app.client.connection import Connection, assign_ends
from app.kafka import Cluster
from schemas.request import ReplyAddress
from schemas.response import Response
from streams.replies import reply_record
from streams.topology import REPLIES, REQUESTS
from tests.support.stack.running import free_stack

AT_ONCE = 64
WARM_UP = 200

Ask = Callable[[], Awaitable[None]]


async def respond(servers: str) -> None:
    """Answer whatever comes, as settlement would."""
    connection = Connection(Cluster(servers))
    async with connection.consumer() as consumer, connection.producer() as producer:
        await assign_ends(consumer, await connection.partitions(REQUESTS))
        print("ready", flush=True)
        async for record in consumer:
            body = json.loads(record.value)
            answer = Response(
                request_id=body["request_id"],
                workspace_id=body["workspace_id"],
                status="succeeded",
                content="hello",
                answered_at=datetime.now(UTC),
            )
            reply = reply_record(answer, ReplyAddress(topic=REPLIES), None)
            await producer.send(reply.topic, reply.value, key=reply.key, headers=list(reply.headers))


@asynccontextmanager
async def bare(servers: str) -> AsyncIterator[Ask]:
    """What anybody would write first: a producer, a consumer, and a future for each key. It promises nothing."""
    connection = Connection(Cluster(servers))
    waiting: dict[bytes, asyncio.Future[bytes]] = {}

    async def read(consumer: AIOKafkaConsumer) -> None:
        async for record in consumer:
            if (future := waiting.pop(record.key, None)) is not None:
                future.set_result(record.value)

    async with connection.consumer() as consumer, connection.producer() as producer:
        await assign_ends(consumer, await connection.partitions(REPLIES))
        reading = asyncio.create_task(read(consumer))
        try:
            yield lambda: _ask_bare(producer, waiting)
        finally:
            reading.cancel()


async def _ask_bare(producer: AIOKafkaProducer, waiting: dict[bytes, asyncio.Future[bytes]]) -> None:
    identity = str(uuid.uuid4())
    answer = waiting[identity.encode()] = asyncio.get_running_loop().create_future()
    body = {"request_id": identity, "workspace_id": "default", "prompt": "hello", "reply_to": REPLIES}
    await producer.send_and_wait(REQUESTS, json.dumps(body).encode(), key=b"default")
    assert json.loads(await answer)["content"] == "hello"


@asynccontextmanager
async def ours(servers: str) -> AsyncIterator[Ask]:
    async with SpillwayClient(servers) as client:
        yield lambda: _ask_ours(client)


async def _ask_ours(client: SpillwayClient) -> None:
    assert (await client.complete("hello")).content == "hello"


async def measure(ask: Ask, one_by_one: int, at_once: int) -> dict[str, float]:
    """Milliseconds of one request after another, then requests per second and CPU with many at a time."""
    for _ in range(WARM_UP):
        await ask()
    taken = []
    for _ in range(one_by_one):
        begun = time.perf_counter()
        await ask()
        taken.append((time.perf_counter() - begun) * 1000)
    slots = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with slots:
            await ask()

    begun, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one() for _ in range(at_once)))
    return _figures(taken, at_once, time.perf_counter() - begun, time.process_time() - used)


def measure_sync(servers: str, one_by_one: int, at_once: int) -> dict[str, float]:
    """As `measure`, with threads."""
    with SyncSpillwayClient(servers) as client, ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in range(WARM_UP):
            client.complete("hello")
        taken = []
        for _ in range(one_by_one):
            begun = time.perf_counter()
            client.complete("hello")
            taken.append((time.perf_counter() - begun) * 1000)
        begun, used = time.perf_counter(), time.process_time()
        list(pool.map(lambda _: client.complete("hello"), range(at_once)))
        return _figures(taken, at_once, time.perf_counter() - begun, time.process_time() - used)


def _figures(taken: list[float], count: int, seconds: float, cpu: float) -> dict[str, float]:
    ordered = sorted(taken)
    return {
        "one after another: p50, ms": statistics.median(ordered),
        "one after another: p99, ms": ordered[int(len(ordered) * 0.99)],
        f"{AT_ONCE} at a time: requests/s": count / seconds,
        f"{AT_ONCE} at a time: CPU of the client per request, ms": cpu * 1000 / count,
    }


@contextmanager
def responder(servers: str) -> Iterator[None]:
    command = [sys.executable, __file__, "--respond", servers]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        process.terminate()
        process.wait()


async def compare(servers: str, rounds: int, one_by_one: int, at_once: int) -> dict[str, list[dict[str, float]]]:
    """In turn, so that whatever else the machine does falls on all of them."""
    found: dict[str, list[dict[str, float]]] = {"bare": [], "SpillwayClient": [], "SyncSpillwayClient": []}
    for _ in range(rounds):
        for name, opened in (("bare", bare), ("SpillwayClient", ours)):
            async with opened(servers) as ask:
                found[name].append(await measure(ask, one_by_one, at_once))
        found["SyncSpillwayClient"].append(await asyncio.to_thread(measure_sync, servers, one_by_one, at_once))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--respond", metavar="SERVERS", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one-by-one", type=int, default=500)
    parser.add_argument("--at-once", type=int, default=5_000)
    given = parser.parse_args()
    if given.respond:
        asyncio.run(respond(given.respond))
        return
    with tempfile.TemporaryDirectory() as folder:
        stack = free_stack(Path(folder))
        stack.start()
        try:
            servers = stack.environment()["AI_KAFKA_BOOTSTRAP_SERVERS"]
            with responder(servers):
                found = asyncio.run(compare(servers, given.rounds, given.one_by_one, given.at_once))
        finally:
            stack.stop()
    print("| |", " | ".join(found), "|")
    print("|---" * (len(found) + 1) + "|")
    for figure in found["bare"][0]:
        values = (statistics.median(run[figure] for run in runs) for runs in found.values())
        print(f"| {figure} |", " | ".join(f"{value:,.2f}" if value < 100 else f"{value:,.0f}" for value in values), "|")


if __name__ == "__main__":
    main()

"""A backlog of 100,000 on a slow lane: what the worker's memory does, what other lanes feel, how a restart goes.

python bench/backlog.py --requests 100000

One worker, a provider that answers at once. All the backlog is for Claude at 50 requests a minute; OpenAI is asked
before, meanwhile and afterwards. Then the worker is stopped and started again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import psutil
from aiokafka import AIOKafkaProducer

from app.devstack.child import Child
from app.settings import Settings
from tests.support.provider.instant import Provider
from tests.support.reader.offsets import waiting
from tests.support.reader.topics import reading
from tests.support.stack.running import free_stack, settings_of
from tests.support.values.names import unique

LIMITS = """
[providers.claude]
rpm = 50
unlimited = ["rph", "tpm", "tph"]
[providers.openai]
rpm = 100000
unlimited = ["rph", "tpm", "tph"]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stack = free_stack(Path(folder) / "stack")
        stack.start()
        provider = Provider.start(Path(folder), 5)
        try:
            (Path(folder) / "limits.toml").write_text(LIMITS)
            told = provider.environment() | {"AI_SETTINGS_FILE": str(Path(folder) / "limits.toml")}
            worker = stack.worker(1, **told)
            worker.start()
            worker.wait_ready(90)
            settings = settings_of(stack)
            print(json.dumps(asyncio.run(run(settings, worker, options.requests)), indent=1), flush=True)
        finally:
            provider.stop()
            stack.stop()


async def run(settings: Settings, worker: Child, count: int) -> dict[str, Any]:
    servers = settings.kafka_bootstrap_servers
    found: dict[str, Any] = {
        "memory at rest, MB": memory(worker),
        "OpenAI's latency before, ms": await ask(servers, 20),
    }
    begun = time.monotonic()
    publishing = asyncio.create_task(publish(servers, count))
    samples = []
    while not publishing.done() or await waiting(servers, settings.kafka_application_id, "ai.requests") > 0:
        await asyncio.sleep(5)
        samples.append(memory(worker))
    await publishing
    found["seconds until all of it is admitted"] = round(time.monotonic() - begun)
    found["memory meanwhile, MB, every 5 s"] = samples
    found["OpenAI's latency with the backlog, ms"] = await ask(servers, 20)
    found["memory with the backlog, MB"] = memory(worker)
    begun = time.monotonic()
    await asyncio.to_thread(worker.stop)
    found["seconds to stop"] = round(time.monotonic() - begun, 1)
    begun = time.monotonic()
    worker.start()
    await asyncio.to_thread(worker.wait_ready, 120)
    found["seconds to start until ready"] = round(time.monotonic() - begun, 1)
    await ask(servers, 1)
    found["seconds to start until the first answer"] = round(time.monotonic() - begun, 1)
    await asyncio.sleep(20)
    found["memory after the restart, MB"] = memory(worker)
    found["OpenAI's latency after the restart, ms"] = await ask(servers, 20)
    return found


def memory(worker: Child) -> int:
    return int(psutil.Process(worker.pid).memory_info().rss / 2**20)


async def publish(servers: str, count: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=servers, linger_ms=20)
    await producer.start()
    deadline = (datetime.now(UTC) + timedelta(days=7)).isoformat()
    prefix = unique("b")
    for number in range(count):
        workspace = f"w{number % 20}"
        body = {
            "request_id": f"{prefix}-{number}",
            "workspace_id": workspace,
            "prompt": "x" * 400,
            "max_tokens": 64,
            "cache": {"enabled": False},
        }
        value = json.dumps({**body, "deadline": deadline, "priority": "batch"}).encode()
        await producer.send("ai.requests", value, key=workspace.encode())
    await producer.stop()


async def ask(servers: str, count: int) -> float:
    """Median milliseconds from publishing a request for OpenAI to its answer's settlement, one after the other."""
    times = []
    async with reading(servers, "ai.responses") as consumer, AIOKafkaProducer(bootstrap_servers=servers) as producer:
        for _ in range(count):
            identity = unique("o")
            body = {
                "request_id": identity,
                "prompt": "hello",
                "preferred_providers": ["openai"],
                "max_tokens": 16,
                "cache": {"enabled": False},
            }
            begun = time.time()
            await producer.send("ai.requests", json.dumps(body).encode(), key=b"quick")
            async for record in consumer:
                answer = json.loads(record.value)
                if answer["request_id"] == identity:
                    break
            # By the answer's own moment: aiokafka's consumer may sleep on what comes after a pause.
            times.append((datetime.fromisoformat(answer["answered_at"]).timestamp() - begun) * 1000)
            await asyncio.sleep(0.2)
    return round(statistics.median(times), 1)


if __name__ == "__main__":
    main()

"""What one worker holds on to: a steady load of requests that have a fallback, and nothing that waits.

python bench/memory.py                  150 a second, 6 minutes
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import psutil
from aiokafka import AIOKafkaProducer

from streams.topology import REQUESTS
from tests.support.clock.pace import Pace
from tests.support.provider.instant import Provider
from tests.support.stack.running import free_stack, settings_of
from tests.support.stack.workers import start_workers
from tests.support.values.names import unique

WORKSPACES = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=150.0)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--every", type=float, default=30.0, help="seconds between two looks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stack = free_stack(folder / "stack")
        stack.start()
        provider = Provider.start(folder, 50)
        try:
            worker = start_workers(stack, provider, 1, AI_ENABLE_CACHING="false")[0]
            assert worker.pid is not None
            asyncio.run(load(settings_of(stack).kafka_bootstrap_servers, psutil.Process(worker.pid), options))
        finally:
            provider.stop()
            stack.stop()


async def load(servers: str, process: psutil.Process, options: argparse.Namespace) -> None:
    prefix, pace, begun_at, looked_at = unique("m"), Pace(options.rate), time.monotonic(), 0.0
    async with AIOKafkaProducer(bootstrap_servers=servers, acks="all") as producer:
        for number in range(int(options.rate * options.minutes * 60)):
            workspace = f"w{number % WORKSPACES}"
            body = {"request_id": f"{prefix}-{number}", "workspace_id": workspace, "prompt": "hello", "max_tokens": 64}
            await producer.send(REQUESTS, json.dumps(body).encode(), key=workspace.encode())
            if (passed := time.monotonic() - begun_at) >= looked_at:
                print(f"{passed:6.0f} s {number:7} requests {process.memory_info().rss >> 20:5} MB", flush=True)
                looked_at += options.every
            await pace.step()
    print(f"{time.monotonic() - begun_at:6.0f} s at the end {process.memory_info().rss >> 20:5} MB", flush=True)


if __name__ == "__main__":
    main()

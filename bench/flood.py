"""What fifty workspaces feel when one of them floods their lane.

python bench/flood.py                 loads of 50 and 80 % of the limit, about 8 minutes

One lane of 600 requests a minute. 49 workspaces ask at random moments, together a share of the limit; first alone, then
beside 6,000 requests that the fiftieth has published at once. A wait is what an answer took beyond its call.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from app.devstack.stack import DevStack
from app.settings import Settings
from schemas.response import Response
from tests.support.clock.waiting import eventually
from tests.support.provider.simulator import Simulator
from tests.support.reader.lanes import lane_state
from tests.support.reader.topics import publish, reading
from tests.support.stack.running import free_stack, settings_of
from tests.support.stack.workers import fresh_lane, running_worker
from tests.support.values.names import unique

RPM = 600
FLOOD = 6_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", type=float, nargs="*", default=[0.5, 0.8])
    parser.add_argument("--seconds", type=float, default=90.0, help="of each half of a run")
    parser.add_argument("--latency-ms", type=int, default=1_000, help="of the provider")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stack = free_stack(folder / "stack")
        stack.start()
        simulator = Simulator.start(folder, f"--latency-ms={options.latency_ms}")
        try:
            for load in options.loads:
                found = run(stack, settings_of(stack), folder, simulator, load, options.seconds)
                print(json.dumps(found), flush=True)
        finally:
            simulator.stop()
            stack.stop()


def run(
    stack: DevStack, settings: Settings, folder: Path, simulator: Simulator, load: float, seconds: float
) -> dict[str, Any]:
    file = fresh_lane(folder, "openai", rpm=RPM)
    told = {"AI_PRIMARY_PROVIDER": "openai", "AI_FALLBACK_PROVIDERS": "", "AI_SETTINGS_FILE": str(file)}
    with running_worker(stack, **simulator.environment(), **told, AI_MAX_IN_FLIGHT="256"):
        return {"load, %": round(100 * load), **asyncio.run(both_halves(settings, file.stem, load, seconds))}


async def both_halves(settings: Settings, group: str, load: float, seconds: float) -> dict[str, Any]:
    servers = settings.kafka_bootstrap_servers
    async with reading(servers, "ai.responses") as consumer:
        calm = await half(servers, consumer, load, seconds)
        flood = unique("flood")
        deadline = (datetime.now(UTC) + timedelta(seconds=seconds + 60)).isoformat()
        body = {
            "workspace_id": "flood",
            "prompt": "x",
            "max_tokens": 16,
            "deadline": deadline,
            "cache": {"enabled": False},
        }
        many = [(b"flood", json.dumps({**body, "request_id": f"{flood}-{n}"}).encode()) for n in range(FLOOD)]
        await publish(servers, "ai.requests", many)
        await lane_state(settings, f"openai:{group}", lambda state: state.waiting > 0.9 * FLOOD, within=60)
        flooded = await half(servers, consumer, load, seconds)
        # What is left expires, or the next run would find it.
        await lane_state(settings, f"openai:{group}", lambda state: state.waiting == 0, within=180)
        return {"alone": calm, "beside the flood": flooded}


async def half(servers: str, consumer: AIOKafkaConsumer, load: float, seconds: float) -> dict[str, Any]:
    """49 workspaces at random moments; what their answers took."""
    prefix, dice = unique("other"), random.Random(11)  # noqa: S311 - a die, and nothing secret
    producer = AIOKafkaProducer(bootstrap_servers=servers)
    await producer.start()
    found: list[Response] = []
    collecting = asyncio.create_task(collect(consumer, prefix, found))
    count, begun = 0, time.monotonic()
    at = 0.0
    try:
        while (at := at + dice.expovariate(load * RPM / 60)) < seconds:
            await asyncio.sleep(max(begun + at - time.monotonic(), 0))
            workspace = f"w{dice.randrange(49)}"
            body = {
                "request_id": f"{prefix}-{count}",
                "workspace_id": workspace,
                "prompt": "hello",
                "max_tokens": 16,
                "cache": {"enabled": False},
            }
            await producer.send("ai.requests", json.dumps(body).encode(), key=workspace.encode())
            count += 1
        with suppress(AssertionError):  # How many were answered is among the figures.
            await eventually(lambda: collecting.done() or len(found) >= count, within=60, every=0.1)
    finally:
        await producer.stop()
        collecting.cancel()
    waits = sorted(one.latency - one.attempts[-1].latency for one in found if one.attempts)
    wholes = sorted(one.latency for one in found)
    return {
        "requests": count,
        "answered": len(found),
        "wait p50, s": at_share(waits, 0.5),
        "wait p95, s": at_share(waits, 0.95),
        "longest wait, s": at_share(waits, 1.0),
        "answer p95, s": at_share(wholes, 0.95),
    }


async def collect(consumer: AIOKafkaConsumer, prefix: str, found: list[Response]) -> None:
    async for record in consumer:
        if prefix.encode() in record.value:
            found.append(Response.model_validate_json(record.value))  # noqa: PERF401 - it is watched as it grows


def at_share(values: list[float], share: float) -> float:
    return round(values[min(int(len(values) * share), len(values) - 1)], 2)


if __name__ == "__main__":
    main()

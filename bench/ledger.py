"""How fast usage gets from Kafka into the ledger, and how long reports take when it is large.

python bench/ledger.py --rows 600000 --total 10000000

A stack of its own. `--rows` usage records of 1,000 workspaces are put into ai.usage, then one real worker is started,
and its sink empties the topic. The rest of `--total` is made inside ClickHouse, attempts and outcomes, and the reports
are timed from a client's side.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
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

from app.clickhouse.client import ClickHouse
from app.devstack.child import Child
from app.settings import Settings
from streams.topology import partition_of
from tests.support.clock.waiting import eventually
from tests.support.stack.running import free_stack, settings_of

WORKSPACES = 1_000
MONTH = datetime(2026, 11, 1, tzinfo=UTC)
#: Milliseconds between two attempts: ten million fill most of a month.
STEP = 240
PARTITIONS = 6

MODELS = "['claude-sonnet-4-5', 'gpt-4o', 'sonar', 'claude-haiku-4-5', 'gpt-4o-mini']"
PURPOSES = "['chat', 'search', 'summary', 'classify', 'translate']"

_ATTEMPTS = f"""
INSERT INTO attempts (workspace_id, request_id, attempt, version, kind, provider, model, user_id, purpose, lane,
    outcome, error_code, prompt_tokens, completion_tokens, cost, cost_source, budget_month, requested_at, started_at,
    latency)
WITH number AS n, 1 + sipHash64(n) % 5 AS pick,
    toDateTime64('2026-11-01 00:00:00', 3, 'UTC') + toIntervalMillisecond(n * {STEP}) AS moment,
    sipHash64(n, 6) % 40 = 0 AS broken
SELECT concat('w-', leftPad(toString(n % {WORKSPACES}), 4, '0')), lower(hex(sipHash128(n))), 1,
    bitShiftLeft(toUInt64(6), 60) + (n % 100000) * 1000, 'completion',
    ['claude', 'openai', 'perplexity', 'claude', 'openai'][pick], {MODELS}[pick],
    concat('u-', toString(sipHash64(n, 4) % 200)), {PURPOSES}[1 + sipHash64(n, 5) % 5], 'claude/0',
    if(broken, 'failed', 'succeeded'), if(broken, 'overloaded', NULL),
    100 + sipHash64(n, 7) % 3000, sipHash64(n, 8) % 800, toDecimal64(n % 100000, 9) / 1000000, 'computed', '2026-11',
    moment, moment + toIntervalMillisecond(5), 0.2 + sipHash64(n, 9) % 4000 / 1000
FROM numbers({{begin}}, {{count}})
"""  # noqa: S608 - of this file's own words

_OUTCOMES = """
INSERT INTO outcomes (workspace_id, request_id, kind, status, error_code, provider, model, user_id, purpose, cached,
    attempts, prompt_tokens, completion_tokens, cost, saved, budget_month, requested_at, answered_at, latency)
SELECT workspace_id, request_id, kind, if(outcome = 'succeeded', 'succeeded', 'failed'), error_code, provider, model,
    user_id, purpose, sipHash64(request_id) % 10 = 0 AS hit, 1, prompt_tokens, completion_tokens, cost,
    if(hit, cost, 0), budget_month, requested_at, started_at + toIntervalMillisecond(round(latency * 1000)), latency
FROM attempts WHERE started_at >= {begin:DateTime64(3, 'UTC')} AND started_at < {end:DateTime64(3, 'UTC')}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=600_000, help="through Kafka and the sink")
    parser.add_argument("--total", type=int, default=10_000_000, help="in the ledger when reports are timed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stack = free_stack(Path(folder) / "stack")
        stack.start()
        try:
            settings = settings_of(stack)
            asyncio.run(produce(settings.kafka_bootstrap_servers, options.rows))
            worker = stack.worker(1)
            worker.start()
            found = asyncio.run(ingest(settings, worker, options.rows))
            print(json.dumps(found, indent=1), flush=True)
            worker.stop()
            print((stack.log("worker-1")).read_text()[-1500:], file=sys.stderr)
            if options.total > options.rows:
                print(json.dumps(asyncio.run(reports(settings, options.rows, options.total)), indent=1), flush=True)
        finally:
            stack.stop()


async def produce(servers: str, count: int) -> None:
    """Usage records as a settlement writes them, in whole batches, which is many times faster than one by one."""
    producer = AIOKafkaProducer(bootstrap_servers=servers, max_batch_size=900_000, max_request_size=4_000_000)
    await producer.start()
    batches = [producer.create_batch() for _ in range(PARTITIONS)]
    sent = []

    async def send(partition: int) -> None:
        batches[partition].close()
        sent.append(await producer.send_batch(batches[partition], "ai.usage", partition=partition))
        batches[partition] = producer.create_batch()

    for number in range(count):
        key, value = record(number)
        partition = partition_of(key, PARTITIONS)
        if batches[partition].append(key=key, value=value, timestamp=None) is None:
            await send(partition)
            batches[partition].append(key=key, value=value, timestamp=None)
    for partition in range(PARTITIONS):
        await send(partition)
    await asyncio.gather(*sent)
    await producer.stop()


def record(number: int) -> tuple[bytes, bytes]:
    workspace = f"w-{number % WORKSPACES:04d}"
    moment = (MONTH + timedelta(milliseconds=STEP * number)).isoformat().replace("+00:00", "Z")
    value = {
        "schema_version": 1,
        "request_id": f"kafka-{number:024d}",
        "workspace_id": workspace,
        "attempt": 1,
        "kind": "completion",
        "provider": "claude",
        "model": "claude-sonnet-4-5",
        "user_id": f"u-{number % 200}",
        "purpose": "chat",
        "outcome": "succeeded",
        "tokens": {"prompt_tokens": 100 + number % 3000, "completion_tokens": number % 800, "cached_tokens": 0}
        | {"cache_write_tokens": 0, "cache_write_1h_tokens": 0, "reasoning_tokens": 0, "search_requests": 0},
        "cost": f"0.{number % 100000:06d}000",
        "cost_source": "computed",
        "requested_at": moment,
        "started_at": moment,
        "latency": 1.25,
        "lane": "claude/0",
        "month": "2026-11",
    }
    return workspace.encode(), json.dumps(value, separators=(",", ":")).encode()


async def ingest(settings: Settings, worker: Child, count: int) -> dict[str, Any]:
    """Rows a second, from the first row in the ledger until the last."""
    samples: list[tuple[float, int]] = []
    cpu: list[float] = []
    async with ClickHouse(settings) as database:
        while not samples or samples[-1][1] < count:
            rows = (await database.query("SELECT count() FROM attempts")).rows[0][0]
            if rows and (not samples or rows != samples[-1][1]):
                samples.append((time.monotonic(), rows))
                times = psutil.Process(worker.pid).cpu_times()
                cpu.append(times.user + times.system)
            await asyncio.sleep(0.1)
        distinct = (await database.query("SELECT count(), sum(cost) FROM attempts FINAL")).rows[0]

        async def all_hours() -> Any:
            found = (await database.query("SELECT sum(attempts), sum(cost) FROM usage_hours FINAL")).rows[0]
            return found if found[0] == distinct[0] else None

        hours = await eventually(all_hours, within=600, every=0.2, what="the hours have every row")
    seconds = samples[-1][0] - samples[0][0]
    rows = samples[-1][1] - samples[0][1]
    return {
        "rows": rows,
        "seconds": round(seconds, 1),
        "rows a second": round(rows / seconds),
        "the worker's CPU, µs a row": round((cpu[-1] - cpu[0]) / rows * 1e6, 1),
        "rows in the ledger, each once": distinct[0],
        "the hours add up to the same cost": hours[1] == distinct[1],
        "memory, MB": round(psutil.Process(worker.pid).memory_info().rss / 2**20),
    }


async def reports(settings: Settings, have: int, total: int) -> dict[str, Any]:
    from app.clickhouse.migrate import known_migrations  # noqa: PLC0415
    from app.clickhouse.overview import overview  # noqa: PLC0415
    from app.clickhouse.report import usage_report  # noqa: PLC0415
    from app.prices import Prices  # noqa: PLC0415

    async with ClickHouse(settings, timeout=120) as database:
        for begin in range(have, total, 500_000):
            await database.command(_ATTEMPTS.format(begin=begin, count=min(500_000, total - begin)))
        for day in range(31):
            period = {"begin": MONTH + timedelta(days=day), "end": MONTH + timedelta(days=day + 1)}
            await database.command(_OUTCOMES, period)
        fill = next(m for m in known_migrations() if m.name.endswith("_hours"))
        for statement in fill.statements():
            await database.command(statement)
        parts = await database.query(
            "SELECT table, count(), sum(rows), formatReadableSize(sum(bytes_on_disk)) FROM system.parts "
            "WHERE active AND database = currentDatabase() AND rows > 0 GROUP BY table ORDER BY table"
        )
        prices = Prices()
        chosen = random.Random(1).sample(range(WORKSPACES), 200)  # noqa: S311 - which workspaces, not a secret
        one = [await timed(usage_report(database, f"w-{number:04d}", "2026-11", prices=prices)) for number in chosen]
        every = [await timed(overview(database, "2026-11")) for _ in range(20)]
    return {
        "tables (parts, rows, size)": [list(row) for row in parts.rows],
        "a workspace's month, ms": spread(one),
        "all workspaces, ms": spread(every),
    }


async def timed(work: Any) -> float:
    begun = time.perf_counter()
    await work
    return (time.perf_counter() - begun) * 1000


def spread(times: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return {"p50": round(cuts[49], 1), "p95": round(cuts[94], 1), "max": round(max(times), 1)}


if __name__ == "__main__":
    main()

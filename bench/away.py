"""What is paid is kept: calls in flight when their reports cannot be written for ten minutes.

python bench/away.py                    500 calls, 10 minutes
python bench/away.py --seconds 130      a little longer than the producer tries

The topic of reports takes no record (its `min.insync.replicas` is more than there are) from the moment in which all
calls have begun. It ends with an error unless each call has one row in the ledger, and none is in doubt.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import psutil

from app.clickhouse.client import ClickHouse
from app.settings import Settings
from schemas.internal import AttemptReport
from streams.topology import REPORTS, REQUESTS, RESPONSES
from tests.support.clock.waiting import eventually
from tests.support.provider.instant import Provider
from tests.support.reader.lanes import requests
from tests.support.reader.topics import configure, consume_until, publish, reading
from tests.support.stack.running import free_stack, settings_of
from tests.support.stack.workers import start_workers
from tests.support.values.names import unique

#: Seconds that each call takes, less than it may: the topic is closed meanwhile.
CALL = 40.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=600.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stack = free_stack(folder / "stack")
        stack.start()
        provider = Provider.start(folder, int(CALL * 1000))
        try:
            worker = start_workers(
                stack, provider, 1, AI_MAX_IN_FLIGHT=str(options.calls), AI_PRIMARY_PROVIDER="openai"
            )[0]
            assert worker.pid is not None
            found = asyncio.run(run(settings_of(stack), provider, worker.pid, options))
            print(json.dumps(found), flush=True)
            assert worker.stop(), "the worker did not stop by itself"
        finally:
            provider.stop()
            stack.stop()
    return 0 if found["reported"] == found["ledger"] == found["calls"] == options.calls and not found["in doubt"] else 1


async def run(settings: Settings, provider: Provider, pid: int, options: argparse.Namespace) -> dict[str, Any]:
    servers, prefix, process = settings.kafka_bootstrap_servers, unique("away"), psutil.Process(pid)
    async with reading(servers, RESPONSES) as answers, reading(servers, REPORTS) as reports:
        await publish(servers, REQUESTS, requests(prefix, options.calls, preferred_providers=["openai"]))
        await eventually(lambda: len(_begun(provider, prefix)) >= options.calls, within=60, what="all calls have begun")
        await asyncio.to_thread(_takes_records, servers, False)
        before, begun_at = process.memory_info().rss, time.monotonic()
        await asyncio.sleep(options.seconds)
        during = process.memory_info().rss
        early = [record for batch in (await reports.getmany(timeout_ms=500)).values() for record in batch]
        await asyncio.to_thread(_takes_records, servers, True)
        seconds = time.monotonic() - begun_at
        told = early + await consume_until(
            reports,
            lambda found: len({_attempt(record) for record in [*early, *found]}) >= options.calls,
            within=200,
        )
        await consume_until(answers, lambda found: len({record.value for record in found}) >= options.calls, within=60)
    rows = await eventually(lambda: _ledger(settings, prefix, options.calls), within=60, what="all are in the ledger")
    calls = _begun(provider, prefix)
    return {
        "seconds away": round(seconds),
        "calls": sum(calls.values()),
        "reported": len({_attempt(record) for record in told}),
        "reports": len(told),
        "reported before": len(early),
        "ledger": sum(rows.values()),
        "in doubt": rows["in_doubt"],
        "MB before": before >> 20,
        "MB while away": during >> 20,
    }


def _begun(provider: Provider, prefix: str) -> Counter[str]:
    return Counter(
        event["id"]
        for event in provider.events()
        if event["event"] == "start" and (event["id"] or "").startswith(prefix)
    )


def _attempt(record: Any) -> str:
    usage = AttemptReport.model_validate_json(record.value).usage
    return usage.attempt_id if usage else ""


def _takes_records(servers: str, takes: bool) -> None:
    """Whether the topic of reports takes any."""
    configure(servers, "min.insync.replicas", {REPORTS: "1" if takes else "2"})


async def _ledger(settings: Settings, prefix: str, count: int) -> Counter[str] | None:
    sql = "SELECT toString(outcome), count() FROM ledger WHERE startsWith(request_id, {p:String}) GROUP BY outcome"
    async with ClickHouse(settings) as database:
        rows: Counter[str] = Counter(dict((await database.query(sql, {"p": prefix})).rows))
    return rows if sum(rows.values()) >= count else None


if __name__ == "__main__":
    sys.exit(main())

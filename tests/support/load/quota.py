"""Loads on lanes with quotas: more work than they allow, for some minutes, against a simulator that keeps the same."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from app.devstack.stack import DevStack
from app.settings import Settings
from tests.support.clock.pace import Pace
from tests.support.provider.simulator import MINUTE, Seen, Simulator, busiest_minute, ignored_waits, per_minute
from tests.support.stack.workers import fresh_lane, running_worker
from tests.support.values.names import unique

HTTP_TOO_MANY = 429


@dataclass(frozen=True)
class Mix:
    """A quota, the limits that we believe in, and the requests: bytes of prompt and tokens of answer, drawn alike."""

    rpm: int | None
    tpm: int | None
    requests: Sequence[tuple[int, int]]
    believed: float = 1.0
    provider: str = "openai"
    latency_ms: int = 200
    faults: tuple[str, ...] = ()


SHORT, LONG = (80, 64), (6_000, 1_000)
MIXES = {
    "rpm-short": Mix(300, None, [SHORT]),
    "rpm-slow-answers": Mix(300, None, [SHORT], latency_ms=3_000),
    "tpm-short": Mix(None, 60_000, [SHORT]),
    "tpm-long": Mix(None, 120_000, [LONG]),
    "both-mixed": Mix(300, 100_000, [SHORT, SHORT, SHORT, LONG], provider="claude"),
    "twice-too-high": Mix(240, 80_000, [SHORT, LONG], believed=2.0),
    "twice-too-high-claude": Mix(240, 80_000, [SHORT, LONG], believed=2.0, provider="claude"),
    "faults": Mix(
        600, None, [SHORT], faults=("--error-rate", "429=0.03", "--error-rate", "500=0.03", "--error-rate", "529=0.03")
    ),
}


@dataclass
class MixResult:
    """What the simulator's journal says. Times are seconds of its clock."""

    mix: Mix
    calls: list[Seen]
    verdict: dict[str, Any] = field(default_factory=dict)

    @property
    def refused(self) -> int:
        return sum(call.status == HTTP_TOO_MANY for call in self.calls)

    @property
    def used(self) -> float:
        """The share of the scarcer quota that was used after the first minute."""
        begin = self.calls[0].at + MINUTE
        # A lane with work calls until it is stopped.
        end = max(self.calls[-1].at, begin + 1.0)
        accepted = [call for call in self.calls if call.status != HTTP_TOO_MANY]
        shares = [
            per_minute(accepted, begin, end, amount) / quota
            for amount, quota in (("requests", self.mix.rpm), ("tokens", self.mix.tpm))
            if quota
        ]
        return max(shares)

    def summary(self) -> dict[str, Any]:
        return {
            "calls": len(self.calls),
            "429": self.refused,
            "quota used after the first minute, %": round(100 * self.used, 2),
            "busiest minute, requests": busiest_minute(self.calls),
            "busiest minute, tokens": busiest_minute(self.calls, "tokens"),
            "quota": [self.mix.rpm, self.mix.tpm],
            "retry-after ignored": len(ignored_waits(self.calls)),
            "verdict": [self.verdict.get("errors"), self.verdict.get("warnings")],
        }


async def run_mix(stack: DevStack, settings: Settings, folder: Path, mix: Mix, seconds: float) -> MixResult:
    """Keep a lane busy for so long."""
    limits = [f"--rpm={mix.rpm}" if mix.rpm else "", f"--tpm={mix.tpm}" if mix.tpm else ""]
    believed = {
        name: round(quota * mix.believed) for name, quota in (("rpm", mix.rpm), ("tpm", mix.tpm)) if quota is not None
    }
    file = fresh_lane(folder, mix.provider, **believed)
    alone = {"AI_PRIMARY_PROVIDER": mix.provider, "AI_FALLBACK_PROVIDERS": "", "AI_RETRY_ATTEMPTS": "5"}
    told = {**alone, "AI_SETTINGS_FILE": str(file), "AI_MAX_IN_FLIGHT": "256"}
    options = (*filter(None, limits), f"--latency-ms={mix.latency_ms}", *mix.faults)
    with (
        Simulator.running(folder, *options) as simulator,
        running_worker(stack, **simulator.environment(), **told),
    ):
        publishing = asyncio.create_task(publish_mix(settings, mix, seconds))
        await asyncio.sleep(seconds)
        publishing.cancel()
        return MixResult(mix, simulator.calls(mix.provider), simulator.verdict())


async def publish_mix(settings: Settings, mix: Mix, seconds: float) -> None:
    """Half as much again as the lane can call, from ten workspaces, with deadlines at the end of the run."""
    mean = sum(len_bytes // 4 + answer + 40 for len_bytes, answer in mix.requests) / len(mix.requests)
    per_second = min((mix.rpm or 10**9) / MINUTE, (mix.tpm or 10**9) / MINUTE / mean) * 1.5
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers)
    await producer.start()
    prefix, pace = unique("q"), Pace(2 * per_second)
    deadline = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds + 5))
    try:
        dice = random.Random(5)  # noqa: S311 - the same requests in every run
        for number in range(int(per_second * (seconds + MINUTE))):
            size, answer = dice.choice(mix.requests)
            workspace, identity = f"w{dice.randrange(10)}", f"{prefix}-{number}"
            body = {
                "request_id": identity,
                "workspace_id": workspace,
                "prompt": f"{identity} ".ljust(size, "x"),
                "max_tokens": answer,
                "deadline": deadline,
            }
            await producer.send("ai.requests", json.dumps(body).encode(), key=workspace.encode())
            await pace.step()
    finally:
        await producer.stop()

"""A worker whose OpenAI answers at once, by repeating the prompt, and whose Claude takes its time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.devstack.child import Child
from app.devstack.stack import DevStack
from tests.support.provider.simulator import Simulator
from tests.support.stack.workers import WIDE_LANES, running_worker

#: Seconds that Claude takes, at least.
SLOW = 20.0


@contextmanager
def quick_and_slow(stack: DevStack, folder: Path, **more: str) -> Iterator[Child]:
    """The worker, ready. Streams of OpenAI have a pause of 50 ms between two chunks."""
    with (
        Simulator.running(folder, f"--latency-ms={SLOW * 1000:.0f}", name="slow") as slow,
        Simulator.running(folder, "--response-style=echo", "--stream-chunk-delay-ms=50", name="quick") as quick,
    ):
        environment = quick.environment() | {"AI_CLAUDE_BASE_URL": slow.environment()["AI_CLAUDE_BASE_URL"]}
        alone = {"AI_PRIMARY_PROVIDER": "openai", "AI_FALLBACK_PROVIDERS": "claude"}
        told = environment | alone | WIDE_LANES | {"AI_MAX_IN_FLIGHT": "256"} | more
        with running_worker(stack, **told) as worker:
            yield worker

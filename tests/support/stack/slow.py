"""A worker whose OpenAI answers at once, by repeating the prompt, and whose Claude takes its time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.devstack.child import Child
from app.devstack.stack import DevStack
from tests.support.provider.simulator import Simulator
from tests.support.stack.workers import WIDE_LANES

#: Seconds that Claude takes, at least.
SLOW = 20.0


@contextmanager
def quick_and_slow(stack: DevStack, folder: Path, **more: str) -> Iterator[Child]:
    """The worker, ready. Streams of OpenAI have a pause of 50 ms between two chunks."""
    quick = Simulator.start(folder, "--response-style=echo", "--stream-chunk-delay-ms=50", name="quick")
    slow = Simulator.start(folder, f"--latency-ms={SLOW * 1000:.0f}", name="slow")
    environment = quick.environment() | {"AI_CLAUDE_BASE_URL": slow.environment()["AI_CLAUDE_BASE_URL"]}
    alone = {"AI_PRIMARY_PROVIDER": "openai", "AI_FALLBACK_PROVIDERS": "claude"}
    worker = stack.worker(1, **(environment | alone | WIDE_LANES | {"AI_MAX_IN_FLIGHT": "256"} | more))
    worker.start()
    try:
        worker.wait_ready(90)
        yield worker
    finally:
        worker.stop()
        quick.stop()
        slow.stop()

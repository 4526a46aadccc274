"""A provider that answers at once, or after a fixed delay, and journals its calls: bench/instant_provider.py."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.values.names import unique

INSTANT_PROVIDER = Path(__file__).parents[3] / "bench" / "instant_provider.py"


@dataclass
class Provider:
    """The instant provider as a process, with the journal of its calls."""

    process: subprocess.Popen[str]
    port: int
    journal: Path

    @classmethod
    def start(cls, folder: Path, delay_ms: int, *more: str) -> Provider:
        """`more` are further options of its command."""
        journal = folder / f"{unique('calls')}.jsonl"
        command = [sys.executable, str(INSTANT_PROVIDER), "--port", "0", "--delay-ms", str(delay_ms)]
        process = subprocess.Popen(
            [*command, "--journal", str(journal), *more], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert process.stdout is not None
        words = process.stdout.readline().split()
        return cls(process, int(words[-1]), journal)

    @classmethod
    @contextmanager
    def running(cls, folder: Path, delay_ms: int) -> Iterator[Provider]:
        """One that is there as long as the block."""
        provider = cls.start(folder, delay_ms)
        try:
            yield provider
        finally:
            provider.stop()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()

    def environment(self, caller: str = "") -> dict[str, str]:
        """What a worker needs to call it; the journal's paths begin with the caller's name, if there is one."""
        base = f"http://127.0.0.1:{self.port}" + (f"/from-{caller}" if caller else "")
        paths = {"claude": "/anthropic", "openai": "/v1", "perplexity": "/perplexity/v1"}
        keys = {f"AI_{name.upper()}_API_KEY": "instant" for name in paths}
        return keys | {f"AI_{name.upper()}_BASE_URL": base + path for name, path in paths.items()}

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.journal.read_text().splitlines()]

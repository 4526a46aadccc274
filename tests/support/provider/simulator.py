"""A provider simulator of a test's own, with quotas and faults, and what its journal says of us."""

from __future__ import annotations

import http.client
import json
import sys
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.devstack.child import Child
from app.devstack.ports import HOST, choose
from app.devstack.simulator import PATHS, variables

MINUTE = 60.0
SHORT_MINUTE = Path(__file__).with_name("short_minute.py")


@dataclass(frozen=True)
class Seen:
    """One call as the provider saw it. `at` is in seconds of its own clock; `tokens` is what it charged."""

    at: float
    ended_at: float
    provider: str
    status: int
    tokens: int
    retry_after: float | None
    workspace: str


@dataclass
class Simulator:
    """`llmock` on a port of its own. Quotas and faults are its command line's; `minute` is what its quotas' has, in
    seconds.
    """

    port: int
    process: Child
    providers: Sequence[str] = field(default_factory=lambda: list(PATHS))

    @classmethod
    def start(
        cls, folder: Path, *options: str, name: str = "llmock", port: int = 0, minute: float = MINUTE
    ) -> Simulator:
        port = port or choose(0, "")
        program = [sys.executable, str(SHORT_MINUTE), str(minute)]
        if minute == MINUTE:
            program = [str(Path(sys.executable).parent / "llmock")]
        command = [*program, "serve", "--host", HOST, "--port", str(port)]
        process = Child(
            name=name,
            command=[*command, "--log-level", "warning", *options],
            log=folder / f"{name}.log",
            ready=lambda: is_there(port),
        )
        process.start()
        process.wait_ready(30)
        # Its journal is not begun anew here: where the port is known before, a worker may have called it by now.
        return cls(port, process)

    @classmethod
    @contextmanager
    def running(
        cls, folder: Path, *options: str, name: str = "llmock", port: int = 0, minute: float = MINUTE
    ) -> Iterator[Simulator]:
        """One that is there as long as the block."""
        simulator = cls.start(folder, *options, name=name, port=port, minute=minute)
        try:
            yield simulator
        finally:
            simulator.stop()

    def stop(self) -> None:
        """At once: asked in order, it would wait for whoever still holds a connection."""
        self.process.wanted = False
        self.process.kill()

    def environment(self) -> dict[str, str]:
        return variables(list(self.providers), self.port)

    def forget(self) -> None:
        """Begin a new journal."""
        self._ask("DELETE", "/_llmock/requests")

    def verdict(self) -> dict[str, Any]:
        found: dict[str, Any] = self._ask("GET", "/_llmock/verdict")
        return found

    def calls(self, provider: str | None = None) -> list[Seen]:
        """The journal in the order of arrival, without what the tests themselves have asked."""
        listed = self._ask("GET", "/_llmock/requests")["requests"]
        seen = [_seen(call) for call in listed if call["method"] == "POST"]
        return [call for call in seen if provider is None or call.provider == provider]

    def bodies(self, provider: str) -> list[tuple[str, dict[str, Any]]]:
        """What was sent to a provider: each path below its base URL, and the body."""
        listed = self._ask("GET", "/_llmock/requests")["requests"]
        calls = [call for call in listed if call["method"] == "POST" and _vendor(call) == provider]
        return [(call["path"].removeprefix(PATHS[provider]), call["body"]) for call in calls]

    def _ask(self, method: str, path: str) -> Any:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=30)
        try:
            connection.request(method, path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


def is_there(port: int) -> bool:
    """Whether a server of ours says that it is alive."""
    connection = http.client.HTTPConnection(HOST, port, timeout=2.0)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


def _vendor(call: dict[str, Any]) -> str:
    """Our name of the provider that was called."""
    name: str = call["provider"]
    return {"anthropic": "claude"}.get(name, name)


def _seen(call: dict[str, Any]) -> Seen:
    body = call["body"] or {}
    # As the simulator charges it: a quarter of the body's bytes, and all that the answer may be long.
    size = len(json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode())
    limit = body.get("max_tokens") or body.get("max_completion_tokens") or 0
    return Seen(
        at=call["started_at"],
        ended_at=call["ended_at"],
        provider=_vendor(call),
        status=call["status"],
        tokens=max(1, size // 4) + limit,
        retry_after=call["retry_after"],
        workspace=json.dumps(body.get("messages"))[:200],
    )


def busiest_minute(
    calls: Iterable[Seen], amount: str = "requests", on_the_way: float = 0.0, minute: float = MINUTE
) -> int:
    """The most that was asked for in any minute, wherever it begins.

    `on_the_way` is how much longer than usual a call may have been on its way to the provider, in seconds: calls that
    left a minute apart may have arrived that much closer together.
    """
    ordered = sorted(calls, key=lambda call: call.at)
    moments = [call.at for call in ordered]
    sums = [0]
    for call in ordered:
        sums.append(sums[-1] + (1 if amount == "requests" else call.tokens))
    # An interval that holds the most ends at a call: everything since a minute before it.
    return max(
        (
            sums[number + 1] - sums[bisect_left(moments, moment - (minute - on_the_way) + 1e-9)]
            for number, moment in enumerate(moments)
        ),
        default=0,
    )


def per_minute(calls: Iterable[Seen], begin: float, end: float, amount: str = "requests") -> float:
    """What was asked for per minute between two moments."""
    inside = [call for call in calls if begin <= call.at < end]
    total = len(inside) if amount == "requests" else sum(call.tokens for call in inside)
    return total * MINUTE / (end - begin)


def ignored_waits(calls: Iterable[Seen]) -> list[tuple[Seen, Seen]]:
    """Calls that began after a refusal had arrived and before its `retry-after` was over, with that refusal."""
    ordered = sorted(calls, key=lambda call: call.at)
    found = []
    for refusal in ordered:
        if refusal.retry_after is None or refusal.status < 400:
            continue
        # The answer needs a moment to arrive, and calls that are being sent cannot be called back.
        heard, over = refusal.ended_at + 0.05, refusal.ended_at + refusal.retry_after
        found += [(refusal, call) for call in ordered if call.provider == refusal.provider and heard < call.at < over]
    return found

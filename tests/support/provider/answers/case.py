"""One answer as somebody gives it, and what it has to become. README.md says how to write one."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CASES = Path(__file__).with_name("cases")
#: The forms that providers' answers have. `named` is a provider of the deployment's own, with OpenAI's format.
KINDS = ("claude", "openai", "perplexity", "named")
#: Seconds of silence after which a provider is given up, where a case does not say.
TIMEOUT = 5.0


@dataclass(frozen=True)
class Given:
    """What the server sends. `pieces` are sent one after another, `pause` seconds apart."""

    status: int
    headers: Mapping[str, str]
    pieces: tuple[bytes, ...]
    pause: float = 0.0
    #: The connection is closed without an end, as by a process that dies.
    breaks: bool = False


@dataclass(frozen=True)
class Case:
    """`whole` and `stream` are what is sent to who asks for the one or the other; None: that is not asked."""

    name: str
    about: str
    providers: tuple[str, ...]
    whole: Given | None
    stream: Given | None
    expect: Mapping[str, Any]
    #: What is expected only of the one, beside or in the place of what is expected of both.
    expect_of: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    #: Seconds of silence after which the provider is given up.
    timeout: float = TIMEOUT

    def given(self, *, streamed: bool) -> Given | None:
        return self.stream if streamed else self.whole

    def expected(self, *, streamed: bool) -> dict[str, Any]:
        return {**self.expect, **self.expect_of.get("stream" if streamed else "whole", {})}


def read_case(file: Path) -> Case:
    told = tomllib.loads(file.read_text())
    if "events" in told:
        told["pieces"] = [f"data: {data}\n\n" for data in told["events"]]
    whole, stream = _given(told, "body"), _given(told, "pieces")
    asked = told.get("asked", ["whole", "stream"])
    expect = dict(told["expect"])
    expect_of = {which: expect.pop(which, {}) for which in ("whole", "stream")}
    return Case(
        name=file.stem,
        about=told["about"],
        providers=tuple(told["providers"]),
        # What is given only in one framing is given to everybody.
        whole=(whole or stream) if "whole" in asked else None,
        stream=(stream or whole) if "stream" in asked else None,
        expect=expect,
        expect_of=expect_of,
        timeout=told.get("timeout", TIMEOUT),
    )


def _given(told: Mapping[str, Any], name: str) -> Given | None:
    content = told.get(name)
    if content is None:
        return None
    encoding = told.get("encoding", "utf-8")
    pieces = [content] if isinstance(content, str) else content
    kind = "application/json" if name == "body" else "text/event-stream"
    return Given(
        status=told.get("status", 200),
        headers={"content-type": kind, **told.get("headers", {})},
        pieces=tuple(piece.encode(encoding) for piece in pieces),
        pause=told.get("pause", 0.0),
        breaks=told.get("breaks", False),
    )


def all_cases() -> Iterator[Case]:
    yield from map(read_case, sorted(CASES.glob("*.toml")))

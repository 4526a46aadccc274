"""The load of a round: what is asked, and in which order, by its seed alone."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bench.chaos_parts.names import ALERTING, PARTITIONS, REPLIES, TIGHT, WORKSPACES

Headers = tuple[tuple[str, bytes], ...]
NOT_KEPT: dict[str, Any] = {"cache": {"enabled": False}}
MIXES = ("all", "quota", "tight", "zombie", "many", "few")

#: Records that nobody should send. Each must get an answer or a dead letter, and stop nothing.
HOSTILE: tuple[tuple[str, bytes | None, Headers], ...] = (
    ("empty", b"", ()),
    ("null", None, ()),
    ("notjson", b"\xff\xfe\x00garbage", ()),
    ("array", b"[1,2]", ()),
    ("notype", b'{"prompt": 5}', ()),
    ("unknownkind", b'{"kind":"telepathy","prompt":"x"}', ()),
    ("version", b'{"schema_version": 9, "prompt":"x"}', ()),
    ("deep", b'{"prompt":"x","metadata":' + b'{"a":' * 300 + b"1" + b"}" * 301, ()),
    ("toolarge", json.dumps({"prompt": "y" * 950_000}).encode(), ()),
    ("headers", b'{"prompt":"x"}', tuple((f"h{number}", b"v") for number in range(400))),
    ("bigheader", b'{"prompt":"x"}', (("h", b"v" * 80_000),)),
    ("reply", b'{"prompt":"x [tag=h]","reply_to":"no.such.topic"}', ()),
    ("replyown", b'{"prompt":"x","reply_to":"ai.requests"}', ()),
    ("model", b'{"prompt":"x","model":"nobody-knows-1"}', ()),
    ("nul", b'{"prompt":"a\\u0000b","workspace_id":"w\\u0000"}', ()),
    ("badid", b'{"prompt":"x [tag=h]","request_id":"' + b"i" * 2000 + b'"}', ()),
    ("surrogate", b'{"prompt":"\\ud800 lone","max_tokens":8}', ()),
    ("inf", b'{"prompt":"x","temperature":1e999}', ()),
    ("negtokens", b'{"prompt":"x","max_tokens":-5}', ()),
    ("hugetokens", b'{"prompt":"x [tag=h]","max_tokens":99999999999999999999}', ()),
    ("past", b'{"prompt":"x","deadline":"1999-01-01T00:00:00Z"}', ()),
    ("wsslash", b'{"prompt":"x","workspace_id":"a/b"}', ()),
    ("wsat", b'{"prompt":"x","workspace_id":"@account"}', ()),
    ("dupkeys", b'{"prompt":"x [tag=h]","prompt":"z [tag=h]","max_tokens":8}', ()),
)


@dataclass
class Asked:
    """One request. Times are seconds since 1970; `tag` is what the answer must begin with."""

    id: str
    workspace: str
    kind: str
    tag: str
    route: tuple[str, ...] = ()
    stream: bool = False
    deadline: float | None = None
    #: When the broker had its cancellation.
    cancelled_at: float | None = None
    #: How often it was handed to the producer, and how often the broker has acknowledged it.
    sent: int = 0
    acknowledged: int = 0

    def body(self, prompt: str, **more: Any) -> dict[str, Any]:
        body: dict[str, Any] = {
            "request_id": self.id,
            "workspace_id": self.workspace,
            "prompt": prompt,
            "max_tokens": 64,
            **more,
        }
        if self.stream:
            body |= {"stream": True, "reply_to": REPLIES}
        if self.deadline is not None:
            body["deadline"] = datetime.fromtimestamp(self.deadline, UTC).isoformat()
        if self.route:
            body["preferred_providers"] = list(self.route)
        return body


@dataclass(frozen=True)
class Publish:
    """Publish a request after `delay` seconds; the key is its workspace."""

    asked: Asked
    value: bytes
    partition: int | None = None
    delay: float = 0.0


@dataclass(frozen=True)
class Cancel:
    asked: Asked
    delay: float


@dataclass(frozen=True)
class Hostile:
    label: str
    value: bytes | None
    key: bytes | None
    partition: int | None
    headers: Headers


Act = Publish | Cancel | Hostile


class Mix:
    """A sequence of requests. `many` is the number of workspaces of the mix of that name."""

    def __init__(self, seed: int, name: str = "all", many: int = 200, clock: Callable[[], float] = time.time) -> None:
        self._seed, self._many, self._clock = seed, many, clock
        self._dice = random.Random(f"load-{seed}")  # noqa: S311 - the same again for the same seed
        self._number = 0
        self._next = {
            "all": self._any,
            "quota": self._quota,
            "tight": self._tight,
            "zombie": self._zombie,
            "many": self._of_many,
            "few": self._of_few,
        }[name]

    def next(self) -> list[Act]:
        """What is done next: most often one thing."""
        return list(self._next(self._dice.random()))

    def _new(self, kind: str, workspace: str | None = None, *, stream: bool = False) -> Asked:
        self._number += 1
        name, dice = f"c{self._seed}-{self._number}", self._dice
        route = _route(dice.random())
        workspace = workspace or dice.choice(WORKSPACES)
        if dice.random() < 0.09:
            workspace = dice.choice(list(TIGHT))
        elif dice.random() < 0.04:
            workspace = dice.choice(list(ALERTING))
        return Asked(name, workspace, kind, name, route, stream)

    # Everything -------------------------------------------------------------------------------------------------------

    def _any(self, drawn: float) -> Iterator[Act]:
        kinds = (
            (0.44, self._plain),
            (0.56, self._stream),
            (0.66, self._cached),
            (0.675, self._flight),
            (0.74, self._repeated),
            (0.80, self._cancelled),
            (0.85, self._urgent),
            (0.89, self._hostile),
            (0.92, self._chain),
            (0.926, self._large),
            (1.0, self._elsewhere),
        )
        return next(kind for below, kind in kinds if drawn < below)()

    def _plain(self) -> Iterator[Act]:
        asked = self._new("plain")
        yield _publish(asked, f"[tag={asked.tag}] tell me something about the sea and the wind", **NOT_KEPT)

    def _stream(self) -> Iterator[Act]:
        asked = self._new("stream", stream=True)
        yield _publish(asked, f"[tag={asked.tag}] tell me a story of the river", **NOT_KEPT)

    def _cached(self) -> Iterator[Act]:
        asked = self._new("cached", self._dice.choice(WORKSPACES[:6]))
        asked.tag = f"pool{self._dice.randrange(12)}-{asked.workspace}"
        asked.route = ()
        asked.stream = self._dice.random() < 0.15
        yield _publish(asked, f"[tag={asked.tag}] a question that many ask")

    def _flight(self) -> Iterator[Act]:
        """The same question by several at the same moment: one call answers them all."""
        workspace = self._dice.choice(WORKSPACES)
        tag = f"flight{self._number}"
        for _ in range(self._dice.randrange(4, 16)):
            asked = self._new("flight", workspace)
            asked.workspace, asked.route, asked.tag = workspace, (), tag
            asked.stream = self._dice.random() < 0.2
            value = _encoded(asked.body(f"[tag={tag}] the same at the same moment"))
            yield Publish(asked, value, delay=self._dice.random() * 0.4)

    def _repeated(self) -> Iterator[Act]:
        """One request published more than once, some of it in a partition that is not its own."""
        asked, dice = self._new("dup"), self._dice
        first = _publish(asked, f"[tag={asked.tag}] ask it more than once", **NOT_KEPT)
        yield first
        for _ in range(dice.randrange(1, 4)):
            delay = dice.choice([0.0, 0.05, dice.random() * 3, dice.random() * 25])
            partition = dice.randrange(PARTITIONS) if dice.random() < 0.3 else None
            yield Publish(asked, first.value, partition, delay)

    def _cancelled(self) -> Iterator[Act]:
        dice = self._dice
        stream = dice.random() < 0.3
        asked = self._new("cancel", stream=stream)
        yield _publish(asked, f"[tag={asked.tag}] I may change my mind", **NOT_KEPT)
        yield Cancel(asked, dice.choice([0.0, 0.1, dice.random() * 1.5, dice.random() * 6]))

    def _urgent(self) -> Iterator[Act]:
        asked = self._new("deadline")
        asked.deadline = self._clock() + self._dice.choice([0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0])
        yield _publish(asked, f"[tag={asked.tag}] quick", **NOT_KEPT)

    def _hostile(self) -> Iterator[Act]:
        label, value, headers = self._dice.choice(HOSTILE)
        partition = self._dice.randrange(PARTITIONS) if self._dice.random() < 0.5 else None
        yield Hostile(label, value, b"k" if value is None else None, partition, headers)

    def _chain(self) -> Iterator[Act]:
        """All providers but the last of its route refuse; now and then all of them."""
        asked = self._new("chain")
        asked.route = self._dice.choice(
            [
                ("openai", "local", "claude"),
                ("local", "claude"),
                ("claude", "openai"),
                ("openai", "local"),
                ("local", "openai", "claude"),
            ]
        )
        fail = ",".join(asked.route[:-1]) if self._dice.random() < 0.93 else "claude,openai,local"
        yield _publish(asked, f"[tag={asked.tag}][fail={fail}] go down the chain", **NOT_KEPT)

    def _large(self) -> Iterator[Act]:
        asked = self._new("large")
        size = self._dice.choice([100_000, 400_000, 700_000, 899_000])
        prompt = f"[tag={asked.tag}] x "
        prompt += "lorem ipsum " * ((size - len(_encoded(asked.body(prompt, **NOT_KEPT)))) // 12)
        if asked.workspace in TIGHT:
            asked.workspace = "w0"
        asked.route = ()
        yield _publish(asked, prompt, **NOT_KEPT)

    def _elsewhere(self) -> Iterator[Act]:
        asked = self._new("elsewhere")
        value = _encoded(asked.body(f"[tag={asked.tag}] in another partition", **NOT_KEPT))
        yield Publish(asked, value, self._dice.randrange(PARTITIONS))

    # One thing only ---------------------------------------------------------------------------------------------------

    def _quota(self, drawn: float) -> Iterator[Act]:
        asked = self._new("plain")
        asked.route = ("openai",) if drawn < 0.75 else ("local", "openai")
        yield _publish(asked, f"[tag={asked.tag}] within the quota", **NOT_KEPT)

    def _tight(self, drawn: float) -> Iterator[Act]:
        asked = self._new("plain")
        asked.workspace = "tight3" if drawn < 0.5 else self._dice.choice(WORKSPACES)
        asked.route = ("openai",)
        yield _publish(asked, f"[tag={asked.tag}] tight and queued", **NOT_KEPT)

    def _zombie(self, drawn: float) -> Iterator[Act]:
        """A queue at one provider, a tight budget in it, and others that flow."""
        asked = self._new("plain")
        if drawn < 0.4:
            asked.workspace, asked.route = "tight3", ("openai",)
        elif drawn < 0.6:
            asked.workspace, asked.route = self._dice.choice(WORKSPACES), ("openai",)
        else:
            asked.workspace, asked.route = f"q{self._dice.randrange(120)}", ("claude",)
        yield _publish(asked, f"[tag={asked.tag}] tight and queued", **NOT_KEPT)

    def _of_many(self, _: float) -> Iterator[Act]:
        asked = self._new("plain")
        asked.workspace, asked.route = f"m{self._dice.randrange(self._many)}", ()
        yield _publish(asked, f"[tag={asked.tag}] many workspaces", **NOT_KEPT)

    def _of_few(self, _: float) -> Iterator[Act]:
        asked = self._new("plain", self._dice.choice(WORKSPACES[:3]))
        asked.workspace = self._dice.choice(WORKSPACES[:4])
        yield _publish(asked, f"[tag={asked.tag}] few workspaces", **NOT_KEPT)


def _route(drawn: float) -> tuple[str, ...]:
    routes: tuple[tuple[float, tuple[str, ...]], ...] = (
        (0.5, ()),
        (0.74, ("openai",)),
        (0.86, ("local",)),
        (0.93, ("openai", "claude")),
        (1.0, ("local", "openai", "claude")),
    )
    return next(route for below, route in routes if drawn < below)


def _encoded(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()


def _publish(asked: Asked, prompt: str, **more: Any) -> Publish:
    return Publish(asked, _encoded(asked.body(prompt, **more)))

"""Publishing many requests, and counting what becomes of them."""

from __future__ import annotations

import asyncio
import re
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError

from app.cli.answers import AnswerReader
from app.cli.wire import consuming, producing
from app.kafka import Cluster
from app.tracing.client import publishing
from schemas.base import DEFAULT_WORKSPACE
from schemas.codec import Headers
from schemas.money import ZERO
from schemas.response import Response, Status
from streams.topology import REQUESTS, RESPONSES

_REQUEST_ID = re.compile(r"^[\x21-\x7e]{1,200}$")


@dataclass(frozen=True)
class Outgoing:
    """One line as it is published. `request_id` is what its response will carry."""

    key: bytes | None
    value: bytes
    headers: Headers
    request_id: str


@dataclass
class Answered:
    """The responses of one status. `cost` is in US dollars."""

    requests: int = 0
    cost: Decimal = ZERO


@dataclass
class Published:
    """What was published and, where that was waited for, what became of it."""

    published: int = 0
    seconds: float = 0.0
    refused: list[tuple[int, str]] = field(default_factory=list)
    answers: dict[str, Answered] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()

    @property
    def ok(self) -> bool:
        failed = any(status != Status.SUCCEEDED for status in self.answers)
        return not (self.refused or self.missing or failed)

    def count(self, response: Response) -> None:
        line = self.answers.setdefault(str(response.status), Answered())
        line.requests += 1
        line.cost += response.usage.cost

    def as_data(self, *, waited: bool) -> dict[str, Any]:
        """The summary for programs."""
        data: dict[str, Any] = {
            "published": self.published,
            "refused": [{"line": line, "reason": reason} for line, reason in self.refused],
            "seconds": round(self.seconds, 3),
        }
        if waited:
            data["answers"] = {
                status: {"requests": line.requests, "cost": f"{line.cost:f}"} for status, line in self.answers.items()
            }
            data["missing"] = sorted(self.missing)
        return data


def outgoing(line: bytes) -> Outgoing:
    """The line with its key, and with an id where it states none itself.

    The id travels as a header, which Spillway reads, so that the value stays as it is and its response can be known.
    """
    body: Any = None
    with suppress(orjson.JSONDecodeError):
        body = orjson.loads(line)
    if not isinstance(body, dict):
        body = None
    workspace = body.get("workspace_id", DEFAULT_WORKSPACE) if body else None
    key = workspace.encode() if isinstance(workspace, str) and workspace else None
    own = body.get("request_id") if body else None
    if isinstance(own, str) and _REQUEST_ID.match(own):
        return Outgoing(key, line, (), own)
    given = str(uuid.uuid4())
    return Outgoing(key, line, (("ce_id", given.encode()),), given)


async def publish_lines(
    cluster: Cluster, lines: Iterable[bytes], *, rate: float | None = None, patience: float | None = None
) -> Published:
    """Publish every line that is not empty; with `patience` (seconds) also wait for the responses."""
    done = Published()
    async with AsyncExitStack() as stack:
        answers = None
        if patience is not None:
            answers = AnswerReader(await stack.enter_async_context(consuming(cluster, RESPONSES)))
            await answers.start()
        began = time.monotonic()
        async with producing(cluster) as producer:
            wanted = await _send_all(producer, lines, done, rate)
        done.seconds = time.monotonic() - began
        if answers is not None and patience is not None:
            done.missing = await _collect(answers, wanted, done, patience)
    return done


async def _send_all(
    producer: AIOKafkaProducer, lines: Iterable[bytes], done: Published, rate: float | None
) -> set[str]:
    """Send the lines; the ids of those that are in the topic. Raises the first error of what is not, in the end."""
    on_the_way: set[asyncio.Future[Any]] = set()
    wanted: set[str] = set()
    lost = _Lost()
    progress = _Progress("published")
    async for number, line in _paced(lines, rate):
        record = outgoing(line)
        try:
            workspace = record.key.decode() if record.key else None
            with publishing(REQUESTS, record.value, record.headers, record.request_id, workspace) as told:
                sent = await producer.send(REQUESTS, record.value, key=record.key, headers=list(told.headers))
        except MessageSizeTooLargeError:
            done.refused.append((number, f"it has {len(line):,} bytes, more than a record may have"))
            continue
        on_the_way.add(sent)
        sent.add_done_callback(on_the_way.discard)
        sent.add_done_callback(lost.hear)
        wanted.add(record.request_id)
        done.published += 1
        progress.show(done.published)
    await asyncio.gather(*on_the_way, return_exceptions=True)
    progress.end()
    if lost.first is not None:
        raise lost.first
    return wanted


async def _collect(answers: AnswerReader, wanted: set[str], done: Published, patience: float) -> frozenset[str]:
    progress = _Progress("answered", len(wanted))

    def count(response: Response) -> None:
        done.count(response)
        progress.show(sum(line.requests for line in done.answers.values()))

    try:
        return await answers.collect(wanted, patience=patience, on_answer=count)
    finally:
        progress.end()


async def _paced(lines: Iterable[bytes], rate: float | None) -> AsyncIterator[tuple[int, bytes]]:
    """The lines that are not empty with their numbers, not faster than the rate (per second)."""
    began, sent = time.monotonic(), 0
    for number, line in enumerate(lines, start=1):
        value = line.strip()
        if not value:
            continue
        if rate is not None:
            await asyncio.sleep(max(began + sent / rate - time.monotonic(), 0))
        yield number, value
        sent += 1


class _Lost:
    """The first error of all that was sent: what has failed is done, and no longer waited for."""

    def __init__(self) -> None:
        self.first: BaseException | None = None

    def hear(self, sent: asyncio.Future[Any]) -> None:
        if not sent.cancelled():
            self.first = self.first or sent.exception()


class _Progress:
    """A counter in one line of the terminal; nothing where the standard error is none."""

    INTERVAL = 0.1

    def __init__(self, verb: str, total: int | None = None) -> None:
        self._verb = verb
        self._of = f" of {total:,}" if total is not None else ""
        self._shown = 0.0
        self._active = sys.stderr.isatty()

    def show(self, number: int) -> None:
        now = time.monotonic()
        if self._active and now - self._shown > self.INTERVAL:
            self._shown = now
            sys.stderr.write(f"\r{number:,}{self._of} {self._verb}")
            sys.stderr.flush()

    def end(self) -> None:
        if self._active and self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

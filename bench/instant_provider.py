"""A provider that answers at once: the ground under every benchmark, so that what is measured is Spillway.

It speaks just enough HTTP/1.1 (keep-alive, `content-length` bodies) for the three wire formats and always gives the
same well-formed answer:

    POST /anthropic/v1/messages              Anthropic's Messages
    POST /v1/chat/completions                OpenAI's chat completions
    POST /perplexity/v1/chat/completions     Perplexity's Sonar, with its own statement of the cost
    GET  /count                              {"<path>": <requests answered or waiting>}

    python bench/instant_provider.py --port 0 --delay-ms 300 --journal calls.jsonl
    python bench/instant_provider.py --delay-ms 300 --slow-every 10 --slow-s 45

Slow attempts are chosen by their ids, one in so many: the same ones each time. A path may begin with its caller's name
(`/from-w1/v1/chat/completions`); the journal keeps it.

It prints `listening on PORT`. The journal gets one line as a call starts and one as it ends, written by a single
`write(2)` so that killing anything loses none: {"t": seconds, "path": …, "id": <X-Spillway-Attempt>, "event":
"start" | "end" | "cut"}, where `cut` is a caller that left before its answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import cast
from zlib import crc32

CLAUDE = {
    "id": "msg_instant",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": "An instant answer of constant length."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 24,
        "output_tokens": 9,
        "cache_read_input_tokens": 0,
        "cache_creation_input_tokens": 0,
    },
}
OPENAI = {
    "id": "chatcmpl-instant",
    "object": "chat.completion",
    "created": 1_760_000_000,
    "model": "gpt-4o-mini",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "An instant answer of constant length."},
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 24,
        "completion_tokens": 9,
        "total_tokens": 33,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    },
}
PERPLEXITY = {
    **OPENAI,
    "id": "pplx-instant",
    "model": "sonar",
    "citations": ["https://example.com/source"],
    "usage": {
        "prompt_tokens": 24,
        "completion_tokens": 9,
        "total_tokens": 33,
        "cost": {"input_tokens_cost": 2.4e-05, "output_tokens_cost": 9e-06, "total_cost": 0.005033},
    },
}


def _http(status: str, payload: object) -> bytes:
    body = json.dumps(payload).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


ANSWERS = {
    b"/anthropic/v1/messages": _http("200 OK", CLAUDE),
    b"/v1/chat/completions": _http("200 OK", OPENAI),
    b"/perplexity/v1/chat/completions": _http("200 OK", PERPLEXITY),
}
#: A path that begins so has its caller's name before the first slash.
CALLER = b"/from-"
NOT_FOUND = _http("404 Not Found", {"error": {"type": "not_found_error", "message": "no such path"}})


@dataclass
class Desk:
    """What all connections share. `journal` is a file descriptor opened for appending. An answer takes `delay` seconds;
    one attempt of `slow_every`, if that is not 0, takes `slow` seconds.
    """

    delay: float = 0.0
    journal: int | None = None
    slow_every: int = 0
    slow: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)

    def seconds(self, attempt: str | None) -> float:
        """How long the answer of an attempt takes."""
        if self.slow_every and attempt and crc32(attempt.encode("latin-1")) % self.slow_every == 0:
            return self.slow
        return self.delay

    def note(self, event: str, path: bytes, attempt: str | None) -> None:
        if self.journal is None:
            return
        line = {"t": time.time(), "path": path.decode("latin-1"), "id": attempt, "event": event}
        os.write(self.journal, json.dumps(line).encode() + b"\n")


def _header(head: bytes, lowered: bytes, name: bytes) -> bytes | None:
    """One header's value out of a request head; `lowered` is the head in lower case, found once per request."""
    start = lowered.find(b"\r\n" + name + b":")
    if start < 0:
        return None
    start += len(name) + 3
    end = lowered.find(b"\r\n", start)
    return head[start : end if end >= 0 else None].strip()


class Connection(asyncio.Protocol):
    """One kept-alive connection; its caller sends one request at a time, as HTTP/1.1 clients do."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._waiting: tuple[asyncio.TimerHandle, bytes, str | None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if self._waiting is not None:
            timer, path, attempt = self._waiting
            timer.cancel()
            self._desk.note("cut", path, attempt)
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        while self._take_request():
            pass

    def _take_request(self) -> bool:
        """Handle the first request of the buffer if all of it is here."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = self._buffer[:end]
        lowered = head.lower()
        total = end + 4 + int(_header(head, lowered, b"content-length") or 0)
        if len(self._buffer) < total:
            return False
        self._buffer = self._buffer[total:]
        self._handle(head, lowered)
        return True

    def _handle(self, head: bytes, lowered: bytes) -> None:
        path = head.split(b" ", 2)[1]
        if path == b"/count":
            return self._send(_http("200 OK", dict(self._desk.counts)))
        attempt = _header(head, lowered, b"x-spillway-attempt")
        named = attempt.decode("latin-1") if attempt else None
        self._desk.counts[path.decode("latin-1")] += 1
        self._desk.note("start", path, named)
        if seconds := self._desk.seconds(named):
            timer = asyncio.get_running_loop().call_later(seconds, self._answer, path, named)
            self._waiting = (timer, path, named)
            return None
        return self._answer(path, named)

    def _answer(self, path: bytes, attempt: str | None) -> None:
        self._waiting = None
        self._desk.note("end", path, attempt)
        known = path[path.index(b"/", 1) :] if path.startswith(CALLER) else path
        self._send(ANSWERS.get(known, NOT_FOUND))

    def _send(self, answer: bytes) -> None:
        if self._transport is not None:
            self._transport.write(answer)


async def serve(host: str, port: int, desk: Desk) -> None:
    """Answer until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    server = await loop.create_server(lambda: Connection(desk), host, port, backlog=1024)
    print(f"listening on {server.sockets[0].getsockname()[1]}", flush=True)
    await stopping.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="milliseconds before each answer")
    parser.add_argument("--slow-every", type=int, default=0, help="one attempt in so many is slow; 0 is none")
    parser.add_argument("--slow-s", type=float, default=45.0, help="seconds before a slow answer")
    parser.add_argument("--journal", help="append each call's start and end to this file")
    options = parser.parse_args()
    journal = os.open(options.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) if options.journal else None
    desk = Desk(options.delay_ms / 1000, journal, options.slow_every, options.slow_s)
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        asyncio.run(serve(options.host, options.port, desk))
    else:
        uvloop.run(serve(options.host, options.port, desk))


if __name__ == "__main__":
    main()

"""Three providers in one process, for bench/chaos.py: two wire formats, faults by a hash of the attempt, a journal.

    python bench/chaos_parts/provider.py --seed 4 --journal calls.jsonl --control 29203 \\
        --ports claude=29200,openai=29201,local=29202

A path begins with the name of its caller: /w1/v1/messages, /w2/v1/chat/completions. On the control port `down NAME...`
closes providers and cuts their calls, `up NAME...` opens them again, `calm` ends all other faults.

The journal gets one line as a call starts and one as it ends, each by a single write(2), so that killing anything loses
none. An answer begins with the tag of its prompt and ends with the number of its words, so that a receiver can see
whether it is whole and its own. A prompt may ask for a fault itself: `[fail=claude,openai]`, `[plan=hang]`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import random
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

HOST = "127.0.0.1"
TAG = re.compile(rb"\[tag=([^\]\\]{1,80})\]")
FAIL = re.compile(rb"\[fail=([a-z,]*)\]")
PLAN = re.compile(rb"\[plan=([a-z0-9_]+)\]")
#: Bytes of a body in which a prompt's own wishes are looked for.
BEGIN = 3_000
WORDS = ["river", "stone", "cloud", "paper", "light", "amber", "north", "table", "seven", "green", "quiet", "lemon"]
#: What goes wrong with a call, and the share of calls.
FAULTS = (
    ("429", 0.004),
    ("429n", 0.002),
    ("500", 0.015),
    ("503", 0.005),
    ("529", 0.01),
    ("cutbody", 0.012),
    ("trickle", 0.012),
    ("wrong", 0.010),
    ("close", 0.008),
    ("hang", 0.002),
)
STATUSES = {name: int(name[:3]) for name in ("429", "429n", "500", "503", "529")}
#: Answers that are none.
WRONG = (b"<html>busy</html>", b'{"oops": ', b'{"choices": [], "content": []}', b"[1,2,3]")
#: Seconds.
HANGS, TRICKLES = 25.0, 0.6


@dataclass(frozen=True)
class Call:
    """One call, and what will be said to it."""

    number: int
    provider: str
    attempt: str
    plan: str
    #: Seconds before the answer begins.
    latency: float
    stream: bool
    model: str
    text: str
    prompt_tokens: int
    completion_tokens: int
    dice: random.Random


class CallerLeftError(Exception):
    """The caller has closed the connection, or sent something before its answer was over."""


class Desk:
    """All providers. `faults` multiplies how often they fail by themselves."""

    def __init__(self, seed: str, faults: float, journal: str, ports: Mapping[str, int]) -> None:
        self._seed, self._faults, self._ports = seed, faults, dict(ports)
        self._journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._servers: dict[str, asyncio.Server] = {}
        self._writers: dict[str, set[asyncio.StreamWriter]] = {name: set() for name in ports}
        self._number = 0
        self._calm = False

    def note(self, event: str, **more: Any) -> None:
        line = {"t": time.time(), "event": event, **more}
        os.write(self._journal, json.dumps(line).encode() + b"\n")

    # Up and down ------------------------------------------------------------------------------------------------------

    async def serve(self, control: int) -> None:
        """Until this process is ended."""
        await self.up(*self._ports)
        server = await asyncio.start_server(self._control, HOST, control)
        print("listening", flush=True)
        await server.serve_forever()

    async def up(self, *names: str) -> None:
        for name in names:
            if name not in self._servers:
                self._servers[name] = await asyncio.start_server(
                    partial(self._connection, name),
                    HOST,
                    self._ports[name],
                    limit=4_000_000,
                    backlog=512,
                )
                self.note("up", provider=name)

    def down(self, *names: str) -> None:
        for name in names:
            server = self._servers.pop(name, None)
            if server is not None:
                server.close()
                for writer in list(self._writers[name]):
                    writer.transport.abort()
                self.note("down", provider=name)

    async def _control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        match (await reader.readline()).decode().split():
            case ["down", *names]:
                self.down(*names)
            case ["up", *names]:
                await self.up(*names)
            case ["calm"]:
                self._calm = True
        writer.write(b"ok\n")
        await writer.drain()
        writer.close()

    # Calls ------------------------------------------------------------------------------------------------------------

    async def _connection(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers[name].add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                while await self._request(name, reader, writer):
                    pass
        finally:
            self._writers[name].discard(writer)
            with contextlib.suppress(OSError):
                writer.close()

    async def _request(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Read one request and answer it; True if another may follow."""
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        method, path, _ = first.split(b" ", 2)
        pairs = (line.partition(b":") for line in lines if line)
        headers = {key.strip().lower(): value.strip() for key, _, value in pairs}
        length = int(headers.get(b"content-length", 0))
        body = await reader.readexactly(length) if length else b""
        if method == b"GET":
            models = {"object": "list", "data": [{"id": "m1", "object": "model"}], "has_more": False}
            await _send(writer, 200, json.dumps(models).encode())
            return True
        attempt = headers.get(b"x-spillway-attempt", b"").decode("latin-1")
        call = self._call(name, path.decode().split("/")[1], attempt, body)
        try:
            return await self._answer(call, reader, writer)
        except CallerLeftError:
            self.note("cut", call=call.number, attempt=attempt, how="waiting")
        except OSError:
            self.note("cut", call=call.number, attempt=attempt, how="writing")
        return False

    def _call(self, name: str, caller: str, attempt: str, body: bytes) -> Call:
        self._number += 1
        found = TAG.search(body[:BEGIN]) or TAG.search(body)
        tag = found[1].decode() if found else "none"
        # By the attempt: the same attempt meets the same fault, whoever makes it and when.
        dice = random.Random(hashlib.sha256(f"{self._seed}/{name}/{attempt}".encode()).digest())  # noqa: S311
        plan = self._plan(name, dice.random(), body)
        latency = 0.02 + dice.random() * 0.25
        if dice.random() < 0.10:
            latency = 0.3 + dice.random() * 2.7
        try:
            asked: dict[str, Any] = json.loads(body)
        except ValueError:
            asked = {}
        stream = bool(asked.get("stream"))
        most = int(asked.get("max_tokens") or asked.get("max_completion_tokens") or 64)
        self.note(
            "start",
            call=self._number,
            provider=name,
            worker=caller,
            attempt=attempt,
            plan=plan,
            stream=stream,
            tag=tag,
            max_tokens=most,
        )
        # By the call: a model says something else each time.
        dice = random.Random(f"{self._seed}/{self._number}/{attempt}")  # noqa: S311
        count = max(1, min(most - 6, 6 + int(dice.random() * 30)))
        words = [WORDS[int(dice.random() * len(WORDS))] for _ in range(count)]
        return Call(
            number=self._number,
            provider=name,
            attempt=attempt,
            plan=plan,
            latency=HANGS if plan == "hang" else latency,
            stream=stream,
            model=asked.get("model", "?"),
            text=f"A[{tag}] {' '.join(words)} END{count}",
            prompt_tokens=max(3, min(len(body) // 12, 50_000)),
            completion_tokens=count + 4,
            dice=dice,
        )

    def _plan(self, name: str, drawn: float, body: bytes) -> str:
        if found := PLAN.search(body[:BEGIN]):
            return found[1].decode()
        if (found := FAIL.search(body[:BEGIN])) and name in found[1].decode().split(","):
            return "500"
        if self._calm:
            return "ok"
        drawn /= self._faults or 1e-9
        for fault, share in FAULTS:
            if drawn < share:
                return fault
            drawn -= share
        return "ok"

    async def _answer(self, call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """True if the connection can be used again."""
        await _stays(reader, call.latency)
        told: dict[str, Any] = {"call": call.number, "attempt": call.attempt}
        if status := STATUSES.get(call.plan):
            refusal = {"type": "error", "error": {"type": "x", "message": "chaos"}}
            headers = {"retry-after": "1"} if call.plan == "429" else {}
            await _send(writer, status, json.dumps(refusal).encode(), headers)
            self.note("end", **told, how=call.plan)
            return True
        if call.plan == "close":
            self.note("end", **told, how="close")
            writer.transport.abort()
            return False
        if call.plan == "wrong":
            await _send(writer, 200, WRONG[int(call.dice.random() * len(WRONG))])
            self.note("end", **told, how="wrong")
            return True
        whole = await (_stream(call, reader, writer) if call.stream else _whole(call, writer))
        how = "ok" if whole else "cutbody" if call.plan == "cutbody" else "lost"
        self.note("end", **told, how=how, prompt_tokens=call.prompt_tokens, completion_tokens=call.completion_tokens)
        return whole and not call.stream


async def _stays(reader: asyncio.StreamReader, seconds: float) -> None:
    """Wait; raises CallerLeftError when the caller does not."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(reader.read(1), seconds)
        raise CallerLeftError


async def _send(
    writer: asyncio.StreamWriter, status: int, body: bytes, headers: Mapping[str, str] | None = None
) -> None:
    writer.write(_head(status, body, headers or {}) + body)
    await writer.drain()


def _head(status: int, body: bytes, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


# One answer -----------------------------------------------------------------------------------------------------------


async def _whole(call: Call, writer: asyncio.StreamWriter) -> bool:
    """True if all of it was written."""
    body = json.dumps(_message(call) if call.provider == "claude" else _completion(call)).encode()
    writer.write(_head(200, body, {}))
    if call.plan == "cutbody":
        writer.write(body[: len(body) // 2])
        await writer.drain()
        writer.close()
        return False
    if call.plan == "trickle":
        step = len(body) // 6 + 1
        for begin in range(0, len(body), step):
            # Not behind the last piece: the answer is whole then.
            await asyncio.sleep(TRICKLES if begin else 0)
            writer.write(body[begin : begin + step])
            await writer.drain()
    else:
        writer.write(body)
    await writer.drain()
    return not writer.transport.is_closing()


def _message(call: Call) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": call.model,
        "content": [{"type": "text", "text": call.text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": call.prompt_tokens,
            "output_tokens": call.completion_tokens,
            "cache_read_input_tokens": 0,
            "cache_creation_input_tokens": 0,
        },
    }


def _completion(call: Call) -> dict[str, Any]:
    message = {"role": "assistant", "content": call.text}
    return {
        "id": "cc_1",
        "object": "chat.completion",
        "created": 1,
        "model": call.model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": _usage(call),
    }


def _usage(call: Call) -> dict[str, int]:
    return {
        "prompt_tokens": call.prompt_tokens,
        "completion_tokens": call.completion_tokens,
        "total_tokens": call.prompt_tokens + call.completion_tokens,
    }


# A stream -------------------------------------------------------------------------------------------------------------


async def _stream(call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """True if all of it was written."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
    size = len(call.text) // (3 + int(call.dice.random() * 8)) + 1
    pieces = [call.text[begin : begin + size] for begin in range(0, len(call.text), size)]
    gap = TRICKLES if call.plan == "trickle" else 0.02 + call.dice.random() * 0.15
    wire = _MessageEvents(call) if call.provider == "claude" else _CompletionEvents(call)
    writer.writelines(wire.begin())
    for number, piece in enumerate(pieces):
        if call.plan == "cutbody" and number == len(pieces) // 2:
            await writer.drain()
            writer.transport.abort()
            return False
        writer.write(wire.piece(piece))
        await writer.drain()
        if writer.transport.is_closing():
            raise ConnectionError
        try:
            await _stays(reader, gap)
        except CallerLeftError:
            raise ConnectionError from None
    writer.writelines(wire.end())
    await writer.drain()
    return True


def _event(body: Mapping[str, Any], name: str | None = None) -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(body).encode() + b"\n\n"


@dataclass(frozen=True)
class _MessageEvents:
    call: Call

    def begin(self) -> Iterator[bytes]:
        usage = {"input_tokens": self.call.prompt_tokens, "output_tokens": 1}
        message: dict[str, Any] = {
            "id": "m",
            "type": "message",
            "role": "assistant",
            "model": self.call.model,
            "content": [],
            "stop_reason": None,
            "usage": usage,
        }
        yield _named("message_start", message=message)
        yield _named("content_block_start", index=0, content_block={"type": "text", "text": ""})

    def piece(self, text: str) -> bytes:
        return _named("content_block_delta", index=0, delta={"type": "text_delta", "text": text})

    def end(self) -> Iterator[bytes]:
        yield _named("content_block_stop", index=0)
        usage = {"output_tokens": self.call.completion_tokens}
        yield _named("message_delta", delta={"stop_reason": "end_turn"}, usage=usage)
        yield _named("message_stop")


def _named(name: str, **more: Any) -> bytes:
    return _event({"type": name, **more}, name)


@dataclass(frozen=True)
class _CompletionEvents:
    call: Call

    def begin(self) -> Iterator[bytes]:
        yield from ()

    def piece(self, text: str) -> bytes:
        return self._chunk([{"index": 0, "delta": {"content": text}, "finish_reason": None}])

    def end(self) -> Iterator[bytes]:
        yield self._chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}])
        yield self._chunk([], usage=_usage(self.call))
        yield b"data: [DONE]\n\n"

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        chunk = {"id": "c", "object": "chat.completion.chunk", "model": self.call.model, "choices": choices}
        return _event({**chunk, **more})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", required=True)
    parser.add_argument("--journal", required=True)
    parser.add_argument("--ports", required=True, help="claude=PORT,openai=PORT,local=PORT")
    parser.add_argument("--control", type=int, required=True, help="the port that takes commands")
    parser.add_argument("--faults", type=float, default=1.0, help="0: no fault but those that a prompt asks for")
    options = parser.parse_args()
    ports = {name: int(port) for name, _, port in (pair.partition("=") for pair in options.ports.split(","))}
    asyncio.run(Desk(options.seed, options.faults, options.journal, ports).serve(options.control))


if __name__ == "__main__":
    main()

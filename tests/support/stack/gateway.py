"""The HTTP door as a process, with a key."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from app.devstack.child import Child
from app.devstack.ports import HOST
from app.devstack.stack import DevStack
from tests.support.clock.waiting import eventually
from tests.support.stack.server import server


@dataclass(frozen=True)
class OpenDoor:
    """A door that serves. `ask` returns the status, the headers and the body of an answer."""

    process: Child
    port: int

    @property
    def base_url(self) -> str:
        return f"http://{HOST}:{self.port}/v1"

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], Any]:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            connection.request(method, path, content, sent)
            answer = connection.getresponse()
            raw = answer.read()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, _parsed(raw)
        finally:
            connection.close()

    def lets_in(self, key: str) -> bool:
        return self.ask("GET", "/v1/models", **bearer(key))[0] == http.client.OK

    async def knows(self, key: str) -> None:
        """Wait until it does: a new key comes to it by a topic."""
        await eventually(lambda: asyncio.to_thread(self.lets_in, key), what="the door knows the key")


def bearer(key: str) -> dict[str, str]:
    """The header of a request with this key, or with the token of a page."""
    return {"authorization": f"Bearer {key}"}


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw


@contextmanager
def serving(stack: DevStack, *options: str, **environment: str) -> Iterator[OpenDoor]:
    """`spillway serve` on a free port."""
    process, port = server(stack, "door", "serve", *options, **environment)
    process.start()
    try:
        process.wait_ready(60)
        yield OpenDoor(process, port)
    finally:
        process.stop()

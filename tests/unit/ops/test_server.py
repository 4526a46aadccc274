"""The worker's HTTP server on a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from app.ops.checks import Readiness
from app.ops.server import AddressError, OpsServer

Start = Callable[..., Awaitable[str]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts a server on any free port and returns its address; all are stopped after the test."""
    running: list[OpsServer] = []

    async def begin(found: dict[str, str | None], *, metrics: bytes | None = b"up 1\n", port: int = 0) -> str:
        async def ready() -> Readiness:
            return Readiness(found)

        async def exposition() -> bytes:
            return metrics or b""

        note = tmp_path / "ops"
        server = OpsServer("127.0.0.1", port, ready=ready, exposition=exposition if metrics else None, note=note)
        await server.start()
        running.append(server)
        return f"http://{note.read_text().strip()}"

    yield begin
    for server in running:
        await server.stop()


async def get(address: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(address) as reply:
        body = await (reply.json() if reply.content_type == "application/json" else reply.text())
        return reply.status, body


async def test_it_is_alive_even_where_it_is_not_ready_and_says_what_is_missing(start: Start) -> None:
    address = await start({"partitions": None, "kafka": "no answer within 3 seconds"})
    assert await get(f"{address}/health") == (200, {"alive": True})
    status, body = await get(f"{address}/ready")
    assert status == 503
    assert body["checks"] == {"partitions": "ok", "kafka": "no answer within 3 seconds"}


async def test_a_worker_that_lacks_nothing_is_ready(start: Start) -> None:
    status, body = await get(f"{await start({'partitions': None})}/ready")
    assert (status, body["ready"]) == (200, True)


async def test_metrics_are_text_and_there_is_no_such_page_where_they_are_off(start: Start) -> None:
    assert await get(f"{await start({})}/metrics") == (200, "up 1\n")
    assert (await get(f"{await start({}, metrics=None)}/metrics"))[0] == 404


async def test_a_taken_port_is_refused_by_the_name_of_its_setting(start: Start) -> None:
    address = await start({})
    with pytest.raises(AddressError, match=r"AI_OPS_PORT: 127\.0\.0\.1:\d+ is taken"):
        await start({}, port=int(address.rpartition(":")[2]))

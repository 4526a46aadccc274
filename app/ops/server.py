"""A worker's own small HTTP server, in the worker's loop: `/health`, `/ready`, `/metrics`."""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import orjson
from aiohttp import web

from app.ops.checks import Readiness

log = logging.getLogger(__name__)

#: Seconds that an open connection may hold up the worker's end.
CLOSE_WITHIN = 1.0

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class AddressError(Exception):
    """The server cannot listen where it is told to. The message is one sentence."""


class OpsServer:
    """Listens on one address; port 0 is any free one, and the file `ops` in the data folder says which.

    `exposition` is the text of `/metrics`; without it there is no such page.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        ready: Callable[[], Awaitable[Readiness]],
        exposition: Callable[[], Awaitable[bytes]] | None,
        note: Path,
    ) -> None:
        self._host, self._port = host, port
        self._ready = ready
        self._exposition = exposition
        self._note = note
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Raises AddressError."""
        app = web.Application()
        app.add_routes([web.get("/health", self._health), web.get("/ready", self._tell_ready)])
        if self._exposition is not None:
            app.router.add_get("/metrics", partial(_metrics, self._exposition))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_WITHIN)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self.stop()
            raise AddressError(_explain(self._host, self._port, error)) from None
        host, port = self._runner.addresses[0][:2]
        self._note.write_text(f"{host}:{port}\n")
        log.info("worker_listens: http://%s:%s", host, port)

    async def stop(self) -> None:
        self._note.unlink(missing_ok=True)
        if self._runner is not None:
            await self._runner.cleanup()

    async def _health(self, _: web.Request) -> web.Response:
        return _json({"alive": True}, 200)

    async def _tell_ready(self, _: web.Request) -> web.Response:
        found = await self._ready()
        return _json(found.as_data(), 200 if found.ready else 503)


async def _metrics(exposition: Callable[[], Awaitable[bytes]], _: web.Request) -> web.Response:
    return web.Response(body=await exposition(), headers={"Content-Type": METRICS_TYPE})


def _json(data: object, status: int) -> web.Response:
    return web.Response(body=orjson.dumps(data), status=status, content_type="application/json")


def _explain(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"AI_OPS_PORT: {host}:{port} is taken; set another one for each worker of a machine, or 0 for any."
    return f"AI_OPS_HOST, AI_OPS_PORT: the worker cannot listen on {host}:{port}: {error.strerror}."

"""A webhook's other side: a real HTTP server that keeps what is posted, and answers as it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from app.devstack.ports import HOST, choose


@dataclass
class Hook:
    """`answers` are the next statuses, then it is 200; `texts` is what was taken, `tries` what was asked."""

    port: int = field(default_factory=lambda: choose(0, ""))
    answers: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    tries: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}/services/T0-B0-secret?token=more-secret"

    async def take(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert list(body) == ["text"]
        self.tries.append(body["text"])
        status = self.answers.pop(0) if self.answers else 200
        if status == 200:
            self.texts.append(body["text"])
            self.ids.append(request.headers["ce-id"])
        return web.Response(status=status, headers=self.headers)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Hook]:
        app = web.Application()
        app.router.add_post("/services/T0-B0-secret", self.take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, HOST, self.port).start()
        try:
            yield self
        finally:
            await runner.cleanup()

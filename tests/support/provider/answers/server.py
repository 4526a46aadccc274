"""A server that answers as a case says, at the paths of every provider's interface: `/<case>/<kind>/…`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from tests.support.provider.answers.case import Case, all_cases

ANY = "any"


@dataclass
class AnswerServer:
    """Its address, and what it was asked: `METHOD path` and the body, in order."""

    base: str = ""
    asked: list[tuple[str, bytes]] = field(default_factory=list)
    cases: dict[str, Case] = field(default_factory=dict)

    def address(self, case: Case | None, kind: str) -> str:
        """The base URL of a provider of this kind that answers as the case says; without a case, as the one whose name
        the attempt begins with.
        """
        return f"{self.base}/{ANY if case is None else case.name}/{kind}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((f"{request.method} {request.path}", await request.read()))
        name = request.match_info["case"]
        if name == ANY:
            name = request.headers.get("X-Spillway-Attempt", "").partition("/")[0]
        case = self.cases.get(name)
        streamed = b'"stream":true' in (await request.read()).replace(b" ", b"")
        given = case.given(streamed=streamed) if case is not None else None
        if given is None:
            return web.Response(status=404)
        headers = {name: value.replace("{base}", self.base) for name, value in given.headers.items()}
        response = web.StreamResponse(status=given.status, headers=headers)
        await response.prepare(request)
        for number, piece in enumerate(given.pieces):
            if number and given.pause:
                await asyncio.sleep(given.pause)
            await response.write(piece)
        if given.breaks and request.transport is not None:
            request.transport.abort()
            await asyncio.sleep(0)
        return response


@asynccontextmanager
async def answering(cases: Iterable[Case] | None = None, port: int = 0) -> AsyncIterator[AnswerServer]:
    """The server on a port of this machine, a free one unless it is named; without cases, with all that there are."""
    listed = all_cases() if cases is None else cases
    server = AnswerServer(cases={case.name: case for case in listed})
    app = web.Application()
    app.router.add_route("*", "/{case}/{rest:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    server.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()

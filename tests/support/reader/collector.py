"""An OpenTelemetry collector inside the test: takes OTLP over HTTP, and keeps what it was sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from app.devstack.ports import HOST
from app.tracing.show import Span, decoded
from tests.support.clock.waiting import eventually


@dataclass
class Collector:
    endpoint: str = ""
    #: Each request's body, as it came.
    received: list[bytes] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.received.append(body)
        self.spans += decoded(body)
        return web.Response(body=b"", content_type="application/x-protobuf")

    def trace(self, trace: str) -> list[Span]:
        return sorted((span for span in self.spans if span.trace == trace), key=lambda span: span.start)

    async def complete(self, trace: str, *names: str, within: float = 30.0) -> list[Span]:
        """The trace, when it has spans of all these names."""
        wanted = set(names)

        def found() -> list[Span]:
            spans = self.trace(trace)
            return spans if wanted <= {span.name for span in spans} else []

        def shown() -> str:
            return f"spans {sorted(wanted - {span.name for span in self.trace(trace)})} of {trace}"

        try:
            return list(await eventually(found, within=within))
        except AssertionError as error:
            raise AssertionError(f"missing: {shown()}") from error


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """A collector on a free port."""
    collector = Collector()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0)
    await site.start()
    port = runner.addresses[0][1]
    collector.endpoint = f"http://{HOST}:{port}"
    try:
        yield collector
    finally:
        await runner.cleanup()

"""An OpenTelemetry collector inside the test: takes OTLP over HTTP, and keeps what it was sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from app.devstack.ports import HOST
from tests.support.waiting import eventually

KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")


@dataclass(frozen=True)
class Span:
    """A span as it was exported. Times are nanoseconds since 1970, ids hexadecimal; `parent` is empty for a root."""

    trace: str
    id: str
    parent: str
    name: str
    kind: str
    start: int
    end: int
    service: str
    failed: bool
    attributes: dict[str, Any]
    links: tuple[str, ...] = ()


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


def decoded(body: bytes) -> list[Span]:
    export = ExportTraceServiceRequest.FromString(body)
    return [
        _span(span, _attributes(resource.resource.attributes).get("service.name", ""))
        for resource in export.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _span(span: Any, service: str) -> Span:
    return Span(
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        name=span.name,
        kind=KINDS[span.kind],
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        service=service,
        failed=span.status.code == 2,
        attributes=_attributes(span.attributes),
        links=tuple(link.span_id.hex() for link in span.links),
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [_value(one) for one in value.array_value.values] if kind == "array_value" else getattr(value, kind)


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

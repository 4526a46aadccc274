"""A collector for a terminal: `python -m app.tracing.show` takes OTLP over HTTP and prints each trace as a tree.

For a look without any other tool; it keeps nothing. A trace is printed when no more of it has come for a while: a
process sends its spans every five seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from aiohttp import web

#: Bytes of one export.
LARGEST = 64 * 1024 * 1024
#: Seconds without news after which a trace is taken to be complete.
QUIET = 7.0
KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
ERROR = 2
#: What is said of a span behind its name.
SHOWN = ("spillway.decision", "spillway.cached", "spillway.plan", "spillway.follow", "spillway.attempt", "error.type")


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


def decoded(body: bytes) -> list[Span]:
    """The spans of one export."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415 - an extra
        ExportTraceServiceRequest,
    )

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
        failed=span.status.code == ERROR,
        attributes=_attributes(span.attributes),
        links=tuple(link.span_id.hex() for link in span.links),
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [_value(one) for one in value.array_value.values] if kind == "array_value" else getattr(value, kind)


def tree(spans: Sequence[Span]) -> Iterator[str]:
    """The lines of one trace: begin and duration in ms, the span below its parent, who made it, what is to be said.

    A span whose parent is not there (an application's own, or one that died with its process) stands at the left.
    """
    if not spans:
        return
    begun = min(span.start for span in spans)
    took = max(span.end for span in spans) - begun
    yield f"trace {spans[0].trace}: {len(spans)} spans, {took / 1e6:,.0f} ms"
    known = {span.id for span in spans}
    below: dict[str, list[Span]] = {}
    for span in sorted(spans, key=lambda span: span.start):
        below.setdefault(span.parent if span.parent in known else "", []).append(span)
    for span, depth in _walk(below, "", 0):
        name = "  " * depth + span.name
        told = [f"{key.rpartition('.')[2]}={span.attributes[key]}" for key in SHOWN if key in span.attributes]
        links = [f"linked to {link}" for link in span.links]
        times = f"{(span.start - begun) / 1e6:>9,.1f} {(span.end - span.start) / 1e6:>9,.1f}"
        yield f"{times}  {name:<52} {span.service:<14} {' '.join([*told, *links])}".rstrip()


def _walk(below: dict[str, list[Span]], parent: str, depth: int) -> Iterator[tuple[Span, int]]:
    for span in below.get(parent, ()):
        yield span, depth
        yield from _walk(below, span.id, depth + 1)


@dataclass
class Traces:
    """What has come and was not shown yet, by trace, with the moment of the last news."""

    quiet: float
    spans: dict[str, list[Span]] = field(default_factory=dict)
    heard: dict[str, float] = field(default_factory=dict)

    def take(self, spans: Iterable[Span], now: float) -> None:
        for span in spans:
            self.spans.setdefault(span.trace, []).append(span)
            self.heard[span.trace] = now

    def complete(self, now: float) -> list[list[Span]]:
        """Those of which no more is expected, oldest first; they are forgotten."""
        done = [trace for trace, at in self.heard.items() if now - at >= self.quiet]
        for trace in done:
            del self.heard[trace]
        return [self.spans.pop(trace) for trace in done]


async def show(host: str, port: int, quiet: float) -> None:
    """Print traces until cancelled."""
    traces, clock = Traces(quiet), asyncio.get_running_loop().time

    async def take(request: web.Request) -> web.Response:
        traces.take(decoded(await request.read()), clock())
        return web.Response(body=b"", content_type="application/x-protobuf")

    app = web.Application(client_max_size=LARGEST)
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    _say(f"Waiting for spans: AI_TRACE_ENDPOINT=http://{host}:{runner.addresses[0][1]}")
    try:
        while True:
            await asyncio.sleep(min(1.0, quiet))
            _print(traces.complete(clock()))
    finally:
        _print(traces.complete(float("inf")))
        await runner.cleanup()


def _print(complete: Iterable[Sequence[Span]]) -> None:
    for spans in complete:
        _say("\n".join(tree(spans)) + "\n")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m app.tracing.show", description="Print traces as they come.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=4318, help="0 is any free one (%(default)s)")
    parser.add_argument("--quiet", type=float, default=QUIET, help="seconds without news of a trace (%(default)s)")
    asked = parser.parse_args()
    if find_spec("opentelemetry.proto") is None:
        sys.exit("It reads traces with the extra `traces`: install spillway[traces].")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(show(asked.host, asked.port, asked.quiet))


if __name__ == "__main__":
    main()

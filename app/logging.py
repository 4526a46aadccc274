"""Logs: lines for people on a terminal, JSON lines everywhere else, the libraries' own messages among them.

No message may hold a prompt, an answer or a key. Libraries that would log them at DEBUG are kept above it whatever the
level. A traceback shows code lines and the types of its exceptions: neither the values of variables nor what the
exceptions say, which may quote a prompt (pydantic's do). What concerns one request is logged with its id in a field of
its own: `extra=about(…)`.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Mapping, MutableMapping, Sequence
from types import TracebackType
from typing import Any, Literal, TextIO

import structlog

from app.log_repeats import Repeats
from streams.logs import FIELDS

Format = Literal["auto", "console", "json"]

#: The lowest level of each library. The HTTP clients and the providers' SDKs log requests with their content, or every
#: call; clickhouse-connect and aiokafka's connection log what they also raise.
_FLOORS: Mapping[str, int] = {
    "faust": logging.WARNING,
    "mode": logging.WARNING,
    "aiokafka": logging.WARNING,
    "aiohttp": logging.WARNING,
    "anthropic": logging.WARNING,
    "openai": logging.WARNING,
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    "asyncio": logging.WARNING,
    "clickhouse_connect": logging.CRITICAL,
    "urllib3": logging.WARNING,
    "uvicorn": logging.WARNING,
    # It tells of each batch that a collector does not take; app/tracing/export.py tells it once.
    "opentelemetry": logging.CRITICAL,
}


def configure_logging(level: str = "INFO", form: Format = "auto", stream: TextIO | None = None) -> None:
    """Send everything that is logged to `stream` (the standard error), at `level` and above."""
    target = stream or sys.stderr
    console = form == "console" or (form == "auto" and target.isatty())
    handler = logging.StreamHandler(target)
    handler.addFilter(Repeats())
    handler.setFormatter(_formatter(console=console, colors=console and target.isatty()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, floor in _FLOORS.items():
        logging.getLogger(name).setLevel(max(floor, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared_processors(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def quiet_logging() -> None:
    """For commands: what goes wrong is told by the command itself, in one sentence."""
    configure_logging("CRITICAL")


def _add_trace(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """`trace_id` and `request_id` of the request that is worked on, where it is traced."""
    tracing = sys.modules.get("opentelemetry.trace")
    if tracing is None:
        return event  # Nobody has begun a trace: the library is not even loaded.
    span = tracing.get_current_span()
    if span.is_recording():
        event["trace_id"] = tracing.format_trace_id(span.get_span_context().trace_id)
        request_id = (getattr(span, "attributes", None) or {}).get("spillway.request_id")
        if request_id is not None:
            event.setdefault("request_id", request_id)
    return event


def _shared_processors() -> Sequence[structlog.typing.Processor]:
    return (
        structlog.contextvars.merge_contextvars,
        _add_trace,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ExtraAdder(FIELDS),
        _first_line_of_asyncio,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    )


def _formatter(*, console: bool, colors: bool) -> structlog.stdlib.ProcessorFormatter:
    # structlog's default shows local variables in tracebacks, and these may hold a prompt.
    last: Sequence[structlog.typing.Processor]
    if console:
        last = (structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=_write_places),)
    else:
        last = (structlog.processors.ExceptionRenderer(_places), structlog.processors.JSONRenderer())
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared_processors(),
        processors=(structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last),
    )


ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def _places(exc_info: ExcInfo) -> str:
    """Where an exception was raised, and what caused it: code lines and types, without their texts."""
    told: list[str] = []
    error: BaseException | None = exc_info[1]
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        frames = "".join(traceback.format_tb(error.__traceback__))
        told.insert(0, f"Traceback (most recent call last):\n{frames}{type(error).__qualname__}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n\nand then:\n\n".join(told)


def _write_places(out: TextIO, exc_info: ExcInfo) -> None:
    out.write("\n" + _places(exc_info))


def _first_line_of_asyncio(
    _: structlog.typing.WrappedLogger, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """What asyncio says of a forgotten task: its first line. The others show the task, with its exception's text."""
    if event.get("logger") == "asyncio":
        event["event"] = str(event["event"]).partition("\n")[0]
    return event

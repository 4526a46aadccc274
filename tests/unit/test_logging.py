"""Logs for people and for programs, without what nobody should read in them."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from app.logging import configure_logging
from streams.logs import about

PROMPT = "the prompt of a customer"


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """pytest has handlers of its own on the root logger."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def logged(form: str, level: str = "INFO") -> tuple[io.StringIO, logging.Logger]:
    stream = io.StringIO()
    configure_logging(level, form, stream)  # type: ignore[arg-type]
    return stream, logging.getLogger("app.something")


def test_what_is_not_a_terminal_gets_one_json_object_per_line() -> None:
    stream, log = logged("auto")
    log.info("worker_ready: %s partitions", 6)
    structlog.get_logger("streams.other").warning("lane_waits", lane="claude/0")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["event"], first["level"], first["logger"]) == ("worker_ready: 6 partitions", "info", "app.something")
    assert first["timestamp"].endswith("Z")
    assert (second["event"], second["lane"], second["logger"]) == ("lane_waits", "claude/0", "streams.other")


def test_people_get_lines_and_no_colours_into_a_file() -> None:
    stream, log = logged("console")
    log.warning("ledger_unavailable")
    assert "ledger_unavailable" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_traceback_shows_places_and_types_and_no_values(form: str) -> None:
    """What an exception says may quote what it failed on, as pydantic's errors and a KeyError do."""
    stream, log = logged(form)

    def fail(prompt: str) -> None:
        try:
            {}[prompt]  # type: ignore[index]
        except KeyError as error:
            raise RuntimeError(f"failed at {prompt}") from error

    try:
        fail(PROMPT)
    except RuntimeError:
        log.exception("fault")
    told = stream.getvalue()
    assert PROMPT not in told
    assert all(part in told for part in ("KeyError", "RuntimeError", "and then:", "in fail", "{}[prompt]"))


async def test_a_task_that_nobody_has_asked_shows_no_text_of_its_exception() -> None:
    gc.collect()  # What earlier tests have left behind is told of before.
    stream, _ = logged("json")

    async def fail() -> None:
        raise ValueError(PROMPT)

    task = asyncio.get_running_loop().create_task(fail())
    await asyncio.wait({task})
    del task
    gc.collect()
    line = json.loads(stream.getvalue())
    assert line["event"] == "Task exception was never retrieved"
    assert "ValueError" in line["exception"]
    assert PROMPT not in stream.getvalue()


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_line_about_a_request_has_its_id_in_a_field(form: str) -> None:
    stream, log = logged(form)
    log.info("attempt_failed: %s", "claude/0", extra={**about("r-1", "acme", 2), "prompt": PROMPT})
    told = stream.getvalue()
    assert PROMPT not in told, "only the fields that are meant are shown"
    if form == "json":
        line = json.loads(told)
        assert (line["request_id"], line["workspace_id"], line["attempt"]) == ("r-1", "acme", 2)
    else:
        assert "request_id=r-1" in told


@pytest.mark.parametrize("name", ["httpx", "openai._base_client", "anthropic._base_client", "aiokafka.conn"])
def test_libraries_that_log_content_stay_quiet_at_every_level(name: str) -> None:
    stream, _ = logged("json", "DEBUG")
    logging.getLogger(name).debug("Request options: %s", PROMPT)
    logging.getLogger(name).info("HTTP Request: %s", PROMPT)
    assert stream.getvalue() == ""


def test_the_level_is_the_lowest_that_is_shown() -> None:
    stream, log = logged("json", "WARNING")
    log.info("not shown")
    log.warning("shown")
    assert len(stream.getvalue().splitlines()) == 1

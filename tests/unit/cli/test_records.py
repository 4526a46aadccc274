"""Records as `spillway tail` shows them."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from app.cli.records import as_line, as_text, full_name, readable
from app.settings import load_settings
from app.topics import build_topology
from schemas.dead_letter import DeadLetter, Origin


def record(**fields: Any) -> Any:
    defaults = {
        "topic": "ai.responses",
        "partition": 3,
        "offset": 42,
        "timestamp": 1_795_420_477_226,
        "key": b"team",
        "headers": (("ce_id", b"r/response"),),
        "value": b'{"status": "succeeded"}',
    }
    return SimpleNamespace(**{**defaults, **fields})


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("responses", "ai.responses"),
        ("ai.responses", "ai.responses"),
        ("dead-letters", "ai.dead-letters"),
        ("alerts", "ai.budget.alerts"),
        ("budget.alerts", "ai.budget.alerts"),
        ("claude", "ai.dispatch.claude"),
        ("dispatch.openai", "ai.dispatch.openai"),
        ("spillway-requests-changelog", "spillway-requests-changelog"),
        ("somebody.elses", "somebody.elses"),
    ],
)
def test_short_names_stand_for_topics(short: str, full: str) -> None:
    assert full_name(short, build_topology(load_settings())) == full


def test_a_line_is_json_with_the_value_inside() -> None:
    line = json.loads(as_line(record()))
    assert line["value"] == {"status": "succeeded"}
    assert line["headers"] == [["ce_id", "r/response"]]
    assert line["timestamp"] == "2026-11-23T07:54:37.226+00:00"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, None), (b"", ""), (b"no json", "no json"), (b"\xff\x00", "0xff00")],
)
def test_a_value_that_is_no_json_is_text_or_hexadecimal(value: bytes | None, shown: str | None) -> None:
    assert json.loads(as_line(record(value=value, key=value)))["value"] == shown
    assert readable(value) == shown
    assert as_text(record(value=value))


def test_the_numbers_of_a_dead_letter_are_readable() -> None:
    letter = DeadLetter(
        Origin("ai.requests", 5, 9, 1_795_420_477_226), "not_json", "The value is not JSON.", None, b"x"
    )
    shown = as_text(record(headers=letter.to_headers(), value=b"x"))
    assert "kafka_dlt-original-partition: 5\n" in shown
    assert "kafka_dlt-original-offset: 9\n" in shown
    assert "kafka_dlt-exception-message: The value is not JSON.\n" in shown


def test_a_record_cannot_operate_the_terminal() -> None:
    shown = as_text(record(key=b"\x1b[2J", value=b"\x1b]0;title\x07", headers=(("h", b"\x9b31m"),)))
    assert "\x1b" not in shown
    assert "\x07" not in shown

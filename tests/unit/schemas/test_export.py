"""The exported JSON Schemas are current, valid, and true of what Spillway reads and writes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from schemas import export
from schemas.alert import BudgetAlert, SpendAnomaly
from schemas.base import Event
from schemas.codec import encode
from schemas.response import AttemptSummary, Error, Response, Status, Usage
from schemas.usage import Outcome, Tokens, UsageEvent

NOW = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)

WRITTEN: list[tuple[str, Event]] = [
    ("response", Response(request_id="r", workspace_id="w", status=Status.REJECTED, answered_at=NOW)),
    (
        "response",
        Response(
            request_id="r",
            workspace_id="w",
            status=Status.FAILED,
            usage=Usage(prompt_tokens=1, cost="0.000000001"),
            attempts=(
                AttemptSummary(
                    attempt=1, provider="claude", model="m", outcome=Outcome.FAILED, error=Error(code="c", message="m")
                ),
            ),
            error=Error(code="c", message="m"),
            answered_at=NOW,
        ),
    ),
    (
        "usage",
        UsageEvent(
            request_id="r",
            workspace_id="w",
            attempt=1,
            provider="openai",
            model="m",
            outcome=Outcome.IN_DOUBT,
            tokens=Tokens(prompt_tokens=3),
            cost="12.5",
            requested_at=NOW,
            started_at=NOW,
        ),
    ),
    (
        "budget-alert",
        BudgetAlert(
            kind="ai.budget.exceeded",
            workspace_id="w",
            month="2026-11",
            threshold=100,
            spent="1001",
            budget="1000",
            percent=100.1,
            forecast="2000",
            observed_at=NOW,
        ),
    ),
    (
        "spend-anomaly",
        SpendAnomaly(
            workspace_id="w", month="2026-11", hour=NOW, spent="12", usual="1.5", budget="1000", observed_at=NOW
        ),
    ),
]

ACCEPTED: list[dict[str, Any]] = [
    {"prompt": "Why is the sky blue?"},
    {"kind": "completion", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "unknown_field": 1},
    {"kind": "embedding", "input": ["a", "b"], "workspace_id": "team-search"},
    {"kind": "search", "query": "tides", "recency": "week", "deadline": "2026-11-23T08:00:00Z"},
]

REFUSED: list[dict[str, Any]] = [
    {"kind": "painting", "prompt": "a cat"},
    {"kind": "embedding"},
    {"prompt": "hi", "temperature": 7},
    {"prompt": "hi", "workspace_id": "no spaces, please"},
]


def validator(name: str) -> Draft202012Validator:
    schema = json.loads((export.FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_the_files_are_current() -> None:
    assert export.outdated() == [], "run `python -m schemas.export`"


def test_each_schema_has_an_address_and_its_dialect() -> None:
    for name in ("request", "response", "usage", "budget-alert", "spend-anomaly"):
        schema = json.loads((export.FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        assert schema["$id"] == f"urn:spillway:event:{name}:1"
        assert schema["$schema"].endswith("draft/2020-12/schema")


@pytest.mark.parametrize(("name", "event"), WRITTEN, ids=lambda value: value if isinstance(value, str) else "")
def test_what_spillway_writes_is_valid(name: str, event: Event) -> None:
    validator(name).validate(json.loads(encode(event)))


@pytest.mark.parametrize("body", ACCEPTED)
def test_a_good_request_is_valid(body: dict[str, Any]) -> None:
    validator("request").validate(body)


@pytest.mark.parametrize("body", REFUSED)
def test_a_bad_request_is_not(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        validator("request").validate(body)


def test_a_check_changes_nothing_and_names_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export.write(tmp_path)
    monkeypatch.setattr(export.outdated, "__defaults__", (tmp_path,))
    assert export.main(["--check"]) == 0
    (tmp_path / "usage.json").write_text("{}")
    (tmp_path / "forgotten.json").write_text("{}")
    assert export.main(["--check"]) == 1
    assert capsys.readouterr().out.splitlines() == ["forgotten.json is not current", "usage.json is not current"]
    assert (tmp_path / "usage.json").read_text() == "{}"
    assert export.write(tmp_path) == ["forgotten.json", "usage.json"]
    assert export.outdated(tmp_path) == []

"""Lanes and limits from the command line, against a real broker and without a worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.cli.main import app
from app.devstack.stack import DevStack
from app.settings import Settings
from schemas.codec import decode, encode
from schemas.control import LaneState, LimitChange, LimitState, Mode, ModeChange
from streams.topology import CONTROL, LANES
from tests.support.reader.topics import publish
from tests.support.values.names import unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]


@pytest.fixture(autouse=True)
def group(stack: DevStack, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A model group of claude's that no other test knows; what is set of it and of claude is taken back."""
    name = unique("g")
    file = tmp_path / "spillway.toml"
    file.write_text(f'[providers.claude.groups.{name}]\nmodels = ["x-*"]\nrpm = 10\n')
    monkeypatch.setenv("AI_STACK_DIR", str(stack.folder))
    monkeypatch.setenv("AI_SETTINGS_FILE", str(file))
    monkeypatch.setenv("NO_COLOR", "1")
    yield f"claude:{name}"
    keys = [f"{kind}/{target}".encode() for kind in ("limits", "mode") for target in ("claude", f"claude:{name}")]
    asyncio.run(publish(settings.kafka_bootstrap_servers, CONTROL, [(key, None) for key in keys]))


def spillway(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result


def control(key: str) -> list[dict[str, Any]]:
    """Records of the control topic with this key, oldest first."""
    lines = spillway("tail", "control", "-n", "1000", "--json").stdout.splitlines()
    return [record for record in map(json.loads, lines) if record["key"] == key]


def limits_of(target: str) -> dict[str, Any]:
    found = json.loads(spillway("limits", "--json").stdout)["limits"]
    [limits] = [line for line in found if line["target"] == target]
    return dict(limits)


def test_limits_are_set_one_after_the_other_shown_and_reset(group: str) -> None:
    assert limits_of(group) == {"target": group, "rpm": 10, "rph": None, "tpm": None, "tph": None, "set": []}
    said = spillway("limits", "set", group, "--rpm", "20").stdout
    assert said == f"{group} now has 20 requests per minute.\n"
    spillway("limits", "set", group, "--tpm", "5000")
    assert limits_of(group) == {
        "target": group,
        "rpm": 20,
        "rph": None,
        "tpm": 5000,
        "tph": None,
        "set": ["rpm", "tpm"],
    }
    shown = spillway("limits")
    [line] = [line for line in shown.stdout.splitlines() if line.startswith(group)]
    assert line.split() == [group, "20", "*", "–", "5,000", "*", "–"]
    assert "* set with" in shown.stderr

    record = control(f"limits/{group}")[-1]
    assert decode(LimitChange, json.dumps(record["value"]).encode()) == LimitChange(target=group, rpm=20, tpm=5000)
    assert ["ce_type", "ai.control.limits"] in record["headers"]

    said = spillway("limits", "reset", group).stdout
    assert said == f"{group} has the limits of the settings again: 10 requests per minute.\n"
    assert limits_of(group)["set"] == []
    assert control(f"limits/{group}")[-1]["value"] is None


def test_a_lane_is_paused_and_resumed(group: str) -> None:
    assert f"{group} is paused" in spillway("lanes", "pause", group).stdout
    record = control(f"mode/{group}")[-1]
    assert decode(ModeChange, json.dumps(record["value"]).encode()) == ModeChange(target=group, mode=Mode.PAUSED)
    assert f"{group} is draining" in spillway("lanes", "drain", group).stdout
    assert spillway("lanes", "resume", "claude").stdout.endswith(f"but {group} is still draining.\n")
    assert spillway("lanes", "resume", group).stdout == (
        f"{group} is open: what waits is called, as its limits allow.\n"
    )
    assert control(f"mode/{group}")[-1]["value"]["mode"] == "open"


def test_a_group_of_a_paused_provider_stays_paused_and_that_is_said(group: str) -> None:
    spillway("lanes", "pause", "claude")
    assert spillway("lanes", "resume", group).stdout.endswith("is still paused, because claude is.\n")


@pytest.mark.parametrize(
    "command", [("lanes", "pause"), ("limits", "reset"), ("limits", "set", "--rpm", "1")], ids=" ".join
)
def test_an_unknown_target_is_refused_with_the_known_ones(group: str, command: tuple[str, ...]) -> None:
    said = spillway(*command, "gemini", code=1).stderr
    assert said == f"Error: There is no gemini; there are claude, {group}, openai, perplexity.\n"


def test_the_newest_state_of_each_lane_is_shown(settings: Settings) -> None:
    lane, silent, gone = (f"{unique('lane')}/0" for _ in range(3))
    # A lane that has said nothing for fifteen seconds is silent: this one speaks until the test is over.
    now = datetime.now(UTC) + timedelta(minutes=2)
    limits = {"rph": LimitState(used=0), "tpm": LimitState(used=900, limit=1_000), "tph": LimitState(used=1)}
    older = LaneState(lane=lane, provider="claude", rpm=LimitState(used=1, limit=50), at=now, **limits)
    newer = older.model_copy(update={"rpm": LimitState(used=12, limit=50), "waiting": 7, "at": now, "wait": 2.5})
    records: list[tuple[str, bytes | None]] = [
        (lane, encode(older)),
        (silent, encode(older.model_copy(update={"lane": silent, "at": now - timedelta(minutes=5)}))),
        (gone, encode(older.model_copy(update={"lane": gone}))),
        (lane, encode(newer)),
        (gone, None),
        (unique("lane"), b"no state at all"),
    ]
    sent = [(key.encode(), value) for key, value in records]
    asyncio.run(publish(settings.kafka_bootstrap_servers, LANES, sent))
    try:
        lines = {line.split()[0]: line for line in spillway("lanes").stdout.splitlines()}
        assert lines[lane].split() == [lane, "open", "7", "0", "2.5", "s", "12/50", "–", "900/1,000", "–"]
        assert "silent since" in lines[silent]
        assert gone not in lines
        found = {state["lane"]: state for state in json.loads(spillway("lanes", "--json").stdout)["lanes"]}
        assert (found[lane]["state"], found[silent]["state"]) == ("open", "silent")
    finally:
        asyncio.run(publish(settings.kafka_bootstrap_servers, LANES, [(key, None) for key, _ in sent]))
    assert lane not in spillway("lanes").stdout

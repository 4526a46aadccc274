"""What `spillway lanes` makes of lane states and modes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.cli.lanes import as_data, decoded, outlook, spent, standing
from schemas.codec import encode
from schemas.control import LaneState, LimitState, Mode

NOW = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)


def state(lane: str = "claude/0", **values: Any) -> LaneState:
    limits = {name: LimitState(used=0) for name in ("rpm", "rph", "tpm", "tph")}
    return LaneState(**{"lane": lane, "provider": "claude", "at": NOW, **limits, **values})


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("values", "word", "text"),
    [
        ({}, "open", "open"),
        ({"mode": "paused"}, "paused", "paused"),
        ({"mode": "draining", "circuit": "open", "reopens_at": later(9)}, "draining", "draining"),
        ({"circuit": "open", "reopens_at": later(40.2)}, "circuit_open", "circuit open, reopens in 41 s"),
        ({"circuit": "open", "reopens_at": later(-1)}, "circuit_open", "circuit open"),
        ({"circuit": "half_open"}, "circuit_half_open", "circuit half open, one call is probing"),
        ({"paused_until": later(12)}, "waits", "waits 12 s (the provider asked)"),
        ({"paused_until": later(-12)}, "open", "open"),
        ({"at": later(-15)}, "open", "open"),
        ({"at": later(-16), "mode": "paused"}, "silent", "silent since 2026-11-23 06:59:44 UTC"),
    ],
)
def test_the_strongest_reason_is_told(values: dict[str, Any], word: str, text: str) -> None:
    assert standing(state(**values), NOW) == (word, text)


def test_lanes_are_in_the_order_of_their_numbers_and_what_is_none_is_left_out() -> None:
    names = ["openai/0", "claude/10", "claude:opus/0", "claude/2"]
    values = [encode(state(name)) for name in names]
    found = decoded([b"nonsense", *values, b"{}"])
    assert [lane.lane for lane in found] == ["claude/2", "claude/10", "claude:opus/0", "openai/0"]


def test_a_limit_is_shown_with_what_is_spent_of_it() -> None:
    assert spent(LimitState(used=12, limit=50)) == "12/50"
    assert spent(LimitState(used=1_200, limit=100_000)) == "1,200/100,000"
    assert spent(LimitState(used=12)) == "–"


def test_programs_get_everything_and_the_state_in_one_word() -> None:
    [lane] = as_data([state(waiting=3, rpm=LimitState(used=1, limit=2))], later(60))["lanes"]
    assert (lane["lane"], lane["state"], lane["waiting"], lane["rpm"]) == (
        "claude/0",
        "silent",
        3,
        {"used": 1, "limit": 2},
    )


@pytest.mark.parametrize(
    ("target", "mode", "modes", "said"),
    [
        ("claude", Mode.PAUSED, {}, "claude is paused: nothing is called"),
        ("claude", Mode.DRAINING, {}, "claude is draining: nothing is called, and what waits"),
        ("claude", Mode.OPEN, {"openai": Mode.PAUSED}, "claude is open: what waits is called, as its limits allow."),
        ("claude", Mode.OPEN, {"claude:opus": Mode.PAUSED}, "limits allow; but claude:opus is still paused."),
        (
            "claude:opus",
            Mode.OPEN,
            {"claude": Mode.DRAINING, "claude:opus": Mode.DRAINING},
            "claude:opus is open by itself, but claude:opus is still draining, because claude is.",
        ),
    ],
)
def test_what_will_happen_is_one_sentence(target: str, mode: Mode, modes: dict[str, Mode], said: str) -> None:
    sentence = outlook(target, mode, {"claude": Mode.OPEN, **modes})
    assert said in sentence
    assert sentence.count(".") == 1

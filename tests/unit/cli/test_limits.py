"""Limits of the settings, and those that were set in their place."""

from __future__ import annotations

import pytest

from app.cli.limits import _cells, as_data, changes, in_force, told
from schemas.codec import encode
from schemas.control import LimitChange, Mode, ModeChange
from streams.dispatch.quota import Limits

STATED = {"claude": Limits(rpm=50, rph=1_000), "openai": Limits()}
CHANGE = LimitChange(target="claude", rpm=9, tph=70)


def test_only_limits_under_their_own_keys_count() -> None:
    mode = ModeChange(target="claude", mode=Mode.PAUSED)
    records = {
        CHANGE.key: encode(CHANGE),
        mode.key: encode(mode),
        "limits/openai": encode(CHANGE),
        "limits/perplexity": b"nonsense",
    }
    assert changes(records) == {"claude": CHANGE}


def test_what_was_set_stands_in_the_place_of_the_settings() -> None:
    assert in_force(STATED["claude"], CHANGE) == Limits(rpm=9, rph=1_000, tph=70)
    assert in_force(STATED["claude"], None) == STATED["claude"]


def test_programs_are_told_which_limits_were_set() -> None:
    assert as_data(STATED, {"claude": CHANGE})["limits"] == [
        {"target": "claude", "rpm": 9, "rph": 1_000, "tpm": None, "tph": 70, "set": ["rpm", "tph"]},
        {"target": "openai", "rpm": None, "rph": None, "tpm": None, "tph": None, "set": []},
    ]


def test_people_see_a_mark_at_limits_that_were_set() -> None:
    assert _cells(Limits(rpm=9, rph=1_000), ["rpm"]) == ["9 *", "1,000  ", "–  ", "–  "]


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(), "no limits"),
        (Limits(rpm=50, rph=1_000, tph=9), "50 requests per minute and 1,000 per hour, 9 tokens per hour"),
    ],
)
def test_limits_in_words(limits: Limits, words: str) -> None:
    assert told(limits) == words

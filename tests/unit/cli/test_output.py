"""Figures and tables for people."""

from __future__ import annotations

from decimal import Decimal

import pytest

from app.cli.ask import summary
from app.cli.output import count, money, print_table, seconds
from schemas.response import Response, Status, Usage


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        ("0", "$0"),
        ("0.000000000", "$0"),
        ("1234.5", "$1,234.50"),
        ("1", "$1.00"),
        ("0.999999999", "$1.0000"),
        ("0.0123456", "$0.01235"),
        ("0.000000001", "$0.000000001"),
    ],
)
def test_money_shows_digits_that_say_something(amount: str, shown: str) -> None:
    assert money(Decimal(amount)) == shown


@pytest.mark.parametrize(("value", "shown"), [(None, "–"), (0.0123, "12 ms"), (1.25, "1.2 s"), (75.0, "75.0 s")])
def test_durations_are_short(value: float | None, shown: str) -> None:
    assert seconds(value) == shown


def test_one_is_singular() -> None:
    assert (count(1, "request"), count(2_000, "request")) == ("1 request", "2,000 requests")


def test_a_table_is_plain_and_complete_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("NAME", "COST"), [("x" * 300, "[red]1[/]"), ("\x1b[2J", "22")], right=["COST"])
    shown = capsys.readouterr().out
    assert "x" * 300 in shown
    assert "[red]1[/]" in shown, "what is printed is no markup"
    assert "\x1b" not in shown


def test_the_summary_of_an_answer_is_one_line() -> None:
    response = Response(
        request_id="r",
        workspace_id="w",
        status=Status.SUCCEEDED,
        provider="claude",
        model="claude-sonnet-4-5",
        usage=Usage(prompt_tokens=1200, completion_tokens=40, total_tokens=1240, cost="0.0042"),
        latency=1.25,
        answered_at="2026-11-23T07:00:00Z",
    )
    assert summary(response) == "claude · claude-sonnet-4-5 · 1,200 + 40 tokens · $0.004200 · 1.2 s"

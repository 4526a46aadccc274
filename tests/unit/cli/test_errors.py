"""What goes wrong is told in one sentence, and a fault of ours is none."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from app.cli.errors import Commands


def program(text: str) -> typer.Typer:
    """Sends a text somewhere, as UTF-8."""
    app = typer.Typer(cls=Commands)

    @app.command()
    def send() -> None:
        text.encode()

    @app.command()
    def other() -> None: ...

    return app


def test_bytes_that_are_no_text_are_told_of_in_a_sentence() -> None:
    found = CliRunner().invoke(program("select '\udcff'"), ["send"])
    assert (found.exit_code, found.output) == (1, "Error: What was given is not UTF-8.\n")


def test_half_a_surrogate_pair_that_came_from_elsewhere_is_a_fault() -> None:
    found = CliRunner().invoke(program("\ud83d"), ["send"])
    with pytest.raises(UnicodeEncodeError):
        raise found.exception or AssertionError

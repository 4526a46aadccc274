"""What commands print: results on the standard output, remarks on the standard error, colours on a terminal only."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import orjson
import typer

#: Columns of a table that is not for a terminal: wide enough that nothing is cut off.
_UNLIMITED = 10_000
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def print_json(value: Any) -> None:
    """One JSON document on the standard output. Decimals are strings, as on the wire."""
    typer.echo(orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2))


def print_line(text: str | bytes) -> None:
    """A line while a connection is open. Raises Exit where nobody reads it any more (`| head`): the broken pipe is
    ours, and would be taken for one of the connection's.
    """
    try:
        typer.echo(text)
    except BrokenPipeError:
        # What is left in the buffer would break at the interpreter's end once more.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        raise typer.Exit(1) from None


def print_text(text: str) -> None:
    """Text from elsewhere. On a terminal without control characters: an answer must not be able to operate it."""
    typer.echo(_CONTROL.sub("", text) if _is_terminal() else text)


def print_piece(text: str) -> None:
    """A piece of a text that is still being written."""
    typer.echo(_CONTROL.sub("", text) if _is_terminal() else text, nl=False)


def remark(text: str) -> None:
    """A dim line on the standard error."""
    _styled(text, err=True, dim=True)


def problem(text: str) -> None:
    """A red line on the standard error."""
    _styled(text, err=True, fg="red")


def title(text: str) -> None:
    """A bold line on the standard output."""
    _styled(text, bold=True)


def _styled(text: str, *, err: bool = False, **style: Any) -> None:
    """Styles go to terminals only, and to none where NO_COLOR is set (no-color.org)."""
    typer.secho(_CONTROL.sub("", text), err=err, color=False if os.environ.get("NO_COLOR") else None, **style)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[str] = ()) -> None:
    """A table; the columns named in `right` hold numbers."""
    from rich.console import Console  # noqa: PLC0415 - start-up time
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    numbers = set(right)
    for name in columns:
        table.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_CONTROL.sub("", cell)) for cell in row))
    console = Console() if _is_terminal() else Console(width=_UNLIMITED)
    console.print(table)


def _is_terminal() -> bool:
    """A process may have been started without any standard output."""
    return sys.stdout is not None and sys.stdout.isatty()


def money(amount: Decimal) -> str:
    """US dollars: cents from one dollar on, below that four digits that say something."""
    if amount >= 1:
        return f"${amount:,.2f}"
    if amount == 0:
        return "$0"
    places = min(9, 3 - amount.adjusted())
    return f"${amount:.{places}f}"


def seconds(value: float | None) -> str:
    """A duration for people."""
    if value is None:
        return "–"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def count(number: int, noun: str) -> str:
    """`1 request`, `2,000 requests`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

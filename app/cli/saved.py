"""`spillway save` and `spillway load`: what operators have set, in a file and back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

FILE_MODE = 0o600


def save(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to write it, or - for the standard output.")],
) -> None:
    """Write what operators have set into a file: budgets, limits and modes of lanes, digests of API keys.

    It is in Kafka alone; what was answered and what it cost is in ClickHouse. Example: spillway save set.jsonl
    """
    from app.cli.context import command_settings, run  # noqa: PLC0415 - start-up time of the other commands
    from app.cli.errors import CommandError  # noqa: PLC0415
    from app.cli.output import remark  # noqa: PLC0415
    from app.recovery.saved import SavedError  # noqa: PLC0415
    from app.recovery.saved import save as lines_of  # noqa: PLC0415

    try:
        lines = run(lines_of(command_settings()))
    except SavedError as error:
        raise CommandError(str(error)) from None
    text = b"".join(line + b"\n" for line in lines)
    if file == "-":
        sys.stdout.buffer.write(text)
    else:
        try:
            Path(file).touch(mode=FILE_MODE)
            Path(file).write_bytes(text)
        except OSError as error:
            raise CommandError(f"{file} cannot be written: {error.strerror}.") from None
    remark(f"{len(lines)} settings saved.")


def load(
    file: Annotated[str, typer.Argument(metavar="FILE", help="What `spillway save` has written, or -.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Also what is set to something else now.")] = False,
) -> None:
    """Set again what `spillway save` has saved. Workers, doors and pages hear of it at once.

    What is set to something else now stays, unless --overwrite says otherwise. Example: spillway load set.jsonl
    """
    from app.cli.context import command_settings, run  # noqa: PLC0415 - start-up time of the other commands
    from app.cli.errors import CommandError  # noqa: PLC0415
    from app.recovery.saved import SavedError  # noqa: PLC0415
    from app.recovery.saved import load as apply  # noqa: PLC0415

    try:
        text = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        done = run(apply(command_settings(), text.splitlines(), overwrite=overwrite))
    except SavedError as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}.") from None
    typer.echo(f"{done.written} settings written; {done.same} were so already.")
    if done.other:
        typer.echo(f"{done.other} are something else now, and stay so; --overwrite sets them.")

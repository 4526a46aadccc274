"""`spillway publish`: requests from a file of JSON lines, byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

if TYPE_CHECKING:
    from app.cli.bulk import Published


def publish(
    file: Annotated[
        Path, typer.Argument(help="One request per line, as JSON; - is the standard input.", allow_dash=True)
    ],
    rate: Annotated[float | None, typer.Option(min=0.01, help="At most so many requests per second.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for all responses, and tell what became of them.")] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="With --wait: seconds without a response until it gives up.")
    ] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Publish each line of a file as a request.

    Lines are not checked here: Spillway itself answers what is no request. Empty lines are left out. With --wait the
    exit code is 1 unless every request was answered and none failed. Examples:

      spillway publish requests.jsonl
      spillway publish requests.jsonl --rate 50 --wait
      jq -c '.requests[]' export.json | spillway publish - --wait --json
    """
    from app.cli.bulk import publish_lines  # noqa: PLC0415 - start-up time of the other commands
    from app.cli.context import command_settings, run_traced  # noqa: PLC0415
    from app.kafka import cluster_of  # noqa: PLC0415

    settings = command_settings()
    with _open(file) as lines:
        patience = timeout if wait else None
        done = run_traced(settings, publish_lines(cluster_of(settings), lines, rate=rate, patience=patience))
    _show(done, as_json=as_json, waited=wait)
    if not done.ok:
        raise typer.Exit(1)


def _open(file: Path) -> BinaryIO:
    from app.cli.errors import CommandError  # noqa: PLC0415

    if str(file) == "-":
        return typer.get_binary_stream("stdin")
    try:
        return file.open("rb")
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}.") from None


def _show(done: Published, *, as_json: bool, waited: bool) -> None:
    from app.cli.output import count, money, print_json, print_table, problem, seconds  # noqa: PLC0415

    for line, reason in done.refused:
        problem(f"line {line}: not published: {reason}")
    if as_json:
        return print_json(done.as_data(waited=waited))
    typer.echo(f"Published {count(done.published, 'request')} in {seconds(done.seconds)}.")
    if not waited:
        return None
    print_table(
        ("STATUS", "REQUESTS", "COST"),
        [(status, f"{line.requests:,}", money(line.cost)) for status, line in sorted(done.answers.items())],
        right=("REQUESTS", "COST"),
    )
    if done.missing:
        problem(
            f"{count(len(done.missing), 'request')} got no response in time, for example {min(done.missing)}; "
            "an id that was answered before is not answered again."
        )
    return None

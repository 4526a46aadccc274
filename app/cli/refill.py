"""`spillway refill`: the ledger once more, out of Kafka."""

from __future__ import annotations

from typing import Annotated

import typer


def refill(
    since: Annotated[
        str | None, typer.Option(help="Only what was published since this day, or moment with a zone.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count; change nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Have the workers write usage, outcomes and alerts into ClickHouse again, as far as Kafka still has them.

    For a ledger that was lost, or brought back from a backup. Stop all workers first; they write it when they are
    started again. A row that is there already stays the same row. Examples:

      spillway refill --dry-run
      spillway refill --since 2026-11-20
    """
    from app.cli.context import command_settings, run  # noqa: PLC0415 - start-up time of the other commands
    from app.cli.errors import CommandError  # noqa: PLC0415
    from app.cli.output import print_json, print_table  # noqa: PLC0415
    from app.cli.period import moment  # noqa: PLC0415
    from app.recovery.groups import GroupAtWorkError  # noqa: PLC0415
    from app.recovery.refill import refill as apply  # noqa: PLC0415

    begin = moment(since, "--since") if since is not None else None
    try:
        found = run(apply(command_settings(), begin, dry_run=dry_run))
    except GroupAtWorkError as error:
        raise CommandError(str(error)) from None
    if as_json:
        told = [{"topic": one.topic, "records": one.records, "whole_since": one.whole_since} for one in found]
        return print_json({"done": not dry_run, "topics": told})
    print_table(
        ("TOPIC", "RECORDS", "WHOLE SINCE"),
        [
            (
                one.topic,
                f"{one.records:,}",
                f"{one.whole_since:%Y-%m-%d %H:%M}Z" if one.whole_since else "its beginning",
            )
            for one in found
        ],
        right=("RECORDS",),
    )
    if dry_run:
        return typer.echo("Nothing was changed.")
    return typer.echo("Start the workers: they read these again. `spillway audit` says when all is there.")

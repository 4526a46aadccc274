"""`spillway tables`: whether what the workers know can be read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from app.recovery.tables import TableCheck

SHOWN = 20


def tables(
    drop: Annotated[
        bool, typer.Option("--drop", help="Remove the rows that are named; stop all workers first.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Read the changelogs of the workers' tables to their ends, and name the rows that no worker can use.

    Exits with 1 when there are any. With --drop they are removed: a request is forgotten then, and an account begins at
    nothing until `spillway budget restore` has brought it back. Examples:

      spillway tables
      spillway tables --drop
    """
    from app.cli.context import command_settings, run  # noqa: PLC0415 - start-up time of the other commands
    from app.cli.errors import CommandError  # noqa: PLC0415
    from app.cli.output import print_json  # noqa: PLC0415
    from app.recovery.groups import GroupAtWorkError  # noqa: PLC0415
    from app.recovery.tables import check_tables  # noqa: PLC0415

    if drop and not yes:
        typer.confirm("The rows that cannot be used are removed for good. Go on?", abort=True)
    try:
        found = run(check_tables(command_settings(), drop=drop))
    except GroupAtWorkError as error:
        raise CommandError(str(error)) from None
    if as_json:
        print_json({"ok": not any(one.bad for one in found), "dropped": drop, "tables": list(map(_as_data, found))})
    else:
        _show(found, drop=drop)
    if not drop and any(one.bad for one in found):
        raise typer.Exit(1)


def _as_data(one: TableCheck) -> dict[str, object]:
    rows = {str(partition): count for partition, count in one.partitions.items()}
    bad = [{"key": row.name, "partition": row.partition, "reason": row.reason} for row in one.bad]
    return {"table": one.table, "topic": one.topic, "rows": rows, "bad": bad}


def _show(found: list[TableCheck], *, drop: bool) -> None:
    from app.cli.output import print_table  # noqa: PLC0415

    print_table(
        ("TABLE", "ROWS", "BAD", "ROWS BY PARTITION"),
        [
            (
                one.table,
                f"{one.rows:,}",
                str(len(one.bad)),
                " ".join(f"{n:,}" for _, n in sorted(one.partitions.items())),
            )
            for one in found
        ],
        right=("ROWS", "BAD"),
    )
    for one in found:
        for row in one.bad[:SHOWN]:
            typer.echo(f"{one.table}[{row.partition}] {row.name:.120}: {row.reason}")
        if len(one.bad) > SHOWN:
            typer.echo(f"… and {len(one.bad) - SHOWN} more (--json has them all)")
    count = sum(len(one.bad) for one in found)
    if not count:
        typer.echo("All rows can be used.")
    else:
        typer.echo(f"{count} rows were removed." if drop else "`spillway tables --drop` removes these.")

"""`spillway migrate`: the ledger's tables."""

from __future__ import annotations

from typing import Annotated

import typer


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit with 1 when a migration is pending.")
    ] = False,
    show: Annotated[bool, typer.Option("--show", "--dry-run", help="Change nothing; print what would run.")] = False,
) -> None:
    """Bring the ledger's tables in ClickHouse up to date, also in how long rows are kept; a worker does so by itself.

    Examples:

      spillway migrate
      spillway migrate --show
      spillway migrate --check
    """
    from app.cli.context import command_settings, run  # noqa: PLC0415 - start-up time of the other commands
    from app.clickhouse.migrate import migrate as apply  # noqa: PLC0415
    from app.clickhouse.migrate import pending  # noqa: PLC0415

    settings = command_settings()
    if not (check or show):
        names = run(apply(settings))
        for name in names:
            typer.echo(f"{name} applied")
        return None if names else typer.echo("The ledger is up to date.")
    planned = run(pending(settings))
    for migration in planned:
        typer.echo(
            f"-- {migration.name}\n{migration.sql.rstrip().rstrip(';')};\n" if show else f"{migration.name} is pending"
        )
    if not planned:
        typer.echo("-- Nothing: the ledger is up to date." if show else "The ledger is up to date.")
    if check and planned:
        raise typer.Exit(1)
    return None

"""`spillway migrate`: the ledger's tables."""

from __future__ import annotations

from typing import Annotated

import typer


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit with 1 when a migration is pending.")
    ] = False,
) -> None:
    """Bring the ledger's tables in ClickHouse up to date; a worker does so by itself.

    Examples:

      spillway migrate
      spillway migrate --check
    """
    from app.cli.context import command_settings, run  # noqa: PLC0415 - start-up time of the other commands
    from app.clickhouse.migrate import migrate as apply  # noqa: PLC0415
    from app.clickhouse.migrate import pending  # noqa: PLC0415

    settings = command_settings()
    names = run(pending(settings) if check else apply(settings))
    for name in names:
        typer.echo(f"{name} {'is pending' if check else 'applied'}")
    if not names:
        typer.echo("The ledger is up to date.")
    if check and names:
        raise typer.Exit(1)

"""`spillway repartition`: more partitions for a deployment that is stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from app.recovery.repartition import Repartition


def repartition(
    partitions: Annotated[int, typer.Argument(min=2, help="How many partitions every topic is to have.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and count; change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Give all topics more partitions, and bring what the workers know to where it belongs then.

    Stop all workers first; AI_PARTITIONS is still the old number. It refuses while anything is on its way, and cannot
    be taken back: Kafka has no fewer partitions later. Examples:

      spillway repartition 12 --dry-run
      spillway repartition 12
    """
    from app.cli.context import command_settings, run  # noqa: PLC0415 - start-up time of the other commands
    from app.cli.errors import CommandError  # noqa: PLC0415
    from app.recovery.groups import GroupAtWorkError  # noqa: PLC0415
    from app.recovery.repartition import RepartitionError  # noqa: PLC0415
    from app.recovery.repartition import repartition as apply  # noqa: PLC0415

    settings = command_settings()
    if not (dry_run or yes):
        typer.confirm(
            f"All topics of {settings.kafka_application_id} get {partitions} partitions, for good. Go on?", abort=True
        )
    try:
        done = run(apply(settings, partitions, dry_run=dry_run))
    except (RepartitionError, GroupAtWorkError) as error:
        raise CommandError(str(error)) from None
    _show(done, dry_run=dry_run)


def _show(done: Repartition, *, dry_run: bool) -> None:
    from app.cli.output import print_table  # noqa: PLC0415

    rows = [(topic, f"{all_:,}", f"{moved:,}") for topic, (all_, moved) in done.tables.items()]
    print_table(("TABLE", "ROWS", "MOVED"), rows, right=("ROWS", "MOVED"))
    if dry_run:
        return typer.echo(f"{len(done.grown)} topics would get {done.after} partitions; nothing was changed.")
    typer.echo(f"{len(done.grown)} topics have {done.after} partitions.")
    return typer.echo(
        f"Now set AI_PARTITIONS={done.after} for all workers, doors, pages and commands, and start them again."
    )

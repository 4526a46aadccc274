"""`spillway worker`: one process that runs all stages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def worker(
    data_dir: Annotated[Path | None, typer.Option(help="Folder for the tables (or AI_DATA_DIR).")] = None,
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR (or AI_LOG_LEVEL).")] = None,
) -> None:
    """Run a worker until SIGTERM or Ctrl-C; it then finishes what is in flight and leaves in order.

    Several workers are several processes, each with a data folder of its own. Examples:

      spillway worker
      spillway worker --data-dir /var/lib/spillway/2 --log-level WARNING
    """
    from app.cli.context import command_settings  # noqa: PLC0415 - start-up time of the other commands
    from app.logging import configure_logging  # noqa: PLC0415

    level = log_level.upper() if log_level else None
    settings = command_settings(data_dir=data_dir, log_level=level)
    configure_logging(settings.log_level, settings.log_format)
    from app.run import run  # noqa: PLC0415 - loads Faust, which looks at the logging that there is

    raise typer.Exit(run(settings))

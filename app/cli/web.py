"""`spillway web`: the page."""

from __future__ import annotations

from typing import Annotated

import typer


def web(
    host: Annotated[str | None, typer.Option(help="Address to listen on (or AI_WEB_HOST).")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Port; 0 is any (or AI_WEB_PORT).")] = None,
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR (or AI_LOG_LEVEL).")] = None,
) -> None:
    """Show what flows, live, in a browser: lanes, budgets, costs, the latest requests, dead letters.

    On loopback it asks for nothing; elsewhere it needs AI_WEB_TOKEN, and TLS in front of it. It shows no prompt and no
    answer. Examples:

      spillway web
      AI_WEB_TOKEN=… spillway web --host 0.0.0.0 --port 8081
    """
    from app.cli.context import command_settings  # noqa: PLC0415 - start-up time of the other commands
    from app.logging import configure_logging  # noqa: PLC0415

    level = log_level.upper() if log_level else None
    settings = command_settings(web_host=host, web_port=port, log_level=level)
    configure_logging(settings.log_level, settings.log_format)
    import uvloop  # noqa: PLC0415

    from app.web.serve import serve  # noqa: PLC0415

    uvloop.run(serve(settings))

"""`spillway serve`: OpenAI's HTTP interface in front of the topics."""

from __future__ import annotations

from typing import Annotated

import typer


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (or AI_HTTP_HOST).")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Port; 0 is any (or AI_HTTP_PORT).")] = None,
    is_open: Annotated[
        bool, typer.Option("--open", help="Ask for no API key; only where it listens on loopback.")
    ] = False,
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR (or AI_LOG_LEVEL).")] = None,
) -> None:
    """Open the HTTP door until SIGTERM or Ctrl-C; it then finishes the requests that are open.

    Any OpenAI SDK can use it: /v1/chat/completions, /v1/embeddings, /v1/models. Requests go through Kafka like all
    others. It needs no worker in its own process, and several may run side by side. Examples:

      spillway keys create --workspace acme
      spillway serve --port 8080
      spillway serve --open
    """
    from app.cli.context import command_settings  # noqa: PLC0415 - start-up time of the other commands
    from app.logging import configure_logging  # noqa: PLC0415

    level = log_level.upper() if log_level else None
    settings = command_settings(http_host=host, http_port=port, log_level=level)
    configure_logging(settings.log_level, settings.log_format)
    import uvloop  # noqa: PLC0415

    from app.http.serve import serve as run  # noqa: PLC0415

    uvloop.run(run(settings, is_open=is_open))

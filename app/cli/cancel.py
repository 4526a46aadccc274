"""`spillway cancel`: drops a request that waits, and ends one that is being answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from app.settings import Settings


def cancel(
    request_ids: Annotated[list[str], typer.Argument(metavar="REQUEST_ID...", help="The requests' ids.")],
    workspace: Annotated[str, typer.Option("--workspace", "-w", help="Whose requests they are.")] = "default",
) -> None:
    """Cancel requests. Each gets a terminal response with the error `cancelled`; what it has used is counted.

    A request that is answered already keeps its answer. Examples:

      spillway cancel 0b51c2f0-8d2e-4a39-bb2c-2f6f6d9f3c11
      spillway cancel --workspace acme job-17 job-18
    """
    from app.cli.context import command_settings, run  # noqa: PLC0415 - start-up time of the other commands
    from app.cli.output import count  # noqa: PLC0415

    run(_cancel(command_settings(), workspace, request_ids))
    typer.echo(f"{count(len(request_ids), 'cancellation')} published.")


async def _cancel(settings: Settings, workspace: str, request_ids: list[str]) -> None:
    from app.client import SpillwayClient  # noqa: PLC0415

    servers, security = settings.kafka_bootstrap_servers, settings.kafka_security
    async with SpillwayClient(servers, workspace_id=workspace, security=security) as client:
        for request_id in request_ids:
            await client.cancel(request_id)

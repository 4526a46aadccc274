"""`spillway cancel`: drops a request that waits, and ends one that is being answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from app.settings import Settings


def cancel(
    request_ids: Annotated[list[str], typer.Argument(metavar="REQUEST_ID...", help="The requests' ids.")],
    workspace: Annotated[str, typer.Option(help="Whose requests they are.")] = "default",
) -> None:
    """Cancel requests. Each gets a terminal response with the error `cancelled`; what it has used is counted.

    A request that is answered already keeps its answer. Examples:

      spillway cancel 0b51c2f0-8d2e-4a39-bb2c-2f6f6d9f3c11
      spillway cancel --workspace acme job-17 job-18
    """
    from app.cli.context import command_settings, run  # noqa: PLC0415 - start-up time of the other commands
    from app.cli.output import count  # noqa: PLC0415

    run(announce(command_settings(), workspace, request_ids))
    typer.echo(f"{count(len(request_ids), 'cancellation')} published.")


async def announce(settings: Settings, workspace: str, request_ids: list[str]) -> None:
    """Publish a cancellation for each request. Raises CommandError for what cannot be a request's id or workspace."""
    from datetime import UTC, datetime  # noqa: PLC0415

    from pydantic import ValidationError  # noqa: PLC0415

    from app.cli.errors import CommandError  # noqa: PLC0415
    from app.cli.wire import producing  # noqa: PLC0415
    from schemas.cancellation import Cancellation  # noqa: PLC0415
    from schemas.codec import encode, event_headers  # noqa: PLC0415
    from streams.topology import CANCELLATIONS  # noqa: PLC0415

    try:
        events = [Cancellation(request_id=name, workspace_id=workspace) for name in request_ids]
    except ValidationError as error:
        raise CommandError(f"{error.errors()[0]['input']!r} is no request id or workspace.") from None
    async with producing(settings.kafka_bootstrap_servers) as producer:
        for event in events:
            headers = event_headers(
                event_id=f"{event.request_id}/cancellation",
                event_type=event.ce_type,
                workspace_id=workspace,
                time=datetime.now(UTC),
                traceparent=None,
            )
            await producer.send_and_wait(CANCELLATIONS, encode(event), key=workspace.encode(), headers=list(headers))

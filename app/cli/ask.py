"""`spillway ask`: one question through the whole of Spillway, and its answer."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from app.client import SpillwayClient
    from app.settings import Settings
    from schemas.response import Response

#: Seconds beyond the deadline in which Spillway can still say that it has passed.
GRACE = 5.0


def ask(
    question: Annotated[str, typer.Argument(help="The question; - reads it from the standard input.")],
    workspace: Annotated[str, typer.Option("--workspace", "-w", help="Who asks, and pays.")] = "default",
    model: Annotated[str | None, typer.Option(help="Model, instead of the provider's default.")] = None,
    provider: Annotated[
        list[str] | None, typer.Option(help="Provider to try; again for the next one in order.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds until the request expires.")] = 60.0,
    stream: Annotated[bool, typer.Option("--stream", help="Print the answer while it is written.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole response as JSON.")] = False,
) -> None:
    """Ask one question and print the answer; exits with 1 when there is none.

    Ctrl-C cancels the request as well. Examples:

      spillway ask "Why is the sky blue?"
      spillway ask --stream "Tell me a story"
      spillway ask --provider openai --provider claude --json "Name three rivers"
      git diff | spillway ask --system "Review this change" -
    """
    from app.cli.context import command_settings, run_traced  # noqa: PLC0415 - start-up time of the other commands

    text = sys.stdin.read() if question == "-" else question
    body = {
        "workspace_id": workspace,
        "prompt": text,
        "model": model,
        "preferred_providers": provider or None,
        "system": system,
        "max_tokens": max_tokens,
        "purpose": "ask",
    }
    asking = _ask_for_stream if stream and not as_json else ask_once
    given = {name: value for name, value in body.items() if value is not None}
    settings = command_settings()
    response = run_traced(settings, asking(settings, given, timeout))
    _show(response, as_json=as_json, shown=stream and response.status == "succeeded")
    if response.status != "succeeded":
        raise typer.Exit(1)


def _client(settings: Settings, patience: float) -> SpillwayClient:
    from app.client import SpillwayClient  # noqa: PLC0415

    return SpillwayClient(
        settings.kafka_bootstrap_servers, timeout=patience, grace=GRACE, security=settings.kafka_security
    )


async def ask_once(settings: Settings, body: dict[str, Any], patience: float) -> Response:
    """Publish the request and wait for its terminal response, whatever it says; Ctrl-C cancels the request."""
    async with _client(settings, patience) as client:
        return await client.request(body)


async def _ask_for_stream(settings: Settings, body: dict[str, Any], patience: float) -> Response:
    """As `ask_once`, and print the pieces as they come."""
    from app.cli.output import print_piece, remark  # noqa: PLC0415
    from app.client import SpillwayError  # noqa: PLC0415

    async with _client(settings, patience) as client, client.open_stream(body) as answer:
        is_begun = False
        try:
            async for piece in answer:
                if piece.restarted:
                    remark("\nThe answer broke off; another one begins.")
                print_piece(piece.content)
                is_begun = True
        except SpillwayError as error:
            if error.response is None:
                raise
        if is_begun:
            print_piece("\n")
        return answer.response


def _show(response: Response, *, as_json: bool, shown: bool = False) -> None:
    from app.cli.output import print_text  # noqa: PLC0415
    from schemas.codec import encode  # noqa: PLC0415

    if as_json:
        return typer.echo(encode(response))
    if response.content is not None and not shown:
        print_text(response.content)
    return show_end(response)


def show_end(response: Response) -> None:
    """Why there is no answer, if there is none; and what it took."""
    from app.cli.output import problem, remark  # noqa: PLC0415

    if response.status != "succeeded":
        reason = response.error.message if response.error else "no reason was given"
        problem(f"{response.status}: {reason}")
    for warning in response.warnings:
        remark(f"warning: {warning.message}")
    if response.attempts or response.cached:
        remark(summary(response))


def summary(response: Response) -> str:
    """`claude · claude-sonnet-4-5 · 12 + 40 tokens · $0.0006360 · 1.2 s`."""
    from app.cli.output import money, seconds  # noqa: PLC0415

    usage = response.usage
    parts = [
        response.provider,
        response.model,
        "from the cache" if response.cached else None,
        f"{usage.prompt_tokens:,} + {usage.completion_tokens:,} tokens" if usage.total_tokens else None,
        money(usage.cost),
        seconds(response.latency),
    ]
    return " · ".join(part for part in parts if part)

"""`spillway ask`: one question through the whole of Spillway, and its answer."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from app.settings import Settings
    from schemas.response import Response

#: Seconds beyond the deadline in which Spillway can still say that it has passed.
GRACE = 5.0


def ask(
    question: Annotated[str, typer.Argument(help="The question; - reads it from the standard input.")],
    workspace: Annotated[str, typer.Option(help="Who asks, and pays.")] = "default",
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

    With --stream, Ctrl-C cancels the request as well. Examples:

      spillway ask "Why is the sky blue?"
      spillway ask --stream "Tell me a story"
      spillway ask --provider openai --provider claude --json "Name three rivers"
      git diff | spillway ask --system "Review this change" -
    """
    from app.cli.context import command_settings, run  # noqa: PLC0415 - start-up time of the other commands

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
    response = run(asking(command_settings(), given, timeout))
    _show(response, as_json=as_json, shown=stream and response.status == "succeeded")
    if response.status != "succeeded":
        raise typer.Exit(1)


async def ask_once(settings: Settings, body: dict[str, Any], patience: float) -> Response:
    """Publish the request and wait for its terminal response."""
    import orjson  # noqa: PLC0415

    from app.cli.answers import AnswerReader  # noqa: PLC0415
    from app.cli.wire import consuming, producing  # noqa: PLC0415
    from streams.topology import REQUESTS, RESPONSES  # noqa: PLC0415

    request = _request(body, patience)
    servers = settings.kafka_bootstrap_servers
    async with consuming(servers, RESPONSES) as consumer, producing(servers) as producer:
        answers = AnswerReader(consumer)
        await answers.start()
        await producer.send_and_wait(REQUESTS, orjson.dumps(request), key=body["workspace_id"].encode())
        found: list[Response] = []
        await answers.collect([request["request_id"]], patience=patience + GRACE, on_answer=found.append)
    return found[0] if found else _nobody(patience)


async def _ask_for_stream(settings: Settings, body: dict[str, Any], patience: float) -> Response:
    """As `ask_once`, and print the pieces as they come. Whoever stops waiting cancels the request."""
    import asyncio  # noqa: PLC0415

    import orjson  # noqa: PLC0415

    from app.cli.cancel import announce  # noqa: PLC0415
    from app.cli.output import print_piece, remark  # noqa: PLC0415
    from app.cli.stream import StreamReader  # noqa: PLC0415
    from app.cli.wire import consuming, producing  # noqa: PLC0415
    from streams.topology import REPLIES, REQUESTS  # noqa: PLC0415

    request = _request(body, patience) | {"stream": True, "reply_to": REPLIES}
    reader = StreamReader(
        request["request_id"], print_piece, lambda: remark("\nThe answer broke off; another one begins.")
    )
    servers = settings.kafka_bootstrap_servers
    try:
        async with consuming(servers, REPLIES) as consumer, producing(servers) as producer:
            await consumer.seek_to_end()
            await producer.send_and_wait(REQUESTS, orjson.dumps(request), key=body["workspace_id"].encode())
            found = await reader.read(consumer, patience + GRACE)
    except asyncio.CancelledError:
        # Ctrl-C: nobody reads on, so nobody shall pay on.
        await announce(settings, body["workspace_id"], [request["request_id"]])
        raise
    print_piece("\n")
    return found or _nobody(patience)


def _request(body: dict[str, Any], patience: float) -> dict[str, Any]:
    import uuid  # noqa: PLC0415
    from datetime import UTC, datetime, timedelta  # noqa: PLC0415

    deadline = datetime.now(UTC) + timedelta(seconds=patience)
    return {"kind": "completion", **body, "request_id": str(uuid.uuid4()), "deadline": deadline.isoformat()}


def _nobody(patience: float) -> NoReturn:
    from app.cli.errors import CommandError  # noqa: PLC0415

    raise CommandError(f"No answer came within {patience + GRACE:g} seconds; is a worker running?")


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

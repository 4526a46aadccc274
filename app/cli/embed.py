"""`spillway embed`: vectors of texts, through the whole of Spillway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.ask import ask_once, show_end

if TYPE_CHECKING:
    from schemas.response import Response

#: Numbers and characters of a line that shows a vector.
SHOWN_NUMBERS = 4
SHOWN_TEXT = 40


def embed(
    texts: Annotated[list[str], typer.Argument(help="The texts.")],
    workspace: Annotated[str, typer.Option("--workspace", "-w", help="Who asks, and pays.")] = "default",
    model: Annotated[str | None, typer.Option(help="Model, instead of the default.")] = None,
    provider: Annotated[list[str] | None, typer.Option(help="Provider to try; again for the next one.")] = None,
    dimensions: Annotated[int | None, typer.Option(min=1, help="Numbers in a vector, if the model can choose.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds until the request expires.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole response as JSON.")] = False,
) -> None:
    """Make vectors of texts; prints how each begins, or all of it with --json. Examples:

    spillway embed "a harbour at low tide"
    spillway embed --dimensions 256 --json "one" "two" | jq '.embeddings[0]'
    """
    from app.cli.context import command_settings, run_traced  # noqa: PLC0415 - start-up time of the other commands
    from schemas.codec import encode  # noqa: PLC0415

    body = {
        "kind": "embedding",
        "workspace_id": workspace,
        "input": texts,
        "model": model,
        "preferred_providers": provider or None,
        "dimensions": dimensions,
        "purpose": "embed",
    }
    given = {name: value for name, value in body.items() if value is not None}
    settings = command_settings()
    response = run_traced(settings, ask_once(settings, given, timeout))
    if as_json:
        typer.echo(encode(response))
    else:
        _show(texts, response)
    if response.status != "succeeded":
        raise typer.Exit(1)


def _show(texts: list[str], response: Response) -> None:
    from app.cli.output import print_table  # noqa: PLC0415

    rows = [(_short(text), *_begin(vector)) for text, vector in zip(texts, response.embeddings, strict=False)]
    if rows:
        print_table(("TEXT", "NUMBERS", "VECTOR"), rows, right=("NUMBERS",))
    show_end(response)


def _begin(vector: str | tuple[float, ...]) -> tuple[str, str]:
    if isinstance(vector, str):
        return "–", vector[:SHOWN_TEXT]
    begin = ", ".join(f"{number:.6f}" for number in vector[:SHOWN_NUMBERS])
    return f"{len(vector):,}", begin + (", …" if len(vector) > SHOWN_NUMBERS else "")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_TEXT else line[: SHOWN_TEXT - 1] + "…"

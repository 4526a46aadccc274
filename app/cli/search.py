"""`spillway search`: a web search through the whole of Spillway."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.ask import ask_once, show_end

if TYPE_CHECKING:
    from schemas.response import Response


class Recency(StrEnum):
    """How old a page may be."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    YEAR = "year"


def search(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    workspace: Annotated[str, typer.Option("--workspace", "-w", help="Who asks, and pays.")] = "default",
    include: Annotated[list[str] | None, typer.Option(help="Only pages of this domain; again for more.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="No pages of this domain; again for more.")] = None,
    recency: Annotated[Recency | None, typer.Option(help="How old a page may be.")] = None,
    images: Annotated[bool, typer.Option("--images", help="Look for pictures, too.")] = False,
    related: Annotated[bool, typer.Option("--related", help="Ask for related questions, too.")] = False,
    model: Annotated[str | None, typer.Option(help="Model, instead of the default.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds until the request expires.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole response as JSON.")] = False,
) -> None:
    """Search the web; prints the answer, if the interface writes one, and its sources. Examples:

    spillway search "tide tables of Saint-Malo"
    spillway search --include shom.fr --recency month --related "tide tables"
    """
    from app.cli.context import command_settings, run_traced  # noqa: PLC0415 - start-up time of the other commands
    from schemas.codec import encode  # noqa: PLC0415

    body = {
        "kind": "search",
        "workspace_id": workspace,
        "query": query,
        "domains_include": include,
        "domains_exclude": exclude,
        "recency": recency,
        "return_images": images or None,
        "return_related_questions": related or None,
        "model": model,
        "purpose": "search",
    }
    given = {name: value for name, value in body.items() if value}
    settings = command_settings()
    response = run_traced(settings, ask_once(settings, given, timeout))
    if as_json:
        typer.echo(encode(response))
    else:
        _show(response)
    if response.status != "succeeded":
        raise typer.Exit(1)


def _show(response: Response) -> None:
    from app.cli.output import print_text  # noqa: PLC0415

    if response.content:
        print_text(response.content)
    titles = {result.url: result.title for result in response.search_results}
    urls = dict.fromkeys((*response.citations, *titles))
    parts = [
        [f"[{number}] {_titled(titles.get(url), url)}" for number, url in enumerate(urls, 1)],
        [f"picture: {image.title or ''} {image.url[:100]}" for image in response.images],
        [f"related: {question}" for question in response.related_questions],
    ]
    for lines in parts:
        if lines:
            print_text("\n".join(lines))
    show_end(response)


def _titled(title: str | None, url: str) -> str:
    return f"{title}  {url}" if title else url

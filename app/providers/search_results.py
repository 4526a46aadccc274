"""What a search has found, as Perplexity's interfaces write it: read leniently, for the answer is paid for.

Source: "Chat Completions", "Agent API" and "Search" of Perplexity's API reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from schemas.response import Image, SearchResult


def read_results(listed: object) -> tuple[SearchResult, ...]:
    """Pages; what has no address is none."""
    return tuple(
        SearchResult(
            url=item["url"], title=_text(item, "title"), date=_text(item, "date"), snippet=_text(item, "snippet")
        )
        for item in _objects(listed)
        if _text(item, "url")
    )


def read_images(listed: object) -> tuple[Image, ...]:
    return tuple(
        Image(
            url=item["image_url"],
            origin_url=_text(item, "origin_url"),
            title=_text(item, "title"),
            width=_pixels(item.get("width")),
            height=_pixels(item.get("height")),
        )
        for item in _objects(listed)
        if _text(item, "image_url")
    )


def read_questions(listed: object) -> tuple[str, ...]:
    return tuple(question for question in listed if isinstance(question, str)) if isinstance(listed, list) else ()


def _objects(listed: object) -> Iterator[dict[str, Any]]:
    if isinstance(listed, list):
        yield from (item for item in listed if isinstance(item, dict))


def _text(item: dict[str, Any], name: str) -> str | None:
    value = item.get(name)
    return value if isinstance(value, str) and value else None


def _pixels(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None

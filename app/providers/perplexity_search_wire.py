"""Perplexity's Search API: pages for a query, and no text of a model's. For AI_PERPLEXITY_INTERFACE=agent.

Source: "Search" of Perplexity's API reference: a successful request is one unit, whatever it finds; it has no tokens.
"""

from __future__ import annotations

from app.providers.perplexity_wire import search_filters
from app.providers.search_results import read_results
from app.providers.wire import Body, UnsupportedRequestError, as_list, read_object, with_options
from schemas.request import SearchRequest
from schemas.usage import Tokens
from streams.dispatch.ports import Answer

PATH = "/search"
#: Stands for the model in records and in the price book.
MODEL = "search"


def to_body(request: SearchRequest) -> Body:
    """The search. Raises UnsupportedRequestError for what only the other interface finds."""
    if request.return_images or request.return_related_questions:
        raise UnsupportedRequestError(
            "Perplexity's Search API finds no images and no related questions; leave `return_images` and "
            "`return_related_questions` out, or set AI_PERPLEXITY_INTERFACE=sonar."
        )
    return with_options({"query": request.query, **search_filters(request)}, request, "perplexity")


def to_answer(raw: bytes) -> Answer:
    """The pages, best first; raises MalformedAnswerError."""
    results = read_results(as_list(read_object(raw).get("results"), "results"))
    return Answer(
        content=None,
        model=MODEL,
        finish_reason="stop",
        tokens=Tokens(search_requests=1),
        citations=tuple(result.url for result in results),
        search_results=results,
    )

"""Perplexity's Sonar chat completions: the wire of AI_PERPLEXITY_INTERFACE=sonar, for completions and searches.

It is OpenAI's, with three differences: `max_tokens` by its old name, sources beside the answer, and usage that states
the cost of the call (tokens, request fee and searches together). Source: "Chat Completions" of Perplexity's API
reference; domains that are left out have a `-` before them.
"""

from __future__ import annotations

from dataclasses import replace

from app.providers.chat_answer import chat_answer
from app.providers.chat_wire import chat_body, chat_format
from app.providers.search_results import read_images, read_questions, read_results
from app.providers.translation import JSON_IN_WORDS, Translation
from app.providers.usage_wire import cost_in, count_in, usage_in
from app.providers.wire import (
    JSON_OBJECT_RULE,
    Body,
    read_exact_object,
    with_options,
)
from schemas.request import CompletionRequest, SearchRequest
from schemas.usage import Tokens, tier_of
from streams.dispatch.ports import Answer
from streams.tokens import SEARCH_ANSWER_TOKENS

PATH = "/chat/completions"


def to_body(request: CompletionRequest, model: str, translation: Translation | None = None) -> Body:
    """The request in Perplexity's words. It knows no "some JSON object": the system prompt asks for one instead.

    Raises UnsupportedRequestError.
    """
    translation = translation or Translation()
    body = chat_body(request, model, translation, max_tokens=request.max_tokens, temperature=request.temperature)
    if request.response_format is not None:
        _set_format(body, request.response_format, translation)
    return with_options(body, request, "perplexity")


def search_body(request: SearchRequest, model: str) -> Body:
    """A search: the query as the one message, and what narrows it."""
    body: Body = {
        "model": model,
        "messages": [{"role": "user", "content": request.query}],
        "max_tokens": SEARCH_ANSWER_TOKENS,
        **search_filters(request),
    }
    if request.return_images:
        body["return_images"] = True
    if request.return_related_questions:
        body["return_related_questions"] = True
    return with_options(body, request, "perplexity")


def search_filters(request: SearchRequest) -> Body:
    """The domains and the age of the pages, as all of Perplexity's interfaces name them."""
    filters: Body = {}
    domains = [*request.domains_include, *(f"-{domain}" for domain in request.domains_exclude)]
    if domains:
        filters["search_domain_filter"] = domains
    if request.recency is not None:
        filters["search_recency_filter"] = request.recency
    return filters


def _set_format(body: Body, wanted: Body, translation: Translation) -> None:
    if wanted.get("type") == "json_object":
        translation.note(JSON_IN_WORDS)
        body["messages"].insert(0, {"role": "system", "content": JSON_OBJECT_RULE})
    elif wanted.get("type") != "text":
        body["response_format"] = chat_format(wanted)


def to_answer(raw: bytes) -> Answer:
    """The answer with its sources and what it cost; raises MalformedAnswerError."""
    return answer_of(read_exact_object(raw))


def answer_of(answer: Body) -> Answer:
    """The answer out of its parsed object; raises MalformedAnswerError."""
    usage = usage_in(answer) or {}
    found = chat_answer(answer, _tokens(usage), citations=_citations(answer), reported_cost=cost_in(usage))
    return replace(
        found,
        search_results=read_results(answer.get("search_results")),
        images=read_images(answer.get("images")),
        related_questions=read_questions(answer.get("related_questions")),
    )


def _tokens(usage: Body) -> Tokens:
    # Deep research counts its reasoning beside the completion; Spillway counts it inside, as OpenAI does.
    reasoning, size = count_in(usage, "reasoning_tokens"), usage.get("search_context_size")
    # How much was read is of use for the price alone, where none is stated.
    is_priced = cost_in(usage) is None and isinstance(size, str)
    return Tokens(
        prompt_tokens=count_in(usage, "prompt_tokens"),
        completion_tokens=count_in(usage, "completion_tokens") + reasoning,
        reasoning_tokens=reasoning,
        search_requests=count_in(usage, "num_search_queries"),
        service_tier=tier_of(f"context_{size}") if is_priced else None,
    )


def _citations(answer: Body) -> tuple[str, ...]:
    """The sources' addresses; newer answers list them as search results only."""
    listed = answer.get("citations")
    if not listed:
        return tuple(result.url for result in read_results(answer.get("search_results")))
    return tuple(url for url in listed if isinstance(url, str)) if isinstance(listed, list) else ()

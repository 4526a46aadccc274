"""Embeddings and searches over real HTTP, through the real clients."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest

from app.providers import build_providers
from app.settings import Settings
from schemas.request import CommonRequest, CompletionRequest, EmbeddingRequest, SearchRequest
from schemas.usage import Tokens
from streams.dispatch.ports import Answer, Call, Delta, ErrorClass, Failure, Provider
from tests.support.provider.kinds import PAGE, TEXT, Kinds, serving_kinds, vector_of

pytestmark = [pytest.mark.timeout(60)]


@asynccontextmanager
async def provider(name: str, **changes: Any) -> AsyncIterator[tuple[Provider, Kinds]]:
    async with serving_kinds() as (base, kinds):
        told: dict[str, Any] = {
            "openai_base_url": f"{base}/v1",
            "perplexity_base_url": base,
            "perplexity_interface": "agent",
            **changes,
        }
        keys: dict[str, Any] = {f"{vendor}_api_key": "secret" for vendor in ("openai", "perplexity")}
        settings = Settings(_env_file=None, primary_provider=name, fallback_providers=(), **keys, **told)
        built = build_providers(settings)[name]
        try:
            yield built, kinds
        finally:
            await built.close()


async def ask(built: Provider, request: CommonRequest, told: list[Delta] | None = None) -> Answer | Failure:
    async def tell(delta: Delta) -> None:
        assert told is not None
        told.append(delta)

    call = Call(request, built.model_for(request), timeout=20.0, attempt_id="r/1")
    return await built.call(call, None if told is None else tell)


def embedding(*texts: str, **fields: Any) -> EmbeddingRequest:
    return EmbeddingRequest(kind="embedding", **{"input": texts, "dimensions": 4, **fields})


async def test_openai_makes_vectors_in_the_order_of_the_texts() -> None:
    async with provider("openai") as (openai, kinds):
        found = await ask(openai, embedding("a", "bb", "ccc"))
    assert isinstance(found, Answer)
    assert found.embeddings == tuple(vector_of(text, 4) for text in ("a", "bb", "ccc"))
    assert (found.tokens, found.model) == (Tokens(prompt_tokens=3), "text-embedding-3-small")
    [(path, body)] = kinds.bodies
    assert path == "/v1/embeddings"
    wanted = {"model": "text-embedding-3-small", "input": ["a", "bb", "ccc"], "dimensions": 4}
    assert body == wanted | {"encoding_format": "base64"}


async def test_a_batch_that_is_too_large_for_one_call_is_split_and_put_together() -> None:
    texts = [f"{number:05}" for number in range(5_000)]
    async with provider("openai") as (openai, kinds):
        found = await ask(openai, embedding(*texts))
    assert isinstance(found, Answer)
    assert [len(body["input"]) for _, body in kinds.bodies] == [2_048, 2_048, 904]
    assert len(found.embeddings) == 5_000
    assert found.tokens == Tokens(prompt_tokens=5_000)


async def test_a_part_that_fails_fails_all_of_it_and_what_was_answered_before_is_counted() -> None:
    async with provider("openai") as (openai, kinds):
        kinds.fail_at = 2
        failed = await ask(openai, embedding(*["a"] * 3_000))
        assert isinstance(failed, Failure)
        assert (failed.code, failed.may_be_billed, failed.tokens) == ("server_error", True, Tokens(prompt_tokens=2_048))
        kinds.bodies.clear()
        kinds.fail_at = 1
        first = await ask(openai, embedding(*["a"] * 3_000))
        assert isinstance(first, Failure)
        assert (first.may_be_billed, first.tokens) == (False, None)


async def test_an_empty_text_is_refused_without_a_call() -> None:
    async with provider("openai") as (openai, kinds):
        refused = await ask(openai, embedding("a", ""))
    assert isinstance(refused, Failure)
    assert (refused.code, refused.error_class) == ("unsupported", ErrorClass.FALL_BACK)
    assert kinds.bodies == []


async def test_a_search_by_the_search_api() -> None:
    request = SearchRequest(kind="search", query="tides", domains_include=("shom.fr",), recency="month")
    async with provider("perplexity") as (perplexity, kinds):
        found = await ask(perplexity, request)
    assert isinstance(found, Answer)
    assert found.search_results[0].title == PAGE["title"]
    assert (found.model, found.tokens) == ("search", Tokens(search_requests=1))
    filters = {"search_domain_filter": ["shom.fr"], "search_recency_filter": "month"}
    assert kinds.bodies == [("/search", {"query": "tides", **filters})]


async def test_a_completion_by_the_agent_api_streamed_and_not() -> None:
    request = CompletionRequest(prompt="When?", system="Be brief.", max_tokens=50)
    told: list[Delta] = []
    async with provider("perplexity") as (perplexity, kinds):
        plain = await ask(perplexity, request)
        streamed = await ask(perplexity, request, told)
        kinds.breaks_off = True
        broken = await ask(perplexity, request, [])
    assert isinstance(plain, Answer)
    assert plain == streamed
    assert (plain.content, plain.reported_cost, plain.tokens.search_requests) == ("At noon.", Decimal("0.00503"), 2)
    assert [delta.content for delta in told] == list(TEXT)
    assert isinstance(broken, Failure)
    assert (broken.code, broken.may_be_billed) == ("truncated", True)
    assert kinds.bodies[0] == (
        "/v1/agent",
        {
            "model": "perplexity/sonar",
            "instructions": "Be brief.",
            "input": [{"type": "message", "role": "user", "content": "When?"}],
            "max_output_tokens": 50,
            "tools": [{"type": "web_search"}],
        },
    )


async def test_a_kind_is_only_sent_to_who_answers_it() -> None:
    async with provider("perplexity") as (perplexity, kinds):
        refused = await ask(perplexity, embedding("a"))
    assert isinstance(refused, Failure)
    assert refused.code == "unsupported"
    assert kinds.bodies == []


async def test_a_tool_call_of_the_agent_api_is_told_in_the_stream_as_it_is_in_the_answer() -> None:
    tool = {"type": "function", "function": {"name": "tide", "parameters": {"type": "object"}}}
    told: list[Delta] = []
    async with provider("perplexity") as (perplexity, _):
        found = await ask(perplexity, CompletionRequest(prompt="When?", tools=(tool,)), told)
    assert isinstance(found, Answer)
    assert found.finish_reason == "tool_calls"
    [piece] = [piece for delta in told for piece in delta.tool_calls]
    assert {"index": 0, **found.tool_calls[0]} == piece

"""Tokens counted for estimates of cost: exact where the tokenizer is the model's, and not too low where it is not.

`tests/data/tokens.json` has texts with their counts, made once: by tiktoken 0.14.0 with OpenAI's own vocabularies
(o200k_base, cl100k_base), for Llama 3, and for Claude (the larger of both its generations) by ctok 1.3.0, which
reconstructs Anthropic's counts.
"""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import tokenizer
from app.prices import Prices
from app.tokenizer import family_of, measure_for
from schemas.request import CompletionRequest
from streams.tokens import estimate_text, estimate_tokens
from tests.support.reader.logs import said

COUNTED: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "data" / "tokens.json").read_text())
#: A model for each tokenizer of the file.
MODELS = {"o200k": "gpt-5-mini", "cl100k": "gpt-4-turbo", "llama3": "sonar", "claude": "claude-sonnet-5-5"}
AT = datetime(2026, 11, 1, tzinfo=UTC)


def counted(model: str, *texts: str) -> int:
    return measure_for(model).count(texts)


@pytest.fixture
def no_tokenizer(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def missing(name: str) -> None:
        raise ImportError(name)

    tokenizer._tokenizer.cache_clear()
    monkeypatch.setattr(importlib, "import_module", missing)
    yield
    tokenizer._tokenizer.cache_clear()


@pytest.mark.parametrize("case", COUNTED, ids=lambda case: case["kind"])
def test_openais_models_are_counted_as_openai_counts(case: dict[str, Any]) -> None:
    assert counted("gpt-4o-mini", case["text"]) == case["o200k"]


@pytest.mark.parametrize("case", COUNTED, ids=lambda case: case["kind"])
@pytest.mark.parametrize("vocabulary", MODELS)
def test_no_text_counts_less_than_the_model_makes_of_it(vocabulary: str, case: dict[str, Any]) -> None:
    made = case[vocabulary]
    assert made <= counted(MODELS[vocabulary], case["text"]) <= 3 * made


@pytest.mark.usefixtures("no_tokenizer")
@pytest.mark.parametrize("case", COUNTED, ids=lambda case: case["kind"])
def test_without_the_package_two_bytes_are_a_token_and_nothing_is_far_below(case: dict[str, Any]) -> None:
    made = counted("claude-sonnet-5-5", case["text"])
    assert made == -(-len(case["text"].encode()) // 2)
    assert made >= case["claude"] / 2, "a byte is never more than one token"


@pytest.mark.usefixtures("no_tokenizer")
def test_a_missing_package_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        counted("gpt-4o", "a")
        counted("gpt-4o", "b")
    assert [record.getMessage() for record in said(caplog, "app.tokenizer")] == [
        "no_tokenizer: costs are estimated at 2 bytes a token; install the extra `tokenizer`"
    ]


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=()), max_size=200), max_size=5))
def test_any_text_is_counted_and_no_byte_is_more_than_a_token(texts: list[str]) -> None:
    assert 0 <= counted("gpt-4o", *texts) <= sum(len(text.encode(errors="replace")) for text in texts)


@pytest.mark.parametrize(
    ("model", "factor"),
    [
        ("gpt-4o-2024-11-20", 1),
        ("openai/gpt-4.1-mini", 1),
        ("ft:gpt-4o-mini:acme::abc", 1),
        ("o3", 1),
        ("o4-mini", 1),
        ("gpt-5.2", 1),
        ("o30-of-tomorrow", 1.75),
        ("gpt-4", 1.75),
        ("gpt-6", 1.75),
        ("text-embedding-3-small", 1.75),
        ("claude-opus-4-8", 2.25),
        ("anthropic/claude-haiku-4-5", 2.25),
        ("eu.anthropic.claude-sonnet-4-5-v1:0", 2.25),
        ("perplexity/sonar", 1.75),
        ("", 1.75),
    ],
)
def test_a_model_belongs_to_the_family_that_its_name_tells(model: str, factor: float) -> None:
    assert family_of(model).factor == factor


def test_a_picture_and_tools_count_what_they_may_be_billed_at_most() -> None:
    url = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10_000}}
    seen = CompletionRequest(messages=({"role": "user", "content": [url]},))
    assert estimate_tokens(seen, measure_for("gpt-4o-mini")) == 48_169 + 4
    assert estimate_tokens(seen, measure_for("claude-sonnet-5-5")) == 4_784 + 4
    tool = {"type": "function", "function": {"name": "tide", "parameters": {"type": "object"}}}
    prices = Prices()
    bare, tooled = CompletionRequest(prompt="Hi"), CompletionRequest(prompt="Hi", tools=(tool,))
    costs = [prices.estimate("claude", "claude-sonnet-4-5", request, AT) or 0 for request in (bare, tooled)]
    assert costs[1] - costs[0] > 804 * Decimal("0.000003")


def test_the_lanes_go_on_counting_bytes() -> None:
    """A provider's rate limit counts by size as well, and a lane's turn is no place for a tokenizer."""
    assert estimate_text("x" * 400) == 100
    assert estimate_tokens(CompletionRequest(prompt="x" * 400)) == 104

"""How many tokens a request takes, before any provider has said. Pure.

The rule here is for the lanes and for what a provider forgot to count. What a call will cost is estimated with another
measure (`app/tokenizer.py`): money that was reserved too low is spent without a budget's leave.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.request import CommonRequest, CompletionRequest, EmbeddingRequest, SearchRequest

#: The estimate's rule: four bytes of UTF-8 to a token (English; other scripts take more bytes and more tokens), and
#: for each turn what marks its role. A picture counts as one of middling size.
BYTES_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 4
TOKENS_PER_IMAGE = 1_600
#: The frame around a prompt (names, braces, the other options). Providers that count by size before they have
#: counted tokens see it too: OpenAI's rate limits are estimated from the characters of the request.
TOKENS_PER_REQUEST = 24
#: What a search may write about what it has found.
SEARCH_ANSWER_TOKENS = 2_048

#: What an answer without a limit may take: more than any model writes at once.
UNLIMITED_ANSWER = 128_000
#: No model writes that much, whatever it is asked for. What is reserved for it is still an amount that a ledger holds.
LARGEST_ANSWER = 10_000_000
#: By which an application may set another limit for its answer than `max_tokens`, in `provider_options`.
_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def reserved_tokens(request: CommonRequest, provider: str) -> int:
    """What a call may use at most, and reserves in its lane: prompt, frame, and all that the answer may take."""
    options = sum(map(_text_tokens, option_texts(request, provider)))
    return estimate_tokens(request) + options + TOKENS_PER_REQUEST + answer_limit(request, provider)


def option_texts(request: CommonRequest, provider: str) -> tuple[str, ...]:
    """What an application passes through to this provider, and is more than a number. It wins over what the request
    says, and may be another prompt: a budget and a quota must not be blind to it.
    """
    options = request.provider_options.get(provider) or {}
    return tuple(_as_json(value) for value in options.values() if isinstance(value, str | list | dict))


def answer_limit(request: CommonRequest, provider: str) -> int:
    """What the answer may take at most, also by the options that are passed through. One of null takes a limit away."""
    options = request.provider_options.get(provider) or {}
    given = [options[name] for name in _LIMITS if name in options]
    stated = [math.ceil(value) for value in given if isinstance(value, int | float) and math.isfinite(value)]
    if None in given and not stated and isinstance(request, CompletionRequest):
        stated = [UNLIMITED_ANSWER]
    return min(max(_answer_tokens(request), *stated, 0), LARGEST_ANSWER)


def _answer_tokens(request: CommonRequest) -> int:
    match request:
        case CompletionRequest():
            return request.max_tokens
        case SearchRequest():
            return SEARCH_ANSWER_TOKENS
    return 0


@dataclass(frozen=True)
class Prompt:
    """What of a request is counted: its texts, its turns (each of which is marked as one), and its pictures."""

    texts: tuple[str, ...]
    turns: int = 0
    images: int = 0


def prompt_of(request: CommonRequest) -> Prompt:
    match request:
        case CompletionRequest():
            return _conversation(request)
        case EmbeddingRequest():
            return Prompt((request.input,) if isinstance(request.input, str) else request.input)
        case SearchRequest():
            return Prompt((request.query,), turns=1)
    return Prompt(())


@dataclass(frozen=True)
class Measure:
    """How tokens are counted. `count` takes all texts of a request at once."""

    count: Callable[[Sequence[str]], int]
    image: int = TOKENS_PER_IMAGE


def estimate_tokens(request: CommonRequest, measure: Measure | None = None) -> int:
    """The prompt's tokens; without a measure, by the rule at the top of this module, which asks no tokenizer."""
    measure = measure or BY_BYTES
    prompt = prompt_of(request)
    return measure.count(prompt.texts) + TOKENS_PER_MESSAGE * prompt.turns + measure.image * prompt.images


def estimate_text(text: str) -> int:
    """A text's tokens, by the same rule."""
    return _text_tokens(text)


def _conversation(request: CompletionRequest) -> Prompt:
    texts = [request.system] if request.system else []
    if request.prompt is not None:
        # Not by way of `conversation`: most requests are one text, which is counted for each of their providers.
        texts.append(request.prompt)
    images = 0
    for message in request.messages:
        for part in _parts(message.content):
            images += _is_image(part)
            texts += [] if _is_image(part) else [_text_of(part)]
        if message.tool_calls:
            texts.append(_as_json(message.tool_calls))
    texts += [_as_json(told) for told in (request.tools, request.response_format) if told]
    turns = len(request.messages) + (request.prompt is not None) + bool(request.system)
    return Prompt(tuple(texts), turns, images)


def _parts(content: str | list[dict[str, Any]]) -> Iterator[Mapping[str, Any]]:
    yield from [{"text": content}] if isinstance(content, str) else content


def _is_image(part: Mapping[str, Any]) -> bool:
    return part.get("type") in ("image", "image_url")


def _text_of(part: Mapping[str, Any]) -> str:
    text = part.get("text")
    return text if isinstance(text, str) else _as_json(part)


def tokens_of(size: int) -> int:
    """The tokens of so many bytes of text."""
    return math.ceil(size / BYTES_PER_TOKEN)


def _text_tokens(text: str) -> int:
    return tokens_of(len(text) if text.isascii() else len(text.encode(errors="replace")))


def _as_json(value: object) -> str:
    """What a structure takes as JSON; Python's own form is as long, and never fails."""
    return str(value)


BY_BYTES = Measure(lambda texts: sum(map(_text_tokens, texts)))

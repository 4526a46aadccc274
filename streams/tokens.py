"""How many tokens a request takes, before any provider has said. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
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


def reserved_tokens(request: CommonRequest) -> int:
    """What a call may use at most, and reserves in its lane: prompt, frame, and all that the answer may take."""
    return estimate_tokens(request) + TOKENS_PER_REQUEST + answer_tokens(request)


def answer_tokens(request: CommonRequest) -> int:
    """What an answer may take at most."""
    match request:
        case CompletionRequest():
            return request.max_tokens
        case SearchRequest():
            return SEARCH_ANSWER_TOKENS
    return 0


def estimate_tokens(request: CommonRequest) -> int:
    """The prompt's tokens, by the rule at the top of this module. No tokenizer is asked."""
    match request:
        case CompletionRequest():
            return _conversation_tokens(request)
        case EmbeddingRequest():
            texts = (request.input,) if isinstance(request.input, str) else request.input
            return sum(map(_text_tokens, texts))
        case SearchRequest():
            return _text_tokens(request.query) + TOKENS_PER_MESSAGE
    return 0


def estimate_text(text: str) -> int:
    """A text's tokens, by the same rule."""
    return _text_tokens(text)


def _conversation_tokens(request: CompletionRequest) -> int:
    total = _text_tokens(request.system) + TOKENS_PER_MESSAGE if request.system else 0
    for message in request.conversation():
        total += TOKENS_PER_MESSAGE + _content_tokens(message.content)
        if message.tool_calls:
            total += _json_tokens(message.tool_calls)
    if request.tools:
        total += _json_tokens(request.tools)
    return total + (_json_tokens(request.response_format) if request.response_format else 0)


def _content_tokens(content: str | list[dict[str, Any]]) -> int:
    if isinstance(content, str):
        return _text_tokens(content)
    return sum(_part_tokens(part) for part in content)


def _part_tokens(part: Mapping[str, Any]) -> int:
    if part.get("type") in ("image", "image_url"):
        return TOKENS_PER_IMAGE
    text = part.get("text")
    return _text_tokens(text) if isinstance(text, str) else _json_tokens(part)


def tokens_of(size: int) -> int:
    """The tokens of so many bytes of text."""
    return math.ceil(size / BYTES_PER_TOKEN)


def _text_tokens(text: str) -> int:
    return tokens_of(len(text) if text.isascii() else len(text.encode(errors="replace")))


def _json_tokens(value: object) -> int:
    """What a structure takes as JSON; Python's own form is as long, and never fails."""
    return _text_tokens(str(value))

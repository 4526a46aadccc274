"""Why an answer has ended, in the words of many servers.

OpenAI has five reasons. Others write them differently, have more of them, or say by this word that they have failed. An
empty word, or one for nothing, is none: it stands in each piece of a stream, and says no end.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

#: By the word without its case, blanks and hyphens. A word that stands nowhere here is an end like any other: the
#: answer is complete and paid for. Sources: the API references of OpenAI, Anthropic, Gemini, Mistral, Cohere and
#: DeepSeek, and the code of vLLM, SGLang, Text Generation Inference and llama.cpp.
_OURS: Mapping[str, str] = {
    **dict.fromkeys(
        ("length", "max_tokens", "model_length", "max_length", "max_output_tokens", "token_limit"), "length"
    ),
    **dict.fromkeys(("context_length", "context_length_exceeded", "model_context_window_exceeded"), "length"),
    **dict.fromkeys(("pause_turn", "incomplete", "truncated", "limit"), "length"),
    **dict.fromkeys(("tool_calls", "tool_call", "function_call", "function_calls", "tool_use"), "tool_calls"),
    **dict.fromkeys(("content_filter", "content_filtered", "refusal", "safety", "sensitive"), "content_filter"),
    **dict.fromkeys(("recitation", "blocklist", "prohibited_content", "spii", "image_safety"), "content_filter"),
    **dict.fromkeys(("guardrail_intervened", "error_toxic", "flagged"), "content_filter"),
}

#: By this the provider says that it has failed, and with which HTTP status it would have said so in time.
_FAILED: Mapping[str, int] = {
    **dict.fromkeys(
        ("error", "failed", "failure", "internal_error", "server_error", "network_error", "unknown_error"), 500
    ),
    **dict.fromkeys(("abort", "aborted", "cancelled", "canceled", "interrupted", "disconnected"), 500),
    **dict.fromkeys(("malformed_function_call", "malformed_response", "unexpected_tool_call"), 500),
    **dict.fromkeys(
        ("insufficient_system_resource", "insufficient_system_resources", "overloaded", "no_capacity"), 503
    ),
    **dict.fromkeys(("timeout", "time_out", "timed_out"), 504),
}

_NONE = frozenset({"", "null", "none", "nil", "undefined", "finish_reason_unspecified"})


def word_of(value: object) -> str | None:
    """The provider's own word, as it is written; None where it names no reason."""
    if isinstance(value, Mapping):
        # SGLang's own interface tells what it has matched beside the word.
        value = value.get("type")
    return value if isinstance(value, str) and _plain(value) not in _NONE else None


def reason_of(word: str) -> str:
    """Ours for a word: `stop`, `length`, `tool_calls` or `content_filter`."""
    return _OURS.get(_plain(word), "stop")


def failed_as(word: str) -> int | None:
    """The HTTP status that a failure would have had; None for a word that ends an answer."""
    status = _FAILED.get(_plain(word))
    return None if status is None else HTTPStatus(status)


def _plain(word: str) -> str:
    return word.strip().casefold().replace("-", "_").replace(" ", "_")

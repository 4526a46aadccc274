"""What a provider's error message may tell: never a key, never a piece of the prompt."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from schemas.request import CommonRequest, CompletionRequest, EmbeddingRequest, SearchRequest
from streams.dispatch.ports import Failure

#: Characters of a provider's message that are kept.
MESSAGE_LIMIT = 500
#: Characters in a row that a message and a prompt may share before they count as a quotation.
QUOTE_LENGTH = 16
#: A prompt that is shorter than this occurs in messages by chance.
SHORTEST_QUOTE = 4

# Providers show keys shortened (`sk-proj-ab**…**xy`), hence the stars and dots.
_KEY = re.compile(r"\b(sk|pplx|rk|key)-[\w*.…-]{4,}|(?<=Bearer )\S+")
_WORD_START = re.compile(r"(?<!\w)\w|\S(?=\w)")


def cut(message: str) -> str:
    return message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 1] + "…"


def mask_keys(message: str) -> str:
    """Replace what looks like a key of any provider."""
    return _KEY.sub(lambda found: f"{found[1]}-…" if found[1] else "…", message)


def without_keys(message: str, keys: Iterable[str]) -> str:
    """The message without the provider's own keys, and without what looks like any other."""
    for key in keys:
        # What is shorter is no secret, and stands in many words.
        if len(key) >= SHORTEST_QUOTE:
            message = _without_beginning(message.replace(key, "…"), key)
    return mask_keys(message)


def _without_beginning(message: str, key: str) -> str:
    """A message that was cut may end within the key."""
    if not message.endswith("…"):
        return message
    told = next((n for n in range(len(key) - 1, SHORTEST_QUOTE - 1, -1) if message.endswith(f"{key[:n]}…")), 0)
    return f"{message[: len(message) - told - 1]}…" if told else message


def without_secrets(failure: Failure, keys: Iterable[str], request: CommonRequest) -> Failure:
    """The failure with its message freed from the provider's own keys and from quotations of the prompt."""
    message = without_keys(failure.message, keys)
    for text in _texts(request):
        message = _without_quotes(message, text)
    return failure if message == failure.message else replace(failure, message=message)


def _without_quotes(message: str, prompt: str) -> str:
    if len(prompt) <= QUOTE_LENGTH:
        return message.replace(prompt, "[prompt]") if len(prompt) >= SHORTEST_QUOTE else message
    kept: list[str] = []
    at = 0
    for start in (found.start() for found in _WORD_START.finditer(message)):
        end = start + QUOTE_LENGTH
        if start < at or end > len(message) or message[start:end] not in prompt:
            continue
        while end < len(message) and message[start : end + 1] in prompt:
            end += 1
        kept += [message[at:start], "[prompt]"]
        at = end
    return "".join((*kept, message[at:]))


def _texts(request: CommonRequest) -> Iterable[str]:
    match request:
        case CompletionRequest():
            yield from _conversation(request)
        case EmbeddingRequest():
            yield from (request.input,) if isinstance(request.input, str) else request.input
        case SearchRequest():
            yield request.query


def _conversation(request: CompletionRequest) -> Iterable[str]:
    if request.system:
        yield request.system
    for message in request.conversation():
        parts = [message.content] if isinstance(message.content, str) else [p.get("text") for p in message.content]
        yield from (part for part in parts if isinstance(part, str))

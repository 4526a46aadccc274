"""What a provider's error message may tell: never a key, never a piece of the prompt."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

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
#: What stands under these says which tool, model or kind is meant, and helps whoever reads the message.
_NAMES = frozenset({"name", "type", "role", "model", "id"})
_BETWEEN = "\0"
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
    """The failure with its message freed from the provider's own keys and from quotations of the request."""
    message = without_keys(failure.message, keys)
    said, sent = _prompts(request), _rest(request)
    for text in said:
        # A short prompt is taken out as a whole: a piece of it would be any word.
        if SHORTEST_QUOTE <= len(text) <= QUOTE_LENGTH:
            message = message.replace(text, "[prompt]")
    message = _without_quotes(message, [form for text in (*said, *sent) for form in _forms(text, message)])
    return failure if message == failure.message else replace(failure, message=message)


def _without_quotes(message: str, texts: Iterable[str]) -> str:
    """The message without what it shares with one of the texts, `QUOTE_LENGTH` characters or more in a row."""
    # No message holds the character between two of them (`_forms`), so nothing is found across them.
    known = _BETWEEN.join(text for text in texts if len(text) >= QUOTE_LENGTH)
    kept: list[str] = []
    at = 0
    for start in (found.start() for found in _WORD_START.finditer(message)):
        end = start + QUOTE_LENGTH
        if start < at or end > len(message) or message[start:end] not in known:
            continue
        while end < len(message) and message[start : end + 1] in known:
            end += 1
        kept += [message[at:start], "[prompt]"]
        at = end
    return _without_last_words("".join((*kept, message[at:])), known)


def _without_last_words(message: str, known: str) -> str:
    """A message that was cut may end with the beginning of a quotation."""
    if not message.endswith("…"):
        return message
    first = len(message) - QUOTE_LENGTH
    starts = (found.start() for found in _WORD_START.finditer(message, max(first, 0)))
    start = next((at for at in starts if len(message) - 1 - at >= SHORTEST_QUOTE and message[at:-1] in known), None)
    return message if start is None else f"{message[:start]}[prompt]…"


def _forms(text: str, message: str) -> Iterable[str]:
    """The text as it is, and as it stands inside JSON or an address, where the message has something of that sort:
    servers quote what they were sent.
    """
    plain = text.replace(_BETWEEN, " ")
    yield plain
    if "\\" in message:
        yield from (json.dumps(plain)[1:-1], json.dumps(plain, ensure_ascii=False)[1:-1])
    if "%" in message:
        yield quote(plain)


def _prompts(request: CommonRequest) -> list[str]:
    """What is asked, in the words of whoever asks."""
    match request:
        case CompletionRequest():
            return list(_conversation(request))
        case EmbeddingRequest():
            return [request.input] if isinstance(request.input, str) else list(request.input)
        case SearchRequest():
            return [request.query]
    return []


def _conversation(request: CompletionRequest) -> Iterable[str]:
    if request.system:
        yield request.system
    for message in request.conversation():
        parts = [message.content] if isinstance(message.content, str) else [p.get("text") for p in message.content]
        yield from (part for part in parts if isinstance(part, str))


def _rest(request: CommonRequest) -> list[str]:
    """What else is sent of the request: calls of tools and what came of them, tools, formats, options, pictures."""
    sent: list[Any] = [request.provider_options]
    if isinstance(request, CompletionRequest):
        turns = [turn.model_dump(include={"content", "tool_calls"}) for turn in request.messages]
        sent += [*turns, *request.tools, request.response_format or {}, {"stop": request.stop}]
    return [text for part in sent for text in _leaves(part)]


def _leaves(value: object) -> Iterable[str]:
    """All texts in a value, those in JSON that is a text itself as well; names are no content."""
    if isinstance(value, str):
        yield value
        if value[:1] in ("{", "["):
            try:
                inner = json.loads(value)
            except (ValueError, RecursionError):
                return
            yield from _leaves(inner)
    elif isinstance(value, Mapping):
        for name, part in value.items():
            if name not in _NAMES:
                yield from _leaves(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _leaves(part)

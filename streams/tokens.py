"""How many tokens a request takes, before any provider has said. Pure.

The rule here is for the lanes and for what a provider forgot to count. What a call will cost is estimated with another
measure (`app/tokenizer.py`): money that was reserved too low is spent without a budget's leave.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.request import CommonRequest, CompletionRequest, EmbeddingRequest, SearchRequest
from streams.media import UNSEEN_PAGES, UNSEEN_SECONDS, decoded, film_seconds_of, pages_of, seconds_of

#: The estimate's rule: four bytes of UTF-8 to a token (English; other scripts take more bytes and more tokens), and
#: for each turn what marks its role. A picture counts as one of middling size.
BYTES_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 4
TOKENS_PER_IMAGE = 1_600
#: A page of a PDF is read as text and seen as a picture. Anthropic says 1,500 to 3,000 tokens of text a page.
TOKENS_PER_PAGE = 3_000
#: A second of sound and of film at Gemini, whose seconds count the most of those that say it; at OpenAI a second of
#: sound is 10. Sources: both vendors' documentation, read in November 2026.
TOKENS_PER_SECOND = 32
TOKENS_PER_SECOND_OF_FILM = 300
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
    """What of a request is counted: its texts, its turns (each of which is marked as one), its pictures, the pages of
    its documents, and the seconds of its sound and its films.
    """

    texts: tuple[str, ...]
    turns: int = 0
    images: int = 0
    pages: int = 0
    sound: float = 0.0
    film: float = 0.0


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
    second: int = TOKENS_PER_SECOND

    def tokens(self, prompt: Prompt) -> int:
        """All of a prompt; each page is a picture as well."""
        film = math.ceil(prompt.film * TOKENS_PER_SECOND_OF_FILM)
        pictures = self.image * (prompt.images + prompt.pages)
        seen = pictures + TOKENS_PER_PAGE * prompt.pages + film + self.sound(prompt)
        return self.count(prompt.texts) + TOKENS_PER_MESSAGE * prompt.turns + seen

    def sound(self, prompt: Prompt) -> int:
        """Its sound alone, which has a price of its own at some."""
        return math.ceil(prompt.sound * self.second)


def estimate_tokens(request: CommonRequest, measure: Measure | None = None) -> int:
    """The prompt's tokens; without a measure, by the rule at the top of this module, which asks no tokenizer."""
    return (measure or BY_BYTES).tokens(prompt_of(request))


def estimate_text(text: str) -> int:
    """A text's tokens, by the same rule."""
    return _text_tokens(text)


def _conversation(request: CompletionRequest) -> Prompt:
    texts = [request.system] if request.system else []
    if request.prompt is not None:
        # Not by way of `conversation`: most requests are one text, which is counted for each of their providers.
        texts.append(request.prompt)
    parts = _Parts(texts)
    for message in request.messages:
        if isinstance(message.content, str):
            texts.append(message.content)
        else:
            parts.add(message.content)
        if message.tool_calls:
            texts.append(_as_json(message.tool_calls))
    texts += [_as_json(told) for told in (request.tools, request.response_format) if told]
    turns = len(request.messages) + (request.prompt is not None) + bool(request.system)
    return Prompt(tuple(texts), turns, parts.images, parts.pages, parts.sound, parts.film)


_IMAGES = ("image", "image_url", "input_image")
_DOCUMENTS = ("document", "file", "file_url", "input_file", "pdf_url")
_SOUNDS = ("input_audio", "audio", "audio_url")
_FILMS = ("video", "video_url", "input_video")
#: Where a part has its content: as base64, as a data URL or as a link. They may lie in a field of the part's own name.
_CONTENTS = ("data", "file_data", "url", "file_url", "file_id")
_DATA_URL = re.compile(r"data:([\w.+/-]*)[^,]{0,200},")


class _Parts:
    """What the parts of messages come to: those of OpenAI's, of Claude's, and of those who speak their formats."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts
        self.images = self.pages = 0
        self.sound = self.film = 0.0

    def add(self, parts: object, depth: int = 0) -> None:
        """Each part; what a tool has found may hold further ones."""
        for part in parts if isinstance(parts, list) else (parts,):
            if isinstance(part, dict):
                self._add(part, depth)
            else:
                self._texts.append(part if isinstance(part, str) else _as_json(part))

    def _add(self, part: Mapping[str, Any], depth: int) -> None:
        kind, text = part.get("type"), part.get("text")
        if kind in _IMAGES:
            self.images += 1
        elif kind in _DOCUMENTS:
            self._document(part, depth)
        elif kind in _SOUNDS:
            self._sound(part)
        elif kind in _FILMS:
            _, data = _content_of(part)
            self.film += film_seconds_of(data) if data is not None else UNSEEN_SECONDS
        elif isinstance(text, str):
            self._texts.append(text)
        elif kind == "tool_result" and isinstance(part.get("content"), list) and depth < _DEEPEST:
            self.add(part["content"], depth + 1)
        else:
            self._texts.append(_as_json(part))

    def _document(self, part: Mapping[str, Any], depth: int) -> None:
        """A PDF by its pages; another file by what it holds."""
        self._texts += [part[name] for name in ("title", "context") if isinstance(part.get(name), str)]
        source = part.get("source")
        if isinstance(source, dict) and source.get("type") in ("text", "content"):
            inner = source.get("data") or source.get("content")
            self.add(inner if depth < _DEEPEST else _as_json(inner), depth + 1)
            return
        media, data = _content_of(part)
        if media.startswith("image/"):
            self.images += 1
        elif data is None:
            self.pages += UNSEEN_PAGES
        elif media.startswith("audio/"):
            self.sound += seconds_of(data)
        elif media.startswith("video/"):
            self.film += film_seconds_of(data)
        elif "pdf" in media or data.startswith(_PDF):
            self.pages += pages_of(data)
        else:
            self._texts.append(decoded(data).decode(errors="replace"))

    def _sound(self, part: Mapping[str, Any]) -> None:
        inner = part.get(str(part.get("type")))
        form = inner.get("format") if isinstance(inner, dict) else None
        _, data = _content_of(part)
        self.sound += seconds_of(data, form if isinstance(form, str) else "") if data is not None else UNSEEN_SECONDS


#: Parts within parts that are looked into.
_DEEPEST = 3
#: How a PDF begins, in base64.
_PDF = "JVBERi"


def _content_of(part: Mapping[str, Any]) -> tuple[str, str | None]:
    """The media type and the base64 of a part; no base64 where it is only linked to."""
    inner = next((part[name] for name in (str(part.get("type")), "source", "file") if name in part), part)
    fields: Mapping[str, Any] = inner if isinstance(inner, Mapping) else {"url": inner}
    media = fields.get("media_type") or fields.get("mime_type") or fields.get("filename")
    media = media.lower() if isinstance(media, str) else ""
    stated = next((fields[name] for name in _CONTENTS if isinstance(fields.get(name), str)), None)
    if not isinstance(stated, str):
        return media, None
    prefix = _DATA_URL.match(stated)
    if prefix is not None:
        return prefix[1] or media, stated[prefix.end() :]
    is_link = "data" not in fields and "file_data" not in fields
    return media, None if is_link else stated


def tokens_of(size: int) -> int:
    """The tokens of so many bytes of text."""
    return math.ceil(size / BYTES_PER_TOKEN)


def _text_tokens(text: str) -> int:
    return tokens_of(len(text) if text.isascii() else len(text.encode(errors="replace")))


def _as_json(value: object) -> str:
    """What a structure takes as JSON; Python's own form is as long, and never fails."""
    return str(value)


BY_BYTES = Measure(lambda texts: sum(map(_text_tokens, texts)))

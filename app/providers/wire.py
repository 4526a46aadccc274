"""What the wire mappings share: reading an answer that nobody has checked, and small JSON conventions."""

from __future__ import annotations

from typing import Any

from app.providers.text import mended_all, parse
from schemas.request import DEFAULT_TEMPERATURE, CommonRequest, CompletionRequest, Message
from schemas.usage import Tokens

#: A request's JSON body.
Body = dict[str, Any]

#: What `provider_options` may not touch: it would change the shape of the answer, its price, or pay for several
#: answers of which one is read.
RESERVED_OPTIONS = frozenset({"stream", "stream_options", "model", "n"})

#: For providers that take a schema but know no "some JSON object".
JSON_OBJECT_RULE = "Answer with one JSON object and nothing else."


#: More tokens than any call can use; the ledger could not hold what they would cost.
MOST_TOKENS = 10**9


class UnsupportedRequestError(ValueError):
    """The request cannot be put into this provider's words. The message quotes nothing of it."""


class MalformedAnswerError(ValueError):
    """The answer is not what the provider's contract promises. The message names the place; `tokens` is what the answer
    says to have used, if it does.
    """

    def __init__(self, place: str, tokens: Tokens | None = None) -> None:
        super().__init__(place)
        self.tokens = tokens


def read_object(raw: bytes) -> dict[str, Any]:
    """The answer's JSON object. Half characters, which no record could hold, are replaced."""
    return _read(raw, exactly=False)


def read_exact_object(raw: bytes) -> dict[str, Any]:
    """As `read_object`, with every fraction as a Decimal: for answers that state money."""
    return _read(raw, exactly=True)


def _read(raw: bytes, *, exactly: bool) -> dict[str, Any]:
    try:
        value = as_object(parse(raw, exactly=exactly), "it")
    except MalformedAnswerError:
        raise
    except ValueError:
        raise MalformedAnswerError("it is not JSON") from None
    # Half of a surrogate pair can only come as an escape, or out of bytes that are no text.
    return mended_all(value) if b"\\ud" in raw or b"\\uD" in raw else value


def read_event(data: str, *, exactly: bool = False) -> Any:
    """A piece of a stream. A half character stays: its other half may come with the next piece."""
    try:
        return parse(data.encode(errors="surrogatepass"), exactly=exactly)
    except ValueError:
        raise MalformedAnswerError("it is not JSON") from None


def as_object(value: object, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedAnswerError(f"{place} is not an object")
    return value


def as_list(value: object, place: str) -> list[Any]:
    if not isinstance(value, list):
        raise MalformedAnswerError(f"{place} is not a list")
    return value


def as_text(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise MalformedAnswerError(f"{place} is not text")
    return value


def with_options(body: Body, request: CommonRequest, provider: str) -> Body:
    """The body with the request's `provider_options`; an option of null takes the field out."""
    options = request.provider_options.get(provider)
    if not options:
        return body
    merged = {**body, **{name: value for name, value in options.items() if name not in RESERVED_OPTIONS}}
    return {name: value for name, value in merged.items() if value is not None}


def asks_for_temperature(request: CommonRequest) -> bool:
    """A temperature that is not the default is somebody's wish."""
    return isinstance(request, CompletionRequest) and request.temperature != DEFAULT_TEMPERATURE


def plain_text(message: Message) -> str:
    """A message's text; parts that are no text have none."""
    if isinstance(message.content, str):
        return message.content
    return "\n".join(part["text"] for part in message.content if isinstance(part.get("text"), str))

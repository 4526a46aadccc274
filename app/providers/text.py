"""Text as servers really send it: JSON with half characters, in parts, and cut in the middle of one."""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import orjson

#: Stands where something was that is no character.
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
#: Parts of a content that are read. Others (thoughts, pictures, audio) are no text of the answer.
_TEXT_PARTS = frozenset({None, "", "text", "output_text"})
_HIGH = ("\ud800", "\udbff")


def parse(raw: bytes, *, exactly: bool = False) -> Any:
    """The JSON value; raises ValueError. Half of a surrogate pair stays in its text: the other half may follow in the
    next piece of a stream. `exactly`: every fraction is a Decimal.
    """
    if not exactly:
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError:
            # What is broken is read again by the slower reader, which takes half characters.
            pass
    try:
        text = raw.removeprefix(codecs.BOM_UTF8).decode("utf-8", errors="replace")
        # Python writes `NaN`, which is no JSON, and others read it: it says nothing.
        return json.loads(text, parse_float=Decimal if exactly else None, parse_constant=lambda _: None)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def mended(text: str) -> str:
    """The text with its half characters put together, and what is left of them replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def mended_all(value: Any) -> Any:
    """A JSON value with all of its texts mended."""
    if isinstance(value, str):
        return mended(value)
    if isinstance(value, Mapping):
        return {mended(name): mended_all(part) for name, part in value.items()}
    if isinstance(value, list):
        return [mended_all(part) for part in value]
    return value


def dump(value: object) -> str:
    """A JSON value as text, whatever numbers it holds."""
    return json.dumps(_writable(mended_all(value)), ensure_ascii=False, separators=(",", ":"))


def _writable(value: Any) -> Any:
    if isinstance(value, (Decimal, float)):
        number = float(value)
        return number if math.isfinite(number) else None
    if isinstance(value, dict):
        return {name: _writable(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_writable(part) for part in value]
    return value


class Pieces:
    """A text that comes piece by piece. A character that is cut in two is told with its second half."""

    def __init__(self) -> None:
        self._told: list[str] = []
        self._half = ""
        self.size = 0

    def add(self, text: str) -> str:
        """What can be told of it now."""
        text = self._half + text
        self._half = ""
        if text and _HIGH[0] <= text[-1] <= _HIGH[1]:
            text, self._half = text[:-1], text[-1]
        return self._tell(mended(text))

    def end(self) -> str:
        """What is left: a half whose other half has not come."""
        rest, self._half = self._half, ""
        return self._tell(mended(rest))

    def _tell(self, text: str) -> str:
        if text:
            self._told.append(text)
            self.size += len(text.encode())
        return text

    @property
    def text(self) -> str:
        return "".join(self._told)


def text_of(content: object) -> str | None:
    """The text of a content that is one, or has parts; None for no content. Raises TypeError for what is neither."""
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, list):
        raise TypeError
    return "".join(_part(part) for part in content)


def _part(part: object) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping) or part.get("type") not in _TEXT_PARTS:
        return ""
    text = part.get("text")
    return text if isinstance(text, str) else ""

"""Server-sent events, as they are sent by those who have read the standard and by those who have not. Pure.

Beyond the standard (WHATWG HTML, "Server-sent events"): a last event without a line end counts if it is whole, bytes
that are no UTF-8 are replaced, a line of JSON without `data:` is an event, and a field `error` is one of that name, as
older versions of llama.cpp write it. What does not begin as a stream is kept as it is: it is some other answer.
"""

from __future__ import annotations

from collections.abc import Iterator

from app.providers.heartbeat import is_heartbeat
from app.providers.text import REPLACEMENT, parse

#: Name and data of an event.
Event = tuple[str | None, str]

_FIELDS = (b"data", b"event", b"error", b"id", b"retry")
_BOM = b"\xef\xbb\xbf"
_ENDS = (b"[DONE]",)


def is_stream(body: bytes) -> bool:
    """Whether this is the beginning of a stream of events."""
    begin = _begin(body)
    return begin.startswith(b":") or any(begin.startswith(name + b":") for name in _FIELDS)


def _begin(body: bytes) -> bytes:
    return body.removeprefix(_BOM).lstrip()


class Decoder:
    """Takes a body piece by piece, however the network cuts it. `is_known`: it is a stream, whatever it begins with."""

    def __init__(self, *, is_known: bool = False) -> None:
        self._rest = b""
        self._name: str | None = None
        self._data: list[str] = []
        #: Lines of a JSON value that stands in the stream without a field's name, until it is whole.
        self._bare: list[str] = []
        self._is_stream: bool | None = True if is_known else None
        #: Whether there may be lines from before it was known to be a stream.
        self._is_late = True
        #: The body ends within an event.
        self.is_cut = False
        #: Whether the provider itself has sent the mark that stands here for bytes that are no text.
        self.has_mark = False

    @property
    def body(self) -> bytes | None:
        """All of a body that is no stream; None for one that is."""
        return None if self._is_stream else self._rest

    def feed(self, piece: bytes) -> Iterator[Event]:
        self._rest += piece
        if self._is_stream is None:
            self._decide()
        if self._is_stream and (self._is_late or b"\n" in piece or b"\r" in piece):
            self._is_late = False
            yield from self._lines()

    def end(self) -> Iterator[Event]:
        """What the body still holds at its end. Of a last line that was cut nothing is known."""
        if not self._is_stream:
            return
        *lines, last = self._rest.split(b"\r")
        self._rest = b""
        for line in lines:
            yield from self._take(line)
        if self._bare or _is_whole(last):
            yield from self._take(last)
            last = b""
        self.is_cut = bool(last.strip() or self._bare)
        if not self._bare:
            yield from self._dispatch()

    def _decide(self) -> None:
        if _BOM.startswith(self._rest):
            return
        begin = _begin(self._rest)
        longest = max(map(len, _FIELDS)) + 1
        if begin and (len(begin) >= longest or b":" in begin or b"\n" in begin or not begin[:1].islower()):
            self._is_stream = is_stream(begin)

    def _lines(self) -> Iterator[Event]:
        """All lines that are complete. A CR at the very end may be half of a line end."""
        *lines, self._rest = self._rest.replace(b"\r\n", b"\n").split(b"\n")
        for line in lines:
            # A CR alone ends a line as well; inside JSON it is always escaped.
            for part in line.removesuffix(b"\r").split(b"\r"):
                yield from self._take(part)

    def _take(self, line: bytes) -> Iterator[Event]:
        text = self._decoded(line.removeprefix(_BOM))
        if self._bare and is_stream(line):
            # What has begun there does not end: whoever reads it says so.
            yield None, self._joined()
        if self._bare or text.lstrip()[:1] in ("{", "["):
            yield from self._take_bare(text)
        elif not text.strip():
            yield from self._dispatch()
        else:
            yield from self._take_field(text)

    def _take_field(self, text: str) -> Iterator[Event]:
        field, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "error":
            self._name = "error"
            self._data.append(value)
        elif field == "data":
            yield from self._lone(value)
            self._data.append(value)

    def _take_bare(self, text: str) -> Iterator[Event]:
        if not self._bare:
            yield from self._dispatch()
        self._bare.append(text)
        if text.strip().encode() in _ENDS:
            yield None, self._joined()
            return
        # A value over several lines ends with a bracket of its own.
        if (len(self._bare) == 1 or text.lstrip()[:1] in ("}", "]")) and _is_json("\n".join(self._bare)):
            yield None, self._joined()

    def _joined(self) -> str:
        lines, self._bare = self._bare, []
        return "\n".join(lines)

    def _lone(self, value: str) -> Iterator[Event]:
        """Not everybody puts an empty line between events: one that is whole by itself ends at the next data."""
        if self._data and value.lstrip()[:1] in ("{", "[") and _is_event("\n".join(self._data)):
            yield from self._dispatch()

    def _dispatch(self) -> Iterator[Event]:
        name, data = self._name, "\n".join(self._data)
        self._name, self._data = None, []
        if data.strip():
            yield name, data

    def _decoded(self, line: bytes) -> str:
        text = line.decode(errors="replace")
        if not text.isascii() or "\\u" in text:
            self.has_mark |= REPLACEMENT.encode() in line or b"\\ufffd" in line.lower()
        return text


def _is_whole(line: bytes) -> bool:
    """Whether a line without its end has all that belongs to it."""
    value = line.partition(b":")[2].strip() if is_stream(line) else line.strip()
    return value in _ENDS or _is_json(value.decode(errors="replace"))


def _is_event(data: str) -> bool:
    return is_heartbeat(data) or _is_json(data)


def _is_json(text: str) -> bool:
    try:
        parse(text.encode(errors="replace"))
    except ValueError:
        return False
    return text.strip()[:1] in ("{", "[")

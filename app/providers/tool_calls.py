"""Calls of tools as servers really write them, whole and piece by piece; what comes out is as OpenAI writes them.

Source: "The chat completion chunk object" of OpenAI's API reference says that a piece names its call by an `index`, and
that the first piece has its id and name. Others leave the index out or repeat it, number the pieces by something else,
send a new id or the name with every piece, or send each call whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from json import JSONDecodeError
from typing import Any

import orjson

from app.providers.text import Pieces, dump, mended
from app.providers.wire import Body, MalformedAnswerError

#: What a call without parameters has for arguments.
NO_ARGUMENTS = "{}"


def calls_of(message: Mapping[str, Any]) -> list[Body]:
    """The calls in a message that came whole; the older `function_call` is one. Raises MalformedAnswerError."""
    listed = message.get("tool_calls") or []
    if isinstance(listed, Mapping):
        listed = [listed]
    if not isinstance(listed, list):
        raise MalformedAnswerError("tool_calls is not a list")
    if not listed and message.get("function_call"):
        listed = [{"function": message["function_call"]}]
    return with_own_ids([_whole(call) for call in listed])


def _whole(call: object) -> Body:
    if not isinstance(call, dict):
        raise MalformedAnswerError("tool_calls[] is not an object")
    if call.get("type") == "custom" and isinstance(call.get("custom"), dict):
        return call
    name, arguments = _parts(call)
    if not name:
        raise MalformedAnswerError("tool_calls[] names no function")
    beside = {key: value for key, value in call.items() if key in ("id", "type", "extra_content")}
    function = {"name": mended(name), "arguments": mended(arguments) or NO_ARGUMENTS}
    return {**beside, "type": "function", "function": function}


def _parts(call: Mapping[str, Any]) -> tuple[str, str]:
    """Name and arguments of a call, or of a piece of one; they may stand beside `function`, or without it."""
    inner = call.get("function")
    if isinstance(inner, str):
        inner = {"name": inner}
    function = {**call, **inner} if isinstance(inner, Mapping) else call
    name = function.get("name")
    if name is not None and not isinstance(name, str):
        raise MalformedAnswerError("tool_calls[].function.name is not text")
    arguments = next(
        (function[key] for key in ("arguments", "input", "parameters") if function.get(key) is not None), ""
    )
    return (name or "").strip(), _as_text(arguments)


def _as_text(arguments: object) -> str:
    if isinstance(arguments, str):
        return arguments
    if not isinstance(arguments, Mapping):
        raise MalformedAnswerError("tool_calls[].function.arguments is not text")
    return dump(arguments)


def with_own_ids(calls: Sequence[Body]) -> list[Body]:
    """The calls, each with an id that no other one has: the results of tools are told apart by them."""
    given: set[str] = set()
    named = []
    for number, call in enumerate(calls):
        own = own_id(call.get("id"), number, given)
        given.add(own)
        named.append({"id": own, **{key: value for key, value in call.items() if key != "id"}})
    return named


def own_id(told: object, number: int, given: set[str]) -> str:
    own = told if isinstance(told, str) and told.strip() else f"call_{number}"
    while own in given:
        own = f"{own}_{number}"
    return own


def is_half(arguments: str) -> bool:
    """Whether arguments break off before their end. Others that are no JSON are what the model has written."""
    try:
        json.loads(arguments)
    except JSONDecodeError as error:
        return error.pos >= len(arguments.rstrip()) or error.msg.startswith("Unterminated string")
    except (RecursionError, ValueError):
        return False
    return False


def _is_whole(arguments: str) -> bool:
    try:
        orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return False
    return True


@dataclass(eq=False)
class _Call:
    """One call while it is written."""

    key: int | None
    id: str
    told_id: str = ""
    name: str = ""
    written: Pieces = field(default_factory=Pieces)

    @property
    def arguments(self) -> str:
        return self.written.text

    @property
    def is_whole(self) -> bool:
        return self.written.size > 0 and _is_whole(self.arguments)


class Calls:
    """The calls of one stream. They are numbered as they begin, whatever their pieces say."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def size(self) -> int:
        """Bytes of what has been written."""
        return sum(call.written.size for call in self._calls)

    def add(self, piece: Mapping[str, Any]) -> Body | None:
        """The piece as OpenAI would have sent it; None where it says nothing. Raises MalformedAnswerError."""
        name, arguments = _parts(piece)
        key, told_id = _key(piece.get("index")), piece.get("id")
        told_id = told_id.strip() if isinstance(told_id, str) else ""
        call = self._find(key, told_id, name, arguments)
        if call is None:
            if not (name or told_id or arguments):
                return None
            return self._begin(_Call(key, own_id(told_id, len(self), self._ids()), told_id), name, arguments)
        told: Body = {}
        if name and (more := _rest_of_name(call, name)):
            call.name += more
            told["name"] = more
        if arguments and not (call.is_whole and arguments == call.arguments):
            told["arguments"] = call.written.add(arguments)
        return {"index": self._calls.index(call), "function": told} if told else None

    def _begin(self, call: _Call, name: str, arguments: str) -> Body:
        call.name = name
        self._calls.append(call)
        function = {"name": name, "arguments": call.written.add(arguments)}
        return {"index": len(self) - 1, "id": call.id, "type": "function", "function": function}

    def _ids(self) -> set[str]:
        return {call.id for call in self._calls}

    def _find(self, key: int | None, told_id: str, name: str, arguments: str) -> _Call | None:
        """The call that a piece belongs to; None for the first piece of a new one."""
        if not self._calls:
            return None
        same_id = next((call for call in reversed(self._calls) if told_id and call.told_id == told_id), None)
        same_key = next((call for call in reversed(self._calls) if key is not None and call.key == key), None)
        if same_id is not None and (key is None or same_id.key == key):
            # The same id for two calls, each of them whole, and nothing else that tells them apart.
            is_next = key is None and name and same_id.is_whole and arguments not in ("", same_id.arguments)
            return None if is_next else same_id
        if key is None or (same_key is None and not (name or told_id)):
            # Without a number, or with one that nobody has heard of: what names nothing goes on with the last one.
            last = self._calls[-1]
            return None if self._is_new(last, key, told_id, name, arguments) else last
        if same_key is None:
            return None
        return None if self._is_new(same_key, key, told_id, name, arguments) else same_key

    @staticmethod
    def _is_new(last: _Call, key: int | None, told_id: str, name: str, arguments: str) -> bool:
        """Whether a piece at the place of a call begins another one."""
        if last.is_whole:
            repeats = arguments in ("", last.arguments) and name == last.name and told_id in ("", last.told_id)
            return bool(name) and not repeats
        if not name:
            # Some send a new id with every piece.
            return False
        if last.written.size:
            # Half a call goes on, unless what comes is the beginning of one.
            return bool(told_id) and told_id != last.told_id and arguments.lstrip()[:1] == "{"
        if told_id and last.told_id and told_id != last.told_id:
            return True
        # With nothing but its number, another name is the rest of the one before.
        return bool(last.name) and name != last.name and not (key is not None and not told_id)

    def whole(self) -> Iterator[Body]:
        """The calls, put together."""
        for call in self._calls:
            function = {"name": mended(call.name), "arguments": mended(_without_placeholder(call.arguments))}
            yield {"id": call.id, "type": "function", "function": function}


def _key(index: object) -> int | None:
    """What a piece is numbered by, if it is."""
    if isinstance(index, str) and index.strip().isascii() and index.strip().isdigit():
        index = int(index)
    return index if isinstance(index, int) and not isinstance(index, bool) else None


def _rest_of_name(call: _Call, name: str) -> str:
    """What of a name is new: all of it, nothing (it stands in every piece), or the rest of one that comes in pieces."""
    if not call.name:
        return name
    if name.startswith(call.name):
        return name[len(call.name) :]
    return "" if call.written.size else name


def _without_placeholder(arguments: str) -> str:
    """Some begin with the arguments of a call that has none, and then send those that it has."""
    rest = arguments.lstrip().removeprefix(NO_ARGUMENTS)
    return rest if rest.strip() and not _is_whole(arguments) and _is_whole(rest) else arguments

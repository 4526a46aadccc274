"""A conversation as messages of the chat completions: parts that were written for Claude, and what OpenAI refuses.

Source: "Create chat completion" of OpenAI's API reference. A tool's result holds text only; a speaker's name has no
blanks; the thoughts of another model have no place.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from app.providers.data_urls import typed
from app.providers.translation import IMAGE_MOVED, NAMES_CHANGED, THOUGHTS_DROPPED, Translation
from app.providers.wire import Body, UnsupportedRequestError
from schemas.request import Message

_NOT_OF_A_NAME = re.compile(r"[\s<|\\/>]+")
_LONGEST_NAME = 64
#: Characters of a call's id. Source: OpenAI's error for a longer one ("Expected a string with maximum length 40").
LONGEST_ID = 40
_THOUGHTS = ("thinking", "redacted_thinking")


def chat_turns(conversation: Iterable[Message], translation: Translation) -> list[Body]:
    """The messages. Raises UnsupportedRequestError."""
    messages: list[Body] = []
    #: Pictures of the results above, which belong behind the last of them.
    pictures: list[Body] = []
    for message in conversation:
        for turn in _turns(message, translation):
            if turn["role"] != "tool" and pictures:
                messages.append(_shown(pictures))
                pictures = []
            is_shown = turn["role"] == "tool" and isinstance(turn["content"], list)
            messages.append({**turn, "content": _texts(turn, pictures, translation)} if is_shown else turn)
    return [*messages, _shown(pictures)] if pictures else messages


def _turns(message: Message, translation: Translation) -> list[Body]:
    """A message; results of tools in Claude's form are messages of their own, before the rest."""
    parts = message.content if isinstance(message.content, list) else []
    results = [part for part in parts if part.get("type") == "tool_result"]
    if not results:
        return [_message(message, translation)]
    rest = [part for part in parts if part.get("type") != "tool_result"]
    turns = [_result(part) for part in results]
    return [*turns, _message(message.model_copy(update={"content": rest}), translation)] if rest else turns


def _result(part: Body) -> Body:
    content = part.get("content")
    inner = [_part(block) for block in content] if isinstance(content, list) else content
    return {"role": "tool", "tool_call_id": _id(part.get("tool_use_id")), "content": inner or ""}


def _message(message: Message, translation: Translation) -> Body:
    calls = list(message.tool_calls or ())
    if isinstance(message.content, list):
        calls += [_call(part) for part in message.content if part.get("type") == "tool_use"]
    body: Body = {"role": message.role, "content": _content(message, translation, calls=bool(calls))}
    if message.name is not None:
        body["name"] = _name(message.name, translation)
    if message.tool_call_id is not None:
        body["tool_call_id"] = _id(message.tool_call_id)
    if calls:
        body["tool_calls"] = [_named(call, translation) for call in calls]
    return body


def _name(name: str, translation: Translation) -> str:
    sent = _NOT_OF_A_NAME.sub("_", name)[:_LONGEST_NAME]
    if sent != name:
        translation.note(NAMES_CHANGED)
    return sent


def _named(call: Body, translation: Translation) -> Body:
    """A call of the conversation, with the name under which the provider knows its tool."""
    if (sent_id := _id(call.get("id"))) != call.get("id"):
        call = {**call, "id": sent_id}
    function = call.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or (sent := translation.tool_name(name)) == name:
        return call
    return {**call, "function": {**(function or {}), "name": sent}}


def _id(given: Any) -> Any:
    """The id of a call. Others write longer ones than OpenAI takes; the same one always becomes the same."""
    if not isinstance(given, str) or len(given) <= LONGEST_ID:
        return given
    return f"call_{hashlib.sha256(given.encode()).hexdigest()[:24]}"


def _call(part: Body) -> Body:
    """A call in Claude's form."""
    arguments = orjson.dumps(part.get("input") or {}).decode()
    return {"id": part.get("id"), "type": "function", "function": {"name": part.get("name"), "arguments": arguments}}


def _content(message: Message, translation: Translation, *, calls: bool) -> str | list[Body] | None:
    # An assistant that only calls tools says nothing; empty text is refused in its place.
    nothing = None if calls else ""
    if isinstance(message.content, str):
        return message.content or nothing
    if any(part.get("type") in _THOUGHTS for part in message.content):
        translation.note(THOUGHTS_DROPPED)
    told = [part for part in message.content if part.get("type") not in (*_THOUGHTS, "tool_use")]
    return [_part(part) for part in told] or nothing


def _texts(result: Body, pictures: list[Body], translation: Translation) -> str | list[Body]:
    """The texts of a tool's result; its pictures go behind the results."""
    kept = [part for part in result["content"] if part.get("type") != "image_url"]
    shown = [part for part in result["content"] if part.get("type") == "image_url"]
    if shown:
        translation.note(IMAGE_MOVED)
        pictures += [{"type": "text", "text": f"The result of the tool call {result['tool_call_id']} shows:"}, *shown]
    return kept or ("See the picture below." if shown else "")


def _shown(pictures: list[Body]) -> Body:
    return {"role": "user", "content": pictures}


def _part(part: Body) -> Body:
    """A content part in the form of the chat completions."""
    match part.get("type"):
        case "input_text" | "output_text":
            return {"type": "text", "text": part.get("text") or ""}
        case "input_image" if isinstance(part.get("image_url"), str):
            return {"type": "image_url", "image_url": {"url": part["image_url"]}}
        case "input_file":
            return {"type": "file", "file": {name: value for name, value in part.items() if name != "type"}}
        case "image":
            return {"type": "image_url", "image_url": {"url": _url_of(part.get("source"))}}
        case "document":
            return _document(part)
        case _:
            return part


def _url_of(source: Any) -> str:
    """Where a picture of Claude's form is, or itself in a data URL."""
    if isinstance(source, Mapping):
        if isinstance(url := source.get("url"), str):
            return url
        if isinstance(data := source.get("data"), str):
            media_type, plain = typed(str(source.get("media_type") or ""), data)
            return f"data:{media_type};base64,{plain}"
    raise UnsupportedRequestError("a picture that was uploaded to another provider is not known to this one")


def _document(part: Body) -> Body:
    """A document of Claude's form: a text as it is, a PDF as a file."""
    source = part.get("source")
    if isinstance(source, Mapping) and isinstance(data := source.get("data"), str):
        if source.get("type") == "text":
            return {"type": "text", "text": data}
        media_type, plain = typed(str(source.get("media_type") or ""), data)
        name = part.get("title") or "document.pdf"
        return {"type": "file", "file": {"filename": name, "file_data": f"data:{media_type};base64,{plain}"}}
    if isinstance(source, Mapping) and source.get("type") == "content":
        texts = [block.get("text") for block in source.get("content") or () if isinstance(block, Mapping)]
        return {"type": "text", "text": "\n".join(text for text in texts if isinstance(text, str))}
    raise UnsupportedRequestError("a document by its URL, or one that was uploaded, can be read by Claude alone")

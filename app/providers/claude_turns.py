"""A conversation as Claude's turns and its system prompt. Source: "Messages" of Anthropic's API reference.

A tool's result is a part of a user's turn. Texts without a word are refused, and so are ids of calls with characters
other than letters, digits, `_` and `-`; newer models continue no turn of the assistant.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from app.providers.data_urls import enclosed, typed
from app.providers.translation import (
    EMPTY_TEXT,
    PREFILL_REWORDED,
    PREFILL_TRIMMED,
    SYSTEM_PART_DROPPED,
    FittingNames,
    Translation,
)
from app.providers.wire import Body, UnsupportedRequestError, plain_text
from schemas.request import CompletionRequest, Message

#: Asks for what continuing the assistant's turn would bring.
_GO_ON = "Go on exactly where your last message ends. Repeat nothing of it, and do not comment on it."
_PICTURES = ("image/jpeg", "image/png", "image/gif", "image/webp")


def system_of(request: CompletionRequest, rules: Iterable[str], translation: Translation) -> str | list[Body]:
    """The system prompt: one text, or blocks where a part says how it is to be cached."""
    blocks = [{"type": "text", "text": request.system}] if request.system else []
    for message in request.conversation():
        if message.role == "system":
            blocks += _system_blocks(message, translation)
    blocks += [{"type": "text", "text": rule} for rule in rules]
    told = [block for block in blocks if block["text"].strip()]
    if len(told) < len(blocks):
        translation.note(EMPTY_TEXT)
    if any("cache_control" in block for block in told):
        return told
    return "\n\n".join(block["text"] for block in told)


def _system_blocks(message: Message, translation: Translation) -> list[Body]:
    """The parts of one system message; they are one text, unless one of them is a mark for the cache."""
    if isinstance(message.content, str):
        return [{"type": "text", "text": message.content}]
    texts = [part for part in message.content if isinstance(part.get("text"), str)]
    if len(texts) < len(message.content):
        translation.note(SYSTEM_PART_DROPPED)
    if not any("cache_control" in part for part in texts):
        return [{"type": "text", "text": plain_text(message)}] if texts else []
    return [{"type": "text", "text": part["text"], **_cached(part)} for part in texts]


def turns_of(request: CompletionRequest, translation: Translation, *, continues: bool) -> list[Body]:
    """The turns; results of several tools belong into one turn, right after the one that called them.

    `continues`: the model goes on with a last turn of the assistant. Raises UnsupportedRequestError.
    """
    turns: list[Body] = []
    ids = FittingNames()
    ids.know(name for message in request.conversation() for name in _ids_in(message))
    for message in request.conversation():
        if message.role == "system":
            continue
        content = _content(message, ids, translation)
        if not content:
            translation.note(EMPTY_TEXT)
        elif message.role == "tool" and turns and turns[-1]["role"] == "user" and _holds_results(turns[-1]):
            turns[-1]["content"] += content
        else:
            turns.append({"role": "user" if message.role == "tool" else message.role, "content": content})
    if not turns:
        raise UnsupportedRequestError("messages holds nothing but system messages and texts without a word")
    return _ended(turns, translation, continues=continues)


def _holds_results(turn: Body) -> bool:
    content = turn["content"]
    return isinstance(content, list) and content[0].get("type") == "tool_result"


def _ended(turns: list[Body], translation: Translation, *, continues: bool) -> list[Body]:
    """The turns with an end that the model takes."""
    last = turns[-1]
    if last["role"] != "assistant" or _calls(last["content"]):
        return turns
    if not continues:
        translation.note(PREFILL_REWORDED)
        return [*turns, {"role": "user", "content": _GO_ON}]
    trimmed = _trimmed(last["content"])
    if trimmed != last["content"]:
        translation.note(PREFILL_TRIMMED)
    return [*turns[:-1], {**last, "content": trimmed}]


def _calls(content: str | list[Body]) -> bool:
    return isinstance(content, list) and any(block.get("type") == "tool_use" for block in content)


def _trimmed(content: str | list[Body]) -> str | list[Body]:
    if isinstance(content, str):
        return content.rstrip()
    last = content[-1]
    return [*content[:-1], {**last, "text": last["text"].rstrip()}] if last.get("type") == "text" else content


def _ids_in(message: Message) -> Iterator[str]:
    for call in message.tool_calls or ():
        if isinstance(name := call.get("id"), str) and name:
            yield name
    if message.tool_call_id:
        yield message.tool_call_id


def _id(name: object, ids: FittingNames) -> str:
    if not isinstance(name, str) or not name:
        raise UnsupportedRequestError("a tool's call or its result has no id")
    return ids.sent(name)


def _content(message: Message, ids: FittingNames, translation: Translation) -> str | list[Body]:
    if message.role == "tool":
        result: Body = {"type": "tool_result", "tool_use_id": _id(message.tool_call_id, ids)}
        inner = _said(message, translation)
        return [{**result, "content": inner} if inner else result]
    if message.tool_calls:
        said = _said(message, translation)
        blocks = [{"type": "text", "text": said}] if isinstance(said, str) and said else list(said or ())
        return [*blocks, *(_tool_use(call, ids, translation) for call in message.tool_calls)]
    return _said(message, translation)


def _said(message: Message, translation: Translation) -> str | list[Body]:
    """The content without texts that hold no word."""
    if isinstance(message.content, str):
        return message.content if message.content.strip() else ""
    blocks = [_block(part) for part in message.content]
    kept = [block for block in blocks if block.get("type") != "text" or str(block.get("text") or "").strip()]
    if len(kept) < len(blocks):
        translation.note(EMPTY_TEXT)
    return kept


def _cached(part: Body) -> Body:
    return {"cache_control": part["cache_control"]} if part.get("cache_control") else {}


def _block(part: Body) -> Body:
    """A part in OpenAI's form as Claude takes it; what is in Claude's form already stays as it is."""
    match part.get("type"):
        case "text" | "input_text" | "output_text":
            return {**part, "type": "text"}
        case "refusal":
            return {"type": "text", "text": part.get("refusal") or ""}
        case "image_url" | "input_image":
            return {**_image(_url_in(part)), **_cached(part)}
        case "image":
            return {**part, "source": _source(part.get("source"))}
        case "file" | "input_file":
            return {**_document(part.get("file") if isinstance(part.get("file"), dict) else part), **_cached(part)}
        case "input_audio" | "audio" | "video_url" | "input_video":
            raise UnsupportedRequestError("Claude takes neither sound nor film")
        case _:
            return part


def _url_in(part: Body) -> str:
    inner = part.get("image_url")
    url = inner.get("url") if isinstance(inner, dict) else inner
    if not isinstance(url, str) or not url:
        raise UnsupportedRequestError("an image_url part has no URL")
    return url


def _image(url: str) -> Body:
    """An image by URL, or inside a data URL, as Claude takes it."""
    found = enclosed(url)
    if found is None:
        return {"type": "image", "source": {"type": "url", "url": url}}
    return {"type": "image", "source": _source({"type": "base64", "media_type": found[0], "data": found[1]})}


def _source(source: Any) -> Any:
    """A picture's source with the type that it really has. Raises UnsupportedRequestError for one not taken."""
    if not isinstance(source, dict) or not isinstance(source.get("data"), str):
        return source
    media_type, data = typed(str(source.get("media_type") or ""), source["data"])
    if media_type not in _PICTURES:
        raise UnsupportedRequestError("Claude takes pictures as JPEG, PNG, GIF or WebP")
    return {**source, "media_type": media_type, "data": data}


def _document(file: Any) -> Body:
    """A file of OpenAI's form: a PDF or a text."""
    data = file.get("file_data") if isinstance(file, dict) else None
    if not isinstance(data, str) or not data:
        raise UnsupportedRequestError("a file that was uploaded to another provider is not known to Claude")
    media_type, content = enclosed(data) or typed("application/pdf", data)
    told = {"title": file["filename"]} if file.get("filename") else {}
    if media_type.startswith("image/"):
        return {"type": "image", "source": _source({"type": "base64", "media_type": media_type, "data": content})}
    if media_type == "text/plain":
        source = {"type": "text", "media_type": media_type, "data": _text_in(content)}
    elif media_type == "application/pdf":
        source = {"type": "base64", "media_type": media_type, "data": content}
    else:
        raise UnsupportedRequestError("Claude takes files as PDF or plain text")
    return {"type": "document", "source": source, **told}


def _text_in(data: str) -> str:
    try:
        return base64.b64decode(data).decode()
    except (binascii.Error, ValueError):
        raise UnsupportedRequestError("a file of plain text is not UTF-8 in base64") from None


def _tool_use(call: Body, ids: FittingNames, translation: Translation) -> Body:
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise UnsupportedRequestError("a tool call names no function")
    try:
        arguments = orjson.loads(function.get("arguments") or "{}")
    except orjson.JSONDecodeError:
        raise UnsupportedRequestError("a tool call's arguments are not JSON") from None
    name = translation.tool_name(function["name"])
    return {"type": "tool_use", "id": _id(call.get("id"), ids), "name": name, "input": arguments}

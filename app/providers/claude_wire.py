"""Anthropic's Messages format: a request into its body, its answer into ours.

The differences to the format requests are written in: the system prompt stands apart, a tool's result is a part of a
user's turn, tools have an `input_schema`, and the prompt's cached tokens are counted beside its others.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from app.providers.chat_answer import NO_CALLS, check_arguments, raise_failed
from app.providers.finish import reason_of, word_of
from app.providers.reported import ReportedError, told_beside
from app.providers.text import dump
from app.providers.tool_calls import NO_ARGUMENTS, with_own_ids
from app.providers.usage_wire import cost_in, count_in, counted, usage_in
from app.providers.wire import (
    JSON_OBJECT_RULE,
    Body,
    MalformedAnswerError,
    UnsupportedRequestError,
    as_list,
    as_object,
    as_text,
    read_object,
    system_text,
    with_options,
)
from schemas.request import DEFAULT_TEMPERATURE, CompletionRequest, Message
from schemas.usage import Tokens, tier_of
from streams.dispatch.ports import Answer

_VERSION = re.compile(r"[-.](\d)(?:[-.](\d{1,2}))?(?=[-.@:]|$)")
_DATA_URL = re.compile(r"data:([\w.+/-]+);base64,(.*)", re.DOTALL)


#: What the API takes of sampling in its version of 2023 only: the one of October 2026, which the SDK asks for, refuses
#: each of them for every model. Source: "Migrating to API version 2026-10-21" of Anthropic's documentation.
_SAMPLING = frozenset({"temperature", "top_p", "top_k"})
VERSION_HEADER, WITH_SAMPLING = "anthropic-version", "2023-06-01"


def version_headers(body: Body) -> dict[str, str]:
    """The version of the API that takes this body, where it is not the SDK's own."""
    return {VERSION_HEADER: WITH_SAMPLING} if _SAMPLING & body.keys() else {}


def takes_temperature(model: str) -> bool:
    """Claude up to 4.6 takes a temperature; later models refuse the field, so it is left out for unknown names."""
    found = _VERSION.search(model)
    return found is not None and (int(found[1]), int(found[2] or 0)) < (4, 7)


def to_body(request: CompletionRequest, model: str) -> Body:
    """The request in Anthropic's words. A temperature above 1, which is Claude's most, is sent as 1."""
    body: Body = {"model": model, "max_tokens": request.max_tokens, "messages": _messages(request)}
    system = system_text(request)
    options = request.provider_options.get("claude") or {}
    # A temperature that nobody asked for gives way to a `top_p`: newer models take one of the two.
    is_ours = request.temperature == DEFAULT_TEMPERATURE
    if takes_temperature(model) and "thinking" not in options and not ("top_p" in options and is_ours):
        body["temperature"] = min(request.temperature, 1.0)
    if request.stop:
        body["stop_sequences"] = list(request.stop)
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    wanted = (request.response_format or {}).get("type")
    if wanted == "json_schema":
        body["output_config"] = {"format": _schema(request.response_format or {})}
    elif wanted == "json_object":
        # Claude takes a schema or nothing; any object is asked for in words.
        system = f"{system}\n\n{JSON_OBJECT_RULE}" if system else JSON_OBJECT_RULE
    if system:
        body["system"] = system
    return with_options(body, request, "claude")


def _schema(wanted: Body) -> Body:
    inner = wanted.get("json_schema")
    schema = inner.get("schema") if isinstance(inner, dict) else wanted.get("schema")
    if not isinstance(schema, dict):
        raise UnsupportedRequestError("response_format.json_schema.schema is missing")
    return {"type": "json_schema", "schema": schema}


def _messages(request: CompletionRequest) -> list[Body]:
    """The turns; results of several tools belong into one turn, right after the one that called them."""
    turns: list[Body] = []
    for message in request.conversation():
        if message.role == "system":
            continue
        turn = _turn(message)
        if message.role == "tool" and turns and turns[-1].get("role") == "user" and _holds_results(turns[-1]):
            turns[-1]["content"] += turn["content"]
        else:
            turns.append(turn)
    if not turns:
        raise UnsupportedRequestError("messages holds only system messages")
    return turns


def _holds_results(turn: Body) -> bool:
    content = turn["content"]
    return isinstance(content, list) and bool(content) and content[0].get("type") == "tool_result"


def _turn(message: Message) -> Body:
    if message.role == "tool":
        result = {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": _content(message)}
        return {"role": "user", "content": [result]}
    if message.tool_calls:
        return {"role": "assistant", "content": [*_blocks(message), *map(_tool_use, message.tool_calls)]}
    return {"role": message.role, "content": _content(message)}


def _content(message: Message) -> str | list[Body]:
    return message.content if isinstance(message.content, str) else _blocks(message)


def _blocks(message: Message) -> list[Body]:
    if isinstance(message.content, str):
        return [{"type": "text", "text": message.content}] if message.content else []
    return [_image(part) if part.get("type") == "image_url" else part for part in message.content]


def _image(part: Body) -> Body:
    """An image by URL, or inside a data URL, as Claude takes it."""
    inner = part.get("image_url")
    url = inner.get("url") if isinstance(inner, dict) else inner
    if not isinstance(url, str):
        raise UnsupportedRequestError("an image_url part has no URL")
    data = _DATA_URL.match(url)
    if data is None:
        return {"type": "image", "source": {"type": "url", "url": url}}
    return {"type": "image", "source": {"type": "base64", "media_type": data[1], "data": data[2]}}


def _tool_use(call: Body) -> Body:
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise UnsupportedRequestError("a tool call names no function")
    try:
        arguments = orjson.loads(function.get("arguments") or "{}")
    except orjson.JSONDecodeError:
        raise UnsupportedRequestError("a tool call's arguments are not JSON") from None
    return {"type": "tool_use", "id": call.get("id"), "name": function["name"], "input": arguments}


def _tool(tool: Body) -> Body:
    """A function as a tool of Claude's; what is in Claude's form already stays as it is."""
    function = tool.get("function")
    if not isinstance(function, dict):
        return tool
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    body = {"name": function.get("name"), "input_schema": parameters}
    if function.get("description"):
        body["description"] = function["description"]
    return body


def to_answer(raw: bytes) -> Answer:
    """The answer; raises MalformedAnswerError."""
    return answer_of(read_object(raw))


def answer_of(answer: Body) -> Answer:
    """The answer out of its parsed object; raises MalformedAnswerError."""
    usage = usage_in(answer) or {}
    used = counted(tokens_of_usage(usage))
    if (error := told_beside(answer)) is not None:
        raise ReportedError(error, used)
    try:
        return _answer_of(answer, usage)
    except MalformedAnswerError as error:
        raise MalformedAnswerError(str(error), used) from None


def _answer_of(answer: Body, usage: Body) -> Answer:
    word = word_of(answer.get("stop_reason"))
    raise_failed(word, counted(tokens_of_usage(usage)), written=len(dump(answer.get("content") or "")))
    if word is None:
        raise MalformedAnswerError("stop_reason is missing")
    finish = reason_of(word)
    blocks = [as_object(block, "content[]") for block in _blocks_in(answer.get("content"))]
    texts = [as_text(block.get("text"), "content[].text") for block in blocks if block.get("type") == "text"]
    calls = tuple(with_own_ids([_call(block) for block in blocks if block.get("type") == "tool_use"]))
    if finish == "tool_calls" and not calls and not texts:
        raise MalformedAnswerError("content has none of the tool calls that it ends with")
    check_arguments(calls, finish)
    model = answer.get("model")
    return Answer(
        content="".join(texts) if texts else None,
        model=model if isinstance(model, str) else "",
        finish_reason="stop" if finish == "tool_calls" and not calls else finish,
        finish_reason_raw=word,
        warnings=(NO_CALLS,) if finish == "tool_calls" and not calls else (),
        tokens=tokens_of_usage(usage),
        reported_cost=cost_in(usage),
        tool_calls=calls,
        has_thought=any("thinking" in str(block.get("type")) for block in blocks),
    )


def _blocks_in(content: object) -> list[Any]:
    """The blocks; a bare text is one."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else as_list(content, "content")


def _call(block: Body) -> dict[str, Any]:
    """As OpenAI writes it. A call in a stream that was cut has its input as the text that has come of it."""
    given = block.get("input")
    if isinstance(given, dict):
        arguments = dump(given)
    elif given is None or isinstance(given, str):
        arguments = given or NO_ARGUMENTS
    else:
        raise MalformedAnswerError("content[].input is not an object")
    function = {"name": as_text(block.get("name"), "content[].name"), "arguments": arguments}
    return {"id": block.get("id"), "type": "function", "function": function}


def tokens_of_usage(usage: Body) -> Tokens:
    """Anthropic's `input_tokens` leaves out what was read from, or written to, its cache; ours holds all three."""
    read = count_in(usage, "cache_read_input_tokens")
    kept = count_in(usage.get("cache_creation"), "ephemeral_1h_input_tokens")
    shortly = count_in(usage.get("cache_creation"), "ephemeral_5m_input_tokens")
    written = max(count_in(usage, "cache_creation_input_tokens"), kept + shortly)
    return Tokens(
        prompt_tokens=count_in(usage, "input_tokens") + read + written,
        completion_tokens=count_in(usage, "output_tokens"),
        cached_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=kept,
        reasoning_tokens=count_in(usage.get("output_tokens_details"), "thinking_tokens"),
        search_requests=count_in(usage.get("server_tool_use"), "web_search_requests"),
        # Inference in one country costs more than anywhere.
        service_tier=tier_of(usage.get("service_tier"), usage.get("speed"), usage.get("inference_geo")),
    )

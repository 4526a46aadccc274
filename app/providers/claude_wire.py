"""Anthropic's Messages format: a request into its body, its answer into ours.

The differences to the format requests are written in: the system prompt stands apart, a tool's result is a part of a
user's turn, tools have an `input_schema`, and the prompt's cached tokens are counted beside its others.
"""

from __future__ import annotations

import re
from typing import Any

from app.providers.chat_answer import NO_CALLS, check_arguments, raise_failed
from app.providers.chat_wire import chosen_in, function_of, names_of
from app.providers.claude_schema import answer_schema, tool_schema
from app.providers.claude_turns import system_of, turns_of
from app.providers.finish import reason_of, word_of
from app.providers.reported import ReportedError, told_beside
from app.providers.text import dump
from app.providers.tool_calls import NO_ARGUMENTS, with_own_ids
from app.providers.translation import JSON_IN_WORDS, Translation, left_out
from app.providers.usage_wire import cost_in, count_in, counted, usage_in
from app.providers.wire import (
    JSON_OBJECT_RULE,
    Body,
    MalformedAnswerError,
    UnsupportedRequestError,
    as_list,
    as_object,
    as_text,
    asks_for_temperature,
    read_object,
    with_options,
)
from schemas.request import CompletionRequest
from schemas.usage import Tokens, tier_of
from streams.dispatch.ports import Answer

_VERSION = re.compile(r"[-.](\d)(?:[-.](\d{1,2}))?(?=[-.@:]|$)")
#: OpenAI's words for which tools are to be called, and those of others.
_CHOICES = {"required": "any"}


#: What the API takes of sampling in its version of 2023 only: the one of October 2026, which the SDK asks for, refuses
#: each of them for every model. Source: "Migrating to API version 2026-10-21" of Anthropic's documentation.
_SAMPLING = frozenset({"temperature", "top_p", "top_k"})
VERSION_HEADER, WITH_SAMPLING = "anthropic-version", "2023-06-01"


def version_headers(body: Body) -> dict[str, str]:
    """The version of the API that takes this body, where it is not the SDK's own."""
    return {VERSION_HEADER: WITH_SAMPLING} if _SAMPLING & body.keys() else {}


def version_of(model: str) -> tuple[int, int] | None:
    """The version in a model's name; None where there is none."""
    found = _VERSION.search(model)
    return (int(found[1]), int(found[2] or 0)) if found is not None else None


def takes_temperature(model: str) -> bool:
    """Claude up to 4.6 takes a temperature; later models refuse the field, so it is left out for unknown names."""
    version = version_of(model)
    return version is not None and version < (4, 7)


def continues_turns(model: str) -> bool:
    """Claude before 4.6 goes on with a last turn of the assistant; later models refuse it. Source: "Prefill Claude's
    response" of Anthropic's documentation.
    """
    version = version_of(model)
    return version is not None and version < (4, 6)


def to_body(request: CompletionRequest, model: str, translation: Translation | None = None) -> Body:
    """The request in Anthropic's words. A temperature above 1, which is Claude's most, is sent as 1.

    Raises UnsupportedRequestError.
    """
    translation = translation or Translation()
    options = request.provider_options.get("claude") or {}
    translation.know(names_of(request))
    thinks = "thinking" in options
    body: Body = {"model": model, "max_tokens": request.max_tokens}
    body["messages"] = turns_of(request, translation, continues=continues_turns(model) and not thinks)
    if takes_temperature(model) and not thinks:
        body["temperature"] = min(request.temperature, 1.0)
    if request.stop:
        body["stop_sequences"] = _stops(request, translation)
    if request.tools:
        body["tools"] = [_tool(tool, translation) for tool in request.tools]
    rules = _set_format(body, request.response_format or {}, translation)
    if system := system_of(request, rules, translation):
        body["system"] = system
    body = with_options(body, request, "claude")
    # Without tools a choice among them is refused.
    if (asked := body.pop("tool_choice", None)) is not None and body.get("tools"):
        body["tool_choice"] = _choice(asked, translation)
    return _sampled(body, request, model, translation)


def _stops(request: CompletionRequest, translation: Translation) -> list[str]:
    """Claude refuses a sequence that is blank."""
    stops = [stop for stop in request.stop if stop.strip()]
    if len(stops) < len(request.stop):
        translation.note(left_out("stop_dropped", ["stop sequences that are blank"]))
    return stops


def _sampled(body: Body, request: CompletionRequest, model: str, translation: Translation) -> Body:
    """Without those settings of sampling that the model refuses, also where the application passes them through."""
    options = request.provider_options.get("claude") or {}
    asked = {name for name in _SAMPLING if options.get(name) is not None}
    if asks_for_temperature(request) and "temperature" not in options:
        asked.add("temperature")
    version = version_of(model)
    refused: set[str] = set()
    if version is not None and not takes_temperature(model):
        refused = set(_SAMPLING)
    elif version is not None and version >= (4, 1) and {"temperature", "top_p"} <= body.keys():
        # One of the two. A temperature that nobody asked for gives way without a word.
        refused = {"temperature"}
    body = {name: value for name, value in body.items() if name not in refused}
    if lost := sorted(asked - body.keys()):
        translation.note(left_out("sampling_dropped", lost))
    return body


def _set_format(body: Body, wanted: Body, translation: Translation) -> list[str]:
    """Ask for the format; returns what the system prompt has to say of it."""
    if wanted.get("type") == "json_schema":
        schema = _schema(wanted)
        if not _is_any_object(schema):
            body["output_config"] = {"format": {"type": "json_schema", "schema": answer_schema(schema, translation)}}
            return []
    elif wanted.get("type") != "json_object":
        return []
    # Claude takes a schema with named keys or nothing; any object is asked for in words.
    translation.note(JSON_IN_WORDS)
    return [JSON_OBJECT_RULE]


def _schema(wanted: Body) -> Body:
    inner = wanted.get("json_schema")
    schema = inner.get("schema") if isinstance(inner, dict) else wanted.get("schema")
    if not isinstance(schema, dict):
        raise UnsupportedRequestError("response_format.json_schema.schema is missing")
    return schema


def _is_any_object(schema: Body) -> bool:
    return schema.get("type") == "object" and not schema.keys() - {"type", "title", "additionalProperties", "$schema"}


def _tool(tool: Body, translation: Translation) -> Body:
    """A function as a tool of Claude's; one in Claude's form stays as it is, but for its name and parameters."""
    function = function_of(tool)
    if function is None:
        return {**tool, **_named(tool, tool["input_schema"], translation)} if "input_schema" in tool else tool
    body = _named(function, function.get("parameters"), translation)
    if function.get("description"):
        body["description"] = function["description"]
    if cached := tool.get("cache_control") or function.get("cache_control"):
        body["cache_control"] = cached
    return body


def _named(tool: Body, parameters: object, translation: Translation) -> Body:
    if not isinstance(tool.get("name"), str):
        raise UnsupportedRequestError("a tool has no name")
    return {"name": translation.tool_name(tool["name"]), "input_schema": tool_schema(parameters, translation)}


def _choice(asked: Any, translation: Translation) -> Any:
    """The choice of tools in Claude's words, out of OpenAI's or its own."""
    if isinstance(asked, str):
        return {"type": _CHOICES.get(asked, asked)}
    if not isinstance(asked, dict):
        return asked
    if (name := chosen_in(asked)) is not None:
        rest = {key: value for key, value in asked.items() if key != "function"}
        return {**rest, "type": "tool", "name": translation.tool_name(name)}
    return {**asked, "type": _CHOICES.get(str(asked.get("type")), asked.get("type"))}


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

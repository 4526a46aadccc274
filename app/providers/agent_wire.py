"""Perplexity's Agent API, which is shaped like OpenAI's Responses: the wire of AI_PERPLEXITY_INTERFACE=agent.

Source: "Agent API" of Perplexity's documentation and its published API schema. Models are named `provider/model`; a
model without a provider is Perplexity's own. It has no temperature and no stop sequences: both are left out. The web is
searched as with Sonar, by the tool `web_search`. Cached tokens are part of `input_tokens`, and `usage.cost` states the
cost of the call with its tools.
"""

from __future__ import annotations

from typing import Any

from app.providers.chat_wire import chat_tools, names_of
from app.providers.finish import reason_of, word_of
from app.providers.reported import ReportedError, told_beside
from app.providers.search_results import read_results
from app.providers.tool_calls import calls_of, with_own_ids
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
    plain_text,
    read_exact_object,
    with_options,
)
from schemas.request import CompletionRequest, Message
from schemas.response import SearchResult
from schemas.usage import Tokens
from streams.dispatch.ports import Answer

PATH = "/v1/agent"
WEB_SEARCH = "web_search"
VENDOR = "perplexity/"


def to_body(request: CompletionRequest, model: str, translation: Translation | None = None) -> Body:
    """The request in the words of this interface. Raises UnsupportedRequestError."""
    translation = translation or Translation()
    translation.know(names_of(request))
    body: Body = {
        "model": model if "/" in model else VENDOR + model,
        "input": [item for message in request.conversation() for item in _items(message, translation)],
        "max_output_tokens": request.max_tokens,
        "tools": [{"type": WEB_SEARCH}, *map(_tool, chat_tools(request, translation))],
    }
    rules = [request.system] if request.system else []
    form = request.response_format or {}
    if form.get("type") == "json_object":
        translation.note(JSON_IN_WORDS)
        rules.append(JSON_OBJECT_RULE)
    elif form and form.get("type") != "text":
        body["response_format"] = form
    lost = ["temperature"] if asks_for_temperature(request) else []
    if lost := [*lost, *(["stop"] if request.stop else [])]:
        translation.note(left_out("sampling_dropped", lost))
    if rules:
        body["instructions"] = "\n\n".join(rules)
    return with_options(body, request, "perplexity")


def _tool(tool: Body) -> Body:
    """A function as the chat completions have it, without the layer around it."""
    function = tool.get("function")
    return {"type": "function", **function} if isinstance(function, dict) else tool


def _items(message: Message, translation: Translation) -> list[Body]:
    """A message, and the calls that it makes or answers, each as an item of its own."""
    if message.role == "tool":
        return [{"type": "function_call_output", "call_id": message.tool_call_id or "", "output": plain_text(message)}]
    items: list[Body] = []
    if message.content or not message.tool_calls:
        items.append({"type": "message", "role": message.role, "content": _content(message)})
    for call in message.tool_calls or ():
        function = call.get("function") or {}
        told = {"name": translation.tool_name(function.get("name") or ""), "arguments": function.get("arguments", "{}")}
        items.append({"type": "function_call", "call_id": call.get("id", ""), **told})
    return items


def _content(message: Message) -> str | list[Body]:
    if isinstance(message.content, str):
        return message.content
    return [_part(part) for part in message.content]


def _part(part: Body) -> Body:
    """Text or a picture, in the form of the chat completions or of Claude."""
    source, linked = part.get("source"), part.get("image_url")
    if isinstance(linked, dict):
        return {"type": "input_image", "image_url": linked.get("url")}
    if part.get("type") == "image" and isinstance(source, dict):
        url = source.get("url") or f"data:{source.get('media_type')};base64,{source.get('data')}"
        return {"type": "input_image", "image_url": url}
    if part.get("type") not in ("text", "input_text", "output_text"):
        raise UnsupportedRequestError("Perplexity's agent takes texts and pictures only")
    return {"type": "input_text", "text": part.get("text") or ""}


def to_answer(raw: bytes) -> Answer:
    """The answer with its sources and what it cost; raises MalformedAnswerError."""
    return answer_of(read_exact_object(raw))


def answer_of(answer: Body) -> Answer:
    """The answer out of its parsed object; raises MalformedAnswerError."""
    usage = usage_in(answer) or {}
    tokens = _tokens(usage)
    used = counted(tokens)
    if (error := told_beside(answer)) is not None:
        raise ReportedError(error, used)
    output = [as_object(item, "output[]") for item in as_list(answer.get("output"), "output")]
    calls = tuple(with_own_ids([call_of(item) for item in output if item.get("type") == "function_call"]))
    text = "".join(_texts(output))
    is_cut = answer.get("status") == "incomplete"
    if answer.get("status") not in ("completed", "requires_action", "incomplete") or not (text or calls):
        raise MalformedAnswerError("it is not complete", used)
    results = tuple(result for item in output for result in _found(item))
    model = answer.get("model")
    return Answer(
        content=text or None,
        model=model if isinstance(model, str) else "",
        finish_reason=_cut_by(answer) if is_cut else "tool_calls" if calls else "stop",
        finish_reason_raw=str(answer.get("status")),
        tokens=tokens,
        tool_calls=calls,
        citations=tuple(dict.fromkeys((*_cited(output), *(result.url for result in results)))),
        search_results=results,
        reported_cost=cost_in(usage),
    )


def _cut_by(answer: Body) -> str:
    """Why an answer is not complete: at its length, unless it says otherwise."""
    details = answer.get("incomplete_details")
    word = word_of(details.get("reason")) if isinstance(details, dict) else None
    return "content_filter" if word is not None and reason_of(word) == "content_filter" else "length"


def _texts(output: list[Body]) -> list[str]:
    return [as_text(part.get("text"), "output[].content[].text") for part in _parts(output)]


def _parts(output: list[Body]) -> list[Body]:
    messages = (item for item in output if item.get("type") == "message")
    parts = (as_object(part, "content[]") for item in messages for part in as_list(item.get("content"), "content"))
    return [part for part in parts if part.get("type") == "output_text"]


def _cited(output: list[Body]) -> list[str]:
    """The addresses that the text itself names as its sources."""
    notes: list[Any] = [note for part in _parts(output) for note in part.get("annotations") or ()]
    return [note["url"] for note in notes if isinstance(note, dict) and isinstance(note.get("url"), str)]


def _found(item: Body) -> tuple[SearchResult, ...]:
    return read_results(item.get("results")) if item.get("type") == "search_results" else ()


def call_of(item: Body) -> Body:
    """A call of a tool, as the chat completions have it."""
    [call] = calls_of({"tool_calls": [{**item, "id": item.get("call_id") or item.get("id"), "type": "function"}]})
    return call


def _tokens(usage: Body) -> Tokens:
    details, tools = usage.get("input_tokens_details"), usage.get("tool_calls_details")
    searches = tools.get(WEB_SEARCH) if isinstance(tools, dict) else None
    return Tokens(
        prompt_tokens=count_in(usage, "input_tokens"),
        completion_tokens=count_in(usage, "output_tokens"),
        cached_tokens=count_in(details, "cache_read_input_tokens", "cached_tokens"),
        cache_write_tokens=count_in(details, "cache_creation_input_tokens"),
        search_requests=count_in(searches, "invocation"),
    )

"""OpenAI's chat-completions format, which Perplexity and many others speak as well.

A request's messages, tools and response format are in this format already; what is left is the system prompt, what was
written for Claude, and what OpenAI refuses. The counts of the answer are read by `chat_answer.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from app.providers.chat_turns import chat_turns
from app.providers.translation import LONGEST_NAME, Translation, fitting
from app.providers.usage_wire import cost_in, tokens_in, usage_in
from app.providers.wire import Body
from schemas.request import CompletionRequest
from schemas.usage import Tokens, tier_of


def chat_body(request: CompletionRequest, model: str, translation: Translation, **numbers: float) -> Body:
    """What all who speak the format take in the same words, and the numbers, which each calls by its own names.

    Raises UnsupportedRequestError.
    """
    translation.know(names_of(request))
    body: Body = {"model": model, "messages": chat_messages(request, translation), **numbers}
    if request.stop:
        body["stop"] = list(request.stop)
    if request.tools:
        body["tools"] = chat_tools(request, translation)
    return body


def chat_messages(request: CompletionRequest, translation: Translation) -> list[Body]:
    """The conversation, with the request's system prompt before it."""
    messages = chat_turns(request.conversation(), translation)
    return [{"role": "system", "content": request.system}, *messages] if request.system else messages


def chat_tools(request: CompletionRequest, translation: Translation) -> list[Body]:
    """The tools; one in Claude's form becomes a function."""
    return [_tool(tool, translation) for tool in request.tools]


def _tool(tool: Body, translation: Translation) -> Body:
    if "input_schema" in tool:
        told = {"name": tool.get("name"), "parameters": tool["input_schema"]}
        if tool.get("description"):
            told["description"] = tool["description"]
        tool = {"type": "function", "function": told}
    function = function_of(tool)
    if function is None or not isinstance(function.get("name"), str):
        return tool
    name = translation.tool_name(function["name"])
    if function is tool:
        return {"type": "function", "function": {**_without_type(tool), "name": name}}
    return {**tool, "function": {**function, "name": name}} if name != function["name"] else tool


def _without_type(tool: Body) -> Body:
    return {name: value for name, value in tool.items() if name != "type"}


def function_of(tool: Body) -> Body | None:
    """The function that a tool is, in the form of the chat completions, or of the Responses, which have no layer around
    it; None for any other tool.
    """
    function = tool.get("function")
    if isinstance(function, dict):
        return function
    return tool if tool.get("type") == "function" and "name" in tool else None


def names_of(request: CompletionRequest) -> Iterator[object]:
    """The names of all tools."""
    for tool in request.tools:
        yield (function_of(tool) or tool).get("name")


def without_marks(body: Body) -> Body:
    """The body without Claude's marks for its cache, which OpenAI refuses as unknown. Gateways to Claude take them."""
    messages = [
        {**message, "content": [_unmarked(part) for part in message["content"]]}
        if isinstance(message["content"], list)
        else message
        for message in body["messages"]
    ]
    tools = {"tools": [_unmarked(tool) for tool in body["tools"]]} if "tools" in body else {}
    return {**body, "messages": messages, **tools}


def _unmarked(part: Body) -> Body:
    return {name: value for name, value in part.items() if name != "cache_control"}


def chat_format(wanted: Body) -> Body:
    """The format of the answer; a schema has a name, and an object around it, also where it was written without."""
    if wanted.get("type") != "json_schema":
        return wanted
    inner = wanted.get("json_schema")
    if not isinstance(inner, dict):
        inner = {name: value for name, value in wanted.items() if name != "type"}
    if not isinstance(inner.get("schema"), dict):
        return wanted
    name = fitting(str(inner.get("name") or ""), LONGEST_NAME) or "answer"
    named = {"type": "json_schema", "json_schema": {**inner, "name": name}}
    return {**wanted, **named} if "json_schema" in wanted else named


def with_choice(body: Body, translation: Translation) -> Body:
    """The body with its choice of tools in OpenAI's words; without tools there is none, which would be refused."""
    if "tool_choice" not in body and "parallel_tool_calls" not in body:
        return body
    if not body.get("tools"):
        return {name: value for name, value in body.items() if name not in ("tool_choice", "parallel_tool_calls")}
    if "tool_choice" not in body:
        return body
    return {**body, "tool_choice": _choice(body["tool_choice"], translation)}


def chosen_in(choice: Body) -> str | None:
    """The one tool that is to be called, in OpenAI's words or in Claude's; None where the choice names none."""
    name = (function_of(choice) or choice).get("name")
    return name if isinstance(name, str) and choice.get("type") in ("function", "tool") else None


def _choice(asked: object, translation: Translation) -> object:
    """Out of Claude's words or OpenAI's own."""
    if asked == "any":
        return "required"
    if not isinstance(asked, dict):
        return asked
    if (name := chosen_in(asked)) is not None:
        return {"type": "function", "function": {"name": translation.tool_name(name)}}
    return {"any": "required", "auto": "auto", "none": "none"}.get(str(asked.get("type")), asked)


def chat_tokens(answer: Body) -> Tokens:
    """The counts in OpenAI's sense, wherever the answer has them, and the tier in which it was served."""
    tier = tier_of(answer.get("service_tier"))
    tokens = tokens_in(usage_in(answer))
    return tokens.model_copy(update={"service_tier": tier}) if tier else tokens


def chat_cost(answer: Body) -> Decimal | None:
    """What the answer says that it has cost. OpenAI says nothing of the kind; gateways do."""
    return cost_in(usage_in(answer))

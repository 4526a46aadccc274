"""OpenAI's chat-completions format, which Perplexity and many others speak as well.

A request's messages, tools and response format are in this format already; what is left is the system prompt, tools
that were written for Claude, and reading the answer.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from app.providers.usage_wire import cost_in, tokens_in, usage_in
from app.providers.wire import Body, MalformedAnswerError, as_list, as_object, as_text
from schemas.request import CompletionRequest, Message
from schemas.usage import Tokens, tier_of
from streams.dispatch.ports import Answer

#: `function_call` is the older name of `tool_calls`. A reason that is new to us is an end like any other: the answer
#: is complete and paid for.
_FINISH = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


def chat_body(request: CompletionRequest, model: str, **numbers: float) -> Body:
    """What all who speak the format take in the same words, and the numbers, which each calls by its own names."""
    body: Body = {"model": model, "messages": chat_messages(request), **numbers}
    if request.stop:
        body["stop"] = list(request.stop)
    if request.tools:
        body["tools"] = chat_tools(request)
    return body


def chat_messages(request: CompletionRequest) -> list[Body]:
    """The conversation, with the request's system prompt before it."""
    messages = [_message(message) for message in request.conversation()]
    if request.system:
        messages.insert(0, {"role": "system", "content": request.system})
    return messages


def _message(message: Message) -> Body:
    body: Body = {"role": message.role, "content": _content(message)}
    if message.name is not None:
        body["name"] = message.name
    if message.tool_call_id is not None:
        body["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        body["tool_calls"] = message.tool_calls
    return body


def _content(message: Message) -> str | list[Body] | None:
    if isinstance(message.content, str):
        # An assistant that only calls tools says nothing; empty text is refused in its place.
        return message.content or (None if message.tool_calls else "")
    return [_part(part) for part in message.content]


def _part(part: Body) -> Body:
    """A content part; an image as Claude takes it becomes one by URL."""
    source = part.get("source")
    if part.get("type") != "image" or not isinstance(source, dict):
        return part
    url = source.get("url") or f"data:{source.get('media_type')};base64,{source.get('data')}"
    return {"type": "image_url", "image_url": {"url": url}}


def chat_tools(request: CompletionRequest) -> list[Body]:
    """The tools; one in Claude's form becomes a function."""
    return [_function(tool) if "input_schema" in tool else tool for tool in request.tools]


def _function(tool: Body) -> Body:
    function = {"name": tool.get("name"), "parameters": tool["input_schema"]}
    if tool.get("description"):
        function["description"] = tool["description"]
    return {"type": "function", "function": function}


def chat_answer(answer: Body, tokens: Tokens, **extra: Any) -> Answer:
    """The first choice of a chat completion; raises MalformedAnswerError."""
    choices = as_list(answer.get("choices"), "choices")
    choice = as_object(choices[0] if choices else None, "choices[0]")
    message = as_object(choice.get("message"), "choices[0].message")
    reason = choice.get("finish_reason")
    if not isinstance(reason, str):
        raise MalformedAnswerError("choices[0].finish_reason is missing")
    calls = as_list(message.get("tool_calls") or [], "tool_calls")
    finish = _FINISH.get(reason, "stop")
    content = message.get("content")
    if content is None and message.get("refusal") is not None:
        content, finish = message["refusal"], "content_filter"
    if content is None and not calls and finish not in ("length", "content_filter"):
        raise MalformedAnswerError("choices[0].message has neither content nor tool calls")
    return Answer(
        content=None if content is None else as_text(content, "choices[0].message.content"),
        model=as_text(answer.get("model"), "model"),
        finish_reason=finish,
        tokens=tokens,
        tool_calls=tuple(as_object(call, "tool_calls[]") for call in calls),
        **extra,
    )


def chat_tokens(answer: Body) -> Tokens:
    """The counts in OpenAI's sense, wherever the answer has them, and the tier in which it was served."""
    tier = tier_of(answer.get("service_tier"))
    tokens = tokens_in(usage_in(answer))
    return tokens.model_copy(update={"service_tier": tier}) if tier else tokens


def chat_cost(answer: Body) -> Decimal | None:
    """What the answer says that it has cost. OpenAI says nothing of the kind; gateways do."""
    return cost_in(usage_in(answer))

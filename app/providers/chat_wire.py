"""OpenAI's chat-completions format, which Perplexity and many others speak as well.

A request's messages, tools and response format are in this format already; what is left is the system prompt, tools
that were written for Claude, and the counts of the answer, which `chat_answer.py` reads.
"""

from __future__ import annotations

from decimal import Decimal

from app.providers.usage_wire import cost_in, tokens_in, usage_in
from app.providers.wire import Body
from schemas.request import CompletionRequest, Message
from schemas.usage import Tokens, tier_of


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


def chat_tokens(answer: Body) -> Tokens:
    """The counts in OpenAI's sense, wherever the answer has them, and the tier in which it was served."""
    tier = tier_of(answer.get("service_tier"))
    tokens = tokens_in(usage_in(answer))
    return tokens.model_copy(update={"service_tier": tier}) if tier else tokens


def chat_cost(answer: Body) -> Decimal | None:
    """What the answer says that it has cost. OpenAI says nothing of the kind; gateways do."""
    return cost_in(usage_in(answer))

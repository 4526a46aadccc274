"""The chat completions of servers that speak OpenAI's format more or less: what they leave out is filled in.

Nothing here calls an answer malformed because a detail is missing: the work is done, and the text is there. What no
answer can be without is the first choice's message; `chat_wire.py` checks that as for everybody.
"""

from __future__ import annotations

from typing import Any

import orjson

from app.providers.chat_wire import chat_answer, chat_body, chat_cost, chat_tokens
from app.providers.wire import Body, read_object, with_options
from schemas.request import CompletionRequest
from streams.dispatch.ports import Answer


def to_body(request: CompletionRequest, model: str, provider: str) -> Body:
    """The request in the words that all of them know: `max_tokens` by its old name, and always a temperature."""
    body = chat_body(request, model, max_tokens=request.max_tokens, temperature=request.temperature)
    if request.response_format is not None:
        body["response_format"] = request.response_format
    return with_options(body, request, provider)


def to_answer(raw: bytes) -> Answer:
    """The answer; `model` is empty and `tokens` are zero where it does not say. Raises MalformedAnswerError."""
    return answer_of(read_object(raw))


def answer_of(answer: Body) -> Answer:
    """As `to_answer`, out of the parsed object."""
    answer["choices"] = _choices(answer.get("choices"))
    if not isinstance(answer.get("model"), str):
        answer["model"] = ""
    return chat_answer(answer, chat_tokens(answer), reported_cost=chat_cost(answer))


def _choices(choices: object) -> object:
    """The first choice in OpenAI's form. What is no choice at all is left as it is."""
    first = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(first, dict) or not isinstance(first.get("message"), dict):
        return choices
    message = _message(first["message"])
    usual = "tool_calls" if message.get("tool_calls") else "stop"
    reason = first.get("finish_reason")
    return [{**first, "message": message, "finish_reason": reason if isinstance(reason, str) and reason else usual}]


def _message(message: Body) -> Body:
    """A message with text and calls as OpenAI writes them.

    A model that only thought has an empty answer: `reasoning_content` is not part of it. Some servers send text in
    parts, and a call's arguments as an object.
    """
    calls = message.get("tool_calls")
    calls = [_call(call, number) for number, call in enumerate(calls)] if isinstance(calls, list) else []
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if isinstance(part, dict) and _is_text(part.get("text")))
    if content is None and not calls and message.get("refusal") is None:
        content = ""
    return {**message, "content": content, "tool_calls": calls}


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _call(call: Any, number: int) -> Any:
    if not isinstance(call, dict):
        return call
    function = call.get("function")
    if isinstance(function, dict) and isinstance(function.get("arguments"), dict):
        function = {**function, "arguments": orjson.dumps(function["arguments"]).decode()}
    return {"id": f"call_{number}", "type": "function", **call, "function": function}

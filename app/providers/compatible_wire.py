"""The chat completions of servers that speak OpenAI's format more or less: what they leave out is filled in.

Nothing here calls an answer malformed because a detail is missing: the work is done, and the text is there. What no
answer can be without is the first choice's message; `chat_wire.py` checks that as for everybody.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from app.providers.chat_wire import chat_answer, chat_body, chat_tokens
from app.providers.wire import MOST_TOKENS, Body, read_object, with_options
from schemas.request import CompletionRequest
from schemas.usage import Tokens
from streams.dispatch.ports import Answer
from streams.tokens import estimate_text, estimate_tokens

#: Of an answer that states none; no answer that was counted has none.
UNCOUNTED = Tokens()


def to_body(request: CompletionRequest, model: str, provider: str) -> Body:
    """The request in the words that all of them know: `max_tokens` by its old name, and always a temperature."""
    body = chat_body(request, model, max_tokens=request.max_tokens, temperature=request.temperature)
    if request.response_format is not None:
        body["response_format"] = request.response_format
    return with_options(body, request, provider)


def to_answer(raw: bytes) -> Answer:
    """The answer; `model` is empty and `tokens` is UNCOUNTED where it does not say. Raises MalformedAnswerError."""
    return answer_of(read_object(raw))


def answer_of(answer: Body) -> Answer:
    """As `to_answer`, out of the parsed object."""
    answer["choices"] = _choices(answer.get("choices"))
    if not isinstance(answer.get("model"), str):
        answer["model"] = ""
    return chat_answer(answer, _tokens(answer))


def completed(answer: Answer, request: CompletionRequest, model: str) -> Answer:
    """The answer with the model that was asked for, and its tokens estimated, where it says neither.

    An answer without a count is paid for like any other: with no tokens at all it would look free.
    """
    if not answer.model:
        answer = replace(answer, model=model)
    if answer.tokens != UNCOUNTED:
        return answer
    written = (answer.content or "") + "".join(str(call.get("function", "")) for call in answer.tool_calls)
    tokens = Tokens(prompt_tokens=estimate_tokens(request), completion_tokens=estimate_text(written))
    return replace(answer, tokens=tokens, is_estimated=True)


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


def _tokens(answer: Body) -> Tokens:
    """The counts; UNCOUNTED where they are missing, or are no counts."""
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        return UNCOUNTED
    prompt, total = usage.get("prompt_tokens"), usage.get("total_tokens")
    if usage.get("completion_tokens") is None and isinstance(prompt, int) and isinstance(total, int):
        usage = {**usage, "completion_tokens": max(total - prompt, 0)}
    if not all(_is_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens")):
        return UNCOUNTED
    return chat_tokens({"usage": {**usage, **_details(usage)}})


def _details(usage: Body) -> Body:
    """Cached and reasoning tokens, where they are counts."""
    names = ("prompt_tokens_details", "completion_tokens_details")
    return {name: _counts(usage.get(name)) for name in names}


def _counts(details: object) -> Body:
    return {name: value for name, value in details.items() if _is_count(value)} if isinstance(details, dict) else {}


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS

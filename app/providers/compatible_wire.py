"""The chat completions of servers that speak OpenAI's format more or less: what they leave out is filled in.

Nothing here calls an answer malformed because a detail is missing: the work is done, and the text is there. What no
answer can be without is the first choice's message; `chat_wire.py` checks that as for everybody.
"""

from __future__ import annotations

from app.providers.chat_answer import chat_answer
from app.providers.chat_wire import chat_body, chat_tokens
from app.providers.wire import UNCOUNTED, Body, MalformedAnswerError, optional_count, read_object, stated, with_options
from schemas.request import CompletionRequest
from schemas.usage import Tokens
from streams.dispatch.ports import Answer


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
    """As `to_answer`, out of the parsed object. Without a reason for its end it is whole: not all name one."""
    return chat_answer(answer, _tokens(answer), needs_reason=False)


def _tokens(answer: Body) -> Tokens:
    """The counts; UNCOUNTED where they are missing, or are no counts."""
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        return UNCOUNTED
    prompt, total = usage.get("prompt_tokens"), usage.get("total_tokens")
    if usage.get("completion_tokens") is None and isinstance(prompt, int) and isinstance(total, int):
        usage = {**usage, "completion_tokens": max(total - prompt, 0)}
    return stated(chat_tokens, {"usage": {**usage, **_details(usage)}})


def _details(usage: Body) -> Body:
    """Cached and reasoning tokens, where they are counts."""
    names = ("prompt_tokens_details", "completion_tokens_details")
    return {name: _counts(usage.get(name)) for name in names}


def _counts(details: object) -> Body:
    return {name: value for name, value in details.items() if _is_count(value)} if isinstance(details, dict) else {}


def _is_count(value: object) -> bool:
    try:
        optional_count({"it": value}, "it")
    except MalformedAnswerError:
        return False
    return value is not None

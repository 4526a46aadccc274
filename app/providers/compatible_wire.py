"""The chat completions of servers that speak OpenAI's format more or less: what they leave out is filled in.

Nothing here calls an answer malformed because a detail is missing: the work is done, and the text is there. What no
answer can be without is the first choice's message; `chat_answer.py` checks that as for everybody.
"""

from __future__ import annotations

from app.providers.chat_answer import chat_answer
from app.providers.chat_wire import chat_body, chat_cost, chat_format, chat_tokens, with_choice
from app.providers.translation import Translation
from app.providers.wire import Body, read_object, with_options
from schemas.request import CompletionRequest
from streams.dispatch.ports import Answer


def to_body(request: CompletionRequest, model: str, provider: str, translation: Translation | None = None) -> Body:
    """The request in the words that all of them know: `max_tokens` by its old name, and always a temperature.

    Raises UnsupportedRequestError.
    """
    translation = translation or Translation()
    body = chat_body(request, model, translation, max_tokens=request.max_tokens, temperature=request.temperature)
    if request.response_format is not None:
        body["response_format"] = chat_format(request.response_format)
    return with_choice(with_options(body, request, provider), translation)


def to_answer(raw: bytes) -> Answer:
    """The answer; `model` is empty and `tokens` are zero where it does not say. Raises MalformedAnswerError."""
    return answer_of(read_object(raw))


def answer_of(answer: Body) -> Answer:
    """As `to_answer`, out of the parsed object. Without a reason for its end it is whole: not all name one."""
    return chat_answer(answer, chat_tokens(answer), reported_cost=chat_cost(answer), needs_reason=False)

"""A chat completion as it is given, by OpenAI and by all who speak its format more or less.

Nothing here calls an answer malformed because a detail is written in another way: the work is done, and the text is
there. What is half an answer, or none, is never called whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from app.providers.finish import failed_as, reason_of, word_of
from app.providers.reported import ReportedError, told_beside
from app.providers.text import mended, parse, text_of
from app.providers.tool_calls import calls_of, is_half
from app.providers.usage_wire import counted
from app.providers.wire import Body, MalformedAnswerError, as_list, as_object
from schemas.response import ResponseWarning
from schemas.usage import Tokens
from streams.dispatch.ports import Answer

#: Where models write what they think. It is no part of the answer.
THOUGHTS = ("reasoning_content", "reasoning", "reasoning_text", "thinking", "thoughts")

AUDIO_DROPPED = ResponseWarning(
    code="audio_dropped", message="The answer is spoken; its text is here, and its sound is left out."
)
NO_CALLS = ResponseWarning(
    code="tool_calls_missing", message="The provider ended the answer with a call of a tool, and sent none."
)
NOT_JSON = ResponseWarning(
    code="tool_arguments_not_json",
    message="The arguments of a tool call are no JSON; they are as the model wrote them.",
)


class Said(NamedTuple):
    """What a message says."""

    content: str | None
    refusal: str | None
    calls: tuple[Body, ...]
    has_thought: bool
    warnings: tuple[ResponseWarning, ...] = ()


def chat_answer(answer: Body, tokens: Tokens, *, needs_reason: bool = True, **extra: Any) -> Answer:
    """The first choice of a chat completion. `needs_reason`: without a reason for its end it may be half of one; else
    it is taken as whole. Raises MalformedAnswerError and ReportedError, both with the tokens that it states.
    """
    try:
        return _chat_answer(answer, tokens, needs_reason=needs_reason, **extra)
    except MalformedAnswerError as error:
        raise MalformedAnswerError(str(error), counted(tokens)) from None


def _chat_answer(answer: Body, tokens: Tokens, *, needs_reason: bool, **extra: Any) -> Answer:
    used = counted(tokens)
    if (error := told_beside(answer)) is not None:
        raise ReportedError(error, used)
    choices = as_list(answer.get("choices"), "choices")
    choice = as_object(choices[0] if choices else None, "choices[0]")
    word = finish_word(choice)
    said = said_in(message_of(choice))
    arguments = "".join(map(_arguments, said.calls))
    raise_failed(word, used, written=len(f"{said.content or ''}{arguments}".encode()))
    is_piece = isinstance(choice.get("delta"), dict) and not choice.get("message")
    if word is None and (needs_reason or is_piece):
        raise MalformedAnswerError("choices[0].finish_reason is missing")
    finish = reason_of(word) if word is not None else ("tool_calls" if said.calls else "stop")
    content, warnings = said.content, list(said.warnings)
    if said.refusal is not None and not content:
        content, finish = said.refusal, "content_filter"
    if not content and not said.calls and not said.has_thought and _states_nothing(answer.get("usage")):
        raise ReportedError({"message": "The provider has counted nothing and sent nothing."})
    if content is None and not said.calls and finish not in ("length", "content_filter"):
        if needs_reason and not said.has_thought:
            raise MalformedAnswerError("choices[0].message has neither content nor tool calls")
        content = ""
    if finish == "tool_calls" and not said.calls:
        if not content:
            raise MalformedAnswerError("choices[0].message has none of the tool calls that it ends with")
        finish = "stop"
        warnings.append(NO_CALLS)
    check_arguments(said.calls, finish)
    if any(_is_broken(call) for call in said.calls) and finish != "length":
        warnings.append(NOT_JSON)
    model = answer.get("model")
    return Answer(
        content=content,
        model=model if isinstance(model, str) else "",
        finish_reason=finish,
        finish_reason_raw=word,
        tokens=tokens,
        tool_calls=said.calls,
        warnings=tuple(warnings),
        has_thought=said.has_thought,
        **extra,
    )


def finish_word(choice: Mapping[str, Any]) -> str | None:
    """The provider's word for the end; Gemini's own name for the field stands in some answers of its gateways."""
    return word_of(choice.get("finish_reason")) or word_of(choice.get("finishReason"))


def _states_nothing(usage: object) -> bool:
    """Whether usage is stated, and says that there was none."""
    names = ("prompt_tokens", "completion_tokens")
    return isinstance(usage, dict) and all(usage.get(name) == 0 and usage.get(name) is not False for name in names)


def raise_failed(word: str | None, tokens: Tokens | None, *, written: int) -> None:
    """Raises ReportedError for a word by which a provider says that it has failed."""
    status = failed_as(word) if word is not None else None
    if status is not None:
        told = {"message": f"The provider ended its answer with “{word}”.", "code": int(status)}
        raise ReportedError(told, tokens, written=written)


def check_arguments(calls: tuple[Body, ...], finish: str) -> None:
    """Raises MalformedAnswerError for a call that breaks off in an answer that is not said to be too long."""
    if finish != "length" and any(is_half(_arguments(call)) for call in calls):
        raise MalformedAnswerError("the arguments of a tool call break off")


def _is_broken(call: Mapping[str, Any]) -> bool:
    try:
        parse(_arguments(call).encode(errors="replace"))
    except ValueError:
        return True
    return False


def _arguments(call: Mapping[str, Any]) -> str:
    function = call.get("function")
    return function["arguments"] if isinstance(function, Mapping) else "{}"


def message_of(choice: Body) -> Body:
    """The message of a choice; some write a piece of a stream in its place, or the bare text."""
    for name in ("message", "delta"):
        if isinstance(message := choice.get(name), dict):
            return message
    if isinstance(text := choice.get("message") or choice.get("text"), str):
        return {"content": text}
    raise MalformedAnswerError("choices[0].message is not an object")


def said_in(message: Body) -> Said:
    """Raises MalformedAnswerError."""
    try:
        content = text_of(message.get("content"))
        refusal = text_of(message.get("refusal"))
    except TypeError:
        raise MalformedAnswerError("choices[0].message.content is not text") from None
    calls = tuple(calls_of(message))
    if not content and calls:
        # An empty text before a call is none.
        content = None
    if content is None and not calls and isinstance(text := message.get("text"), str):
        content = text
    warnings: tuple[ResponseWarning, ...] = ()
    if not content and isinstance(audio := message.get("audio"), dict) and isinstance(audio.get("transcript"), str):
        content, warnings = audio["transcript"], (AUDIO_DROPPED,)
    parts = message.get("content") if isinstance(message.get("content"), list) else ()
    has_thought = any(message.get(name) for name in THOUGHTS) or any(
        isinstance(part, dict) and part.get("type") in THOUGHTS for part in parts or ()
    )
    return Said(
        None if content is None else mended(content),
        None if refusal is None else mended(refusal),
        calls,
        has_thought,
        warnings,
    )

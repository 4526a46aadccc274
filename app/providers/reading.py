"""An answer that has come, read: whole or as a stream, in whichever of the two it was asked for. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from app.providers import errors, sse
from app.providers.limits import read_limits, their_time
from app.providers.reported import ReportedError, error_in_body, failure_of
from app.providers.stream import NewStream, StreamedAnswer
from app.providers.text import REPLACEMENT, parse
from app.providers.wire import MalformedAnswerError
from schemas.request import CommonRequest, CompletionRequest
from schemas.response import ResponseWarning
from schemas.usage import Tokens
from streams.dispatch.ports import UNREAD, Answer, Delta, Failure
from streams.tokens import estimate_text, estimate_tokens, tokens_of

TEXT_REPAIRED = ResponseWarning(
    code="text_repaired", message="The answer held bytes that are no text; a mark stands in their place."
)

#: Tokens of an answer that really is empty: the marks of its end. Claude counts up to three.
MARKS = 3

#: Reads a body; raises MalformedAnswerError and ReportedError.
ToAnswer = Callable[[bytes], Answer]


def read_body(
    body: bytes, headers: Mapping[str, str], to_answer: ToAnswer, new_stream: NewStream | None
) -> Answer | Failure:
    """The answer in a whole body. One that is a stream after all is put together by `new_stream`."""
    if new_stream is not None and sse.is_stream(body):
        return _read_events(body, headers, new_stream())
    if new_stream is not None and _is_lines(body):
        return _read_events(body, headers, new_stream())
    return _with_readings(_read(lambda: to_answer(body), body), headers, has_mark=has_mark(body))


def _is_lines(body: bytes) -> bool:
    """Whether a body begins with a line that is a JSON object, and goes on behind it."""
    first, _, rest = body.strip().partition(b"\n")
    if not first.startswith(b"{") or not rest.strip():
        return False
    try:
        parse(first)
    except ValueError:
        return False
    return True


def _read_events(body: bytes, headers: Mapping[str, str], stream: StreamedAnswer) -> Answer | Failure:
    decoder = sse.Decoder(is_known=True)
    try:
        for events in (decoder.feed(body), decoder.end()):
            for name, data in events:
                stream.take(name, data)
        stream.end(is_cut=decoder.is_cut)
    except (MalformedAnswerError, ReportedError) as error:
        return broken(failure_behind(error, stream), headers, stream)
    return read_stream(stream, headers, has_mark=has_mark(body))


def read_stream(stream: StreamedAnswer, headers: Mapping[str, str], *, has_mark: bool) -> Answer | Failure:
    """The answer of a stream that has ended."""
    if not stream.is_complete:
        return broken(errors.truncated(), headers, stream)
    used = stream.used()
    result = _read(stream.answer, b"", used)
    if isinstance(result, Failure) and result.tokens is None and result.may_be_billed:
        result = replace(result, tokens=used)
    return _with_readings(result, headers, has_mark=has_mark)


def _read(to_answer: Callable[[], Answer], body: bytes, used: Tokens | None = None) -> Answer | Failure:
    """`used` is what a stream has used by its end."""
    try:
        return to_answer()
    except ReportedError as error:
        if used is None and error.written:
            used = Tokens(completion_tokens=tokens_of(error.written))
        return failure_of(error.body, tokens=error.tokens or used, has_begun=used is not None)
    except MalformedAnswerError as error:
        if error.tokens is None and (told := error_in_body(body)) is not None:
            return failure_of(told)
        return replace(errors.malformed(str(error)), tokens=error.tokens)


def failure_behind(error: MalformedAnswerError | ReportedError, stream: StreamedAnswer) -> Failure:
    """The failure of a stream that one of its events has ended."""
    if isinstance(error, ReportedError):
        return failure_of(error.body, tokens=stream.used(), has_begun=stream.used() is not None)
    return errors.malformed(str(error))


def broken(failure: Failure, headers: Mapping[str, str], stream: StreamedAnswer) -> Failure:
    """A stream that did not come to its end, with what it has used as far as is known."""
    readings = read_limits(headers, their_time(headers))
    tokens = stream.used() if failure.may_be_billed else None
    return replace(failure, readings=readings, tokens=tokens)


def _with_readings(result: Answer | Failure, headers: Mapping[str, str], *, has_mark: bool) -> Answer | Failure:
    readings = read_limits(headers, their_time(headers))
    if isinstance(result, Answer) and REPLACEMENT in (result.content or "") and not has_mark:
        result = replace(result, warnings=(*result.warnings, TEXT_REPAIRED))
    return result if readings is UNREAD else replace(result, readings=readings)


def has_mark(body: bytes) -> bool:
    """Whether the provider itself has written the mark for what is no character."""
    return REPLACEMENT.encode() in body or b"\\ufffd" in body.lower()


def completed(answer: Answer, request: CommonRequest, model: str) -> Answer | Failure:
    """The answer with the model that was asked for, and its tokens estimated, where it does not say.

    An answer without a count is paid for like any other: with no tokens at all it would look free. What is no text (a
    list of what was found, vectors) has no tokens of this kind. One that was counted and says nothing at all has been
    lost on its way, unless its request wants it to end at once.
    """
    if not answer.model:
        answer = replace(answer, model=model)
    is_text = answer.content is not None or bool(answer.tool_calls)
    if not isinstance(request, CompletionRequest) and not is_text:
        return answer
    if isinstance(request, CompletionRequest) and _is_lost(answer, request):
        why = "the provider has counted what it wrote, and sent none of it"
        return replace(errors.malformed(why), readings=answer.readings, tokens=answer.tokens)
    tokens, changes = answer.tokens, {}
    if not tokens.prompt_tokens:
        changes["prompt_tokens"] = estimate_tokens(request)
    if not tokens.completion_tokens and (written := _written(answer)):
        changes["completion_tokens"] = estimate_text(written)
    if not changes:
        return answer
    return replace(answer, tokens=tokens.model_copy(update=changes), is_estimated=True)


def _written(answer: Answer) -> str:
    """All that the provider has written, text and calls."""
    return (answer.content or "") + "".join(str(call.get("function", "")) for call in answer.tool_calls)


def with_prompt(failure: Failure, request: CommonRequest) -> Failure:
    """The failure with the prompt's tokens estimated, where it is only known what was written."""
    tokens = failure.tokens
    if tokens is None or tokens.prompt_tokens or not tokens.completion_tokens:
        return failure
    return replace(failure, tokens=tokens + Tokens(prompt_tokens=estimate_tokens(request)))


def _is_lost(answer: Answer, request: CompletionRequest) -> bool:
    says_nothing = not (answer.content or answer.tool_calls or answer.has_thought) and answer.finish_reason == "stop"
    may_be_empty = request.stop or any("stop" in options for options in request.provider_options.values())
    written = answer.tokens.completion_tokens - answer.tokens.reasoning_tokens
    return says_nothing and not may_be_empty and not answer.is_estimated and written > MARKS


def as_delta(answer: Answer) -> Delta | None:
    """The whole answer as one piece, for who reads pieces."""
    calls = tuple({"index": number, **call} for number, call in enumerate(answer.tool_calls))
    return Delta(answer.content or "", calls) if answer.content or calls else None

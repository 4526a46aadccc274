"""A streamed chat completion, put together again: OpenAI's chunks, which Perplexity and many others send as well.

What comes out is the object that the same call would have brought unstreamed, so that both are read by one function.
Source: "The chat completion chunk object" of OpenAI's API reference. Pieces belong to `choices[0].delta`; those of a
tool call name its `index`; the last chunk has no choices and the usage (`stream_options.include_usage`); then comes
`[DONE]`. Perplexity sends its sources and the usage with any chunk, and repeats the whole message beside each delta.
Others put the piece into `message` or `text`, send signs of life as data, and errors in forms of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from app.providers.chat_answer import THOUGHTS, finish_word
from app.providers.chat_wire import chat_tokens
from app.providers.finish import failed_as
from app.providers.heartbeat import is_heartbeat
from app.providers.reported import ReportedError, error_in, told_beside
from app.providers.text import Pieces, mended_all, text_of
from app.providers.tool_calls import Calls
from app.providers.usage_wire import counted, later, usage_in
from app.providers.wire import Body, MalformedAnswerError, as_list, as_object, read_event
from schemas.usage import Tokens
from streams.dispatch.ports import Answer, Delta
from streams.tokens import tokens_of

DONE = "[DONE]"
#: What stands beside the choices, and is complete wherever it comes: the last one counts. Usage has a rule of its own.
_BESIDE = ("model", "service_tier", "citations", "search_results", "images", "related_questions")
#: From so many characters on a text is not repeated by chance.
_REPEATED = 8


class ChatStream:
    """Implements `app.providers.stream.StreamedAnswer`. `to_answer` reads the object put together, with fractions as
    Decimal if `exactly`; `prompt_tokens` is the estimate for a server that does not say what was used.
    """

    def __init__(self, to_answer: Callable[[Body], Answer], prompt_tokens: int = 0, *, exactly: bool = False) -> None:
        self._prompt_tokens = prompt_tokens
        self._exactly = exactly
        self._to_answer = to_answer
        self._answer: Body = {}
        self._texts: dict[str, Pieces] = {}
        self._thoughts = Pieces()
        self._calls = Calls()
        self._audio = Pieces()
        self._finish: str | None = None
        #: Pieces came behind a reason: this server names one with each of them, and only the mark is the end.
        self._is_hasty = False
        self._ends_with_text = False
        self._is_done = False

    @property
    def is_complete(self) -> bool:
        """A reason for the end, and the mark of the end: what the usage counts may come between the two."""
        return self._finish is not None and (self._is_done or failed_as(self._finish) is not None)

    @property
    def has_told(self) -> bool:
        """Whether anything of an answer has come, be it thoughts."""
        return any(text.size for text in (*self._texts.values(), self._thoughts, self._audio)) or bool(len(self._calls))

    def take(self, event: str | None, data: str) -> Delta | None:
        data = data.strip()
        if data.strip('"').upper() == DONE:
            self._is_done = True
            return None
        if event != "error" and is_heartbeat(data):
            return None
        chunk = self._read(event, data)
        self._answer |= {name: chunk[name] for name in _BESIDE if chunk.get(name) is not None}
        self._answer["usage"] = later(self._answer.get("usage"), usage_in(chunk))
        choices = as_list(chunk.get("choices") or [], "choices")
        if not choices:
            return None
        choice = as_object(choices[0], "choices[0]")
        word = finish_word(choice)
        delta = self._piece(self._delta_of(choice))
        self._is_hasty |= self._finish is not None and delta is not None
        if word is not None:
            self._finish, self._ends_with_text = word, delta is not None
        if word is not None and chunk.get("object") == "chat.completion":
            # The whole of it, where a stream was asked for.
            self._is_done = True
        return delta

    def _read(self, event: str | None, data: str) -> Body:
        """The chunk. Raises ReportedError for whatever else has words."""
        if event == "error" or data[:1] not in ("{", "[", '"'):
            raise ReportedError(_parsed(data))
        chunk = read_event(data, exactly=self._exactly)
        if isinstance(chunk, dict) and chunk.get("choices"):
            error = told_beside(chunk)
        else:
            error = None if isinstance(chunk, dict) and chunk.get("usage") else error_in(chunk)
        if error is not None:
            raise ReportedError(error)
        return {} if chunk == [] else as_object(chunk, "it")

    def _delta_of(self, choice: Body) -> Body:
        """The piece. Where there is no `delta`, it is what stands in its place."""
        delta = choice.get("delta")
        if isinstance(delta, str):
            return {"content": delta}
        if delta is not None:
            return as_object(delta, "choices[0].delta")
        told = choice.get("message") or choice.get("text")
        message: Body = {"content": told} if isinstance(told, str) else as_object(told or {}, "choices[0].message")
        content, before = message.get("content"), self._text("content")
        if isinstance(content, str) and before and content.startswith(before):
            is_end = finish_word(choice) is not None
            if is_end or (len(before) >= _REPEATED and len(content) > len(before)):
                # All that has been said so far, once more.
                return {**message, "content": content[len(before) :]}
        return message

    def _piece(self, delta: Body) -> Delta | None:
        said = [self._add_text(name, delta.get(name)) for name in ("content", "refusal")]
        if "content" not in delta and isinstance(delta.get("text"), str):
            said.append(self._add_text("content", delta["text"]))
        for name in THOUGHTS:
            if isinstance(thought := delta.get(name), str):
                self._thoughts.add(thought)
        if isinstance(audio := delta.get("audio"), dict) and isinstance(transcript := audio.get("transcript"), str):
            self._audio.add(transcript)
        listed: Any = delta.get("tool_calls") or []
        if isinstance(listed, dict):
            listed = [listed]
        if not listed and delta.get("function_call"):
            listed = [{"index": 0, "function": delta["function_call"]}]
        pieces = [as_object(call, "tool_calls[]") for call in as_list(listed, "tool_calls") if call is not None]
        calls = tuple(mended_all(told) for piece in pieces if (told := self._calls.add(piece)) is not None)
        text = "".join(said)
        return Delta(text, calls) if text or calls else None

    def _add_text(self, name: str, content: object) -> str:
        try:
            text = text_of(content)
        except TypeError:
            raise MalformedAnswerError(f"choices[0].delta.{name} is not text") from None
        return "" if text is None else self._texts.setdefault(name, Pieces()).add(text)

    def _text(self, name: str) -> str:
        return self._texts[name].text if name in self._texts else ""

    def end(self, *, is_cut: bool = False) -> Delta | None:
        """What is left to tell at the end: half a character."""
        # A reason beside a text may be one of those that stand with every piece.
        self._is_hasty |= is_cut and self._ends_with_text
        text = "".join(pieces.end() for pieces in self._texts.values())
        return Delta(text) if text else None

    def answer(self) -> Answer:
        message: dict[str, Any] = {name: pieces.text for name, pieces in self._texts.items()}
        if self._calls:
            message["tool_calls"] = list(self._calls.whole())
        if self._thoughts.size:
            message["reasoning_content"] = self._thoughts.text
        if self._audio.size:
            message["audio"] = {"transcript": self._audio.text}
        choices = [{"message": message, "finish_reason": self._finish}]
        answer = self._to_answer(mended_all({**self._answer, "choices": choices}))
        told = answer.tokens
        missing = {name: count for name, count in self._estimate().items() if not getattr(told, name)}
        if told.completion_tokens or (told.prompt_tokens and not any(missing.values())):
            return answer
        # Not every server that speaks this format can say in a stream what it has used.
        return replace(answer, tokens=told.model_copy(update=missing), is_estimated=True)

    def used(self) -> Tokens | None:
        """What has come so far was written at least. Most say it at the end only; Perplexity with every piece."""
        told = chat_tokens(self._answer)
        if not self.has_told:
            return counted(told)
        estimate = self._estimate()
        return told.model_copy(
            update={
                "prompt_tokens": told.prompt_tokens or estimate["prompt_tokens"],
                "completion_tokens": max(told.completion_tokens, estimate["completion_tokens"]),
            }
        )

    def _estimate(self) -> dict[str, int]:
        texts = (*self._texts.values(), self._thoughts, self._audio)
        written = sum(pieces.size for pieces in texts) + self._calls.size
        return {"prompt_tokens": self._prompt_tokens, "completion_tokens": tokens_of(written)}


def _parsed(data: str) -> object:
    """An error's JSON, or its text."""
    try:
        return read_event(data)
    except MalformedAnswerError:
        return data

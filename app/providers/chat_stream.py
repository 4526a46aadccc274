"""A streamed chat completion, put together again: OpenAI's chunks, which Perplexity and many others send as well.

What comes out is the object that the same call would have brought unstreamed, so that both are read by one function.
Source: "The chat completion chunk object" of OpenAI's API reference. Pieces belong to `choices[0].delta`; those of a
tool call name its `index`; the last chunk has no choices and the usage (`stream_options.include_usage`); then comes
`[DONE]`. Perplexity sends its sources and the usage with any chunk, and repeats the whole message beside each delta.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from app.providers.chat_wire import chat_tokens
from app.providers.stream import StreamError
from app.providers.usage_wire import UNCOUNTED, later, tokens_in, usage_in
from app.providers.wire import Body, as_list, as_object, as_text
from schemas.usage import Tokens
from streams.dispatch.ports import Answer, Delta
from streams.tokens import tokens_of

DONE = "[DONE]"
#: What stands beside the choices, and is complete wherever it comes: the last one counts. Usage has a rule of its own.
_BESIDE = ("model", "service_tier", "citations", "search_results", "images", "related_questions")


class ChatStream:
    """Implements `app.providers.stream.StreamedAnswer`. `read` parses JSON, `to_answer` the object put together;
    `prompt_tokens` is the estimate for a server that does not say what was used.
    """

    def __init__(
        self, read: Callable[[bytes], Body], to_answer: Callable[[Body], Answer], prompt_tokens: int = 0
    ) -> None:
        self._prompt_tokens = prompt_tokens
        self._read = read
        self._to_answer = to_answer
        self._answer: Body = {}
        self._texts: dict[str, list[str]] = {}
        self._calls: dict[int, Body] = {}
        self._finish: str | None = None
        self._is_done = False
        self.has_begun = False

    @property
    def is_complete(self) -> bool:
        """A reason for the end, and the mark of the end: what the usage counts may come between the two."""
        return self._finish is not None and self._is_done

    def take(self, event: str | None, data: str) -> Delta | None:
        if data.strip() == DONE:
            self._is_done = True
            return None
        chunk = self._read(data.encode())
        if event == "error" or chunk.get("error") is not None:
            raise StreamError(chunk)
        self.has_begun = True
        self._answer |= {name: chunk[name] for name in _BESIDE if chunk.get(name) is not None}
        self._answer["usage"] = later(self._answer.get("usage"), usage_in(chunk))
        choices = as_list(chunk.get("choices") or [], "choices")
        if not choices:
            return None
        choice = as_object(choices[0], "choices[0]")
        if choice.get("finish_reason") is not None:
            self._finish = as_text(choice["finish_reason"], "choices[0].finish_reason")
        return self._piece(as_object(choice.get("delta") or {}, "choices[0].delta"))

    def _piece(self, delta: Body) -> Delta | None:
        for name in ("content", "refusal"):
            if delta.get(name) is not None:
                self._texts.setdefault(name, []).append(as_text(delta[name], f"choices[0].delta.{name}"))
        pieces = [as_object(call, "tool_calls[]") for call in as_list(delta.get("tool_calls") or [], "tool_calls")]
        for piece in pieces:
            self._add(piece)
        text = (delta.get("content") or "") + (delta.get("refusal") or "")
        return Delta(text, tuple(pieces)) if text or pieces else None

    def _add(self, piece: Body) -> None:
        """A piece of a tool call: its name and id once, its arguments bit by bit."""
        index = piece.get("index")
        if not isinstance(index, int):
            # Not every server numbers them: one that has an id is a new one.
            index = len(self._calls) if piece.get("id") or not self._calls else max(self._calls)
        call = self._calls.setdefault(index, {"type": "function", "function": {"name": "", "arguments": ""}})
        if piece.get("id"):
            call["id"] = piece["id"]
        function = piece.get("function") or {}
        for name in ("name", "arguments"):
            call["function"][name] += as_text(function.get(name) or "", f"tool_calls[].function.{name}")

    def answer(self) -> Answer:
        message: dict[str, Any] = {name: "".join(texts) for name, texts in self._texts.items()}
        if self._calls:
            message["tool_calls"] = [call for _, call in sorted(self._calls.items())]
            # An empty text before a call is none, as it is unstreamed.
            message["content"] = message.get("content") or None
        whole = {**self._answer, "choices": [{"message": message, "finish_reason": self._finish}]}
        if tokens_in(whole.get("usage")) != UNCOUNTED:
            return self._to_answer(whole)
        # Not every server that speaks this format can say in a stream what it has used.
        return replace(self._to_answer({**whole, "usage": later(whole["usage"], self._estimate())}), is_estimated=True)

    def used(self) -> Tokens | None:
        """What has come so far was written at least. Most say it at the end only; Perplexity with every piece."""
        if not (self._texts or self._calls):
            return None
        estimate, told = self._estimate(), chat_tokens(self._answer)
        return told.model_copy(update={name: max(count, getattr(told, name)) for name, count in estimate.items()})

    def _estimate(self) -> dict[str, int]:
        texts = [text for texts in self._texts.values() for text in texts]
        texts += [call["function"]["arguments"] for call in self._calls.values()]
        written = sum(len(text.encode(errors="replace")) for text in texts)
        return {"prompt_tokens": self._prompt_tokens, "completion_tokens": tokens_of(written)}

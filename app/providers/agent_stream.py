"""A streamed answer of Perplexity's Agent API, put together again.

Source: the events of its published API schema. `response.output_text.delta` brings text, `response.output_item.done` a
call of a tool in one piece, and `response.completed` the whole answer with its usage, so nothing has to be put
together; `response.failed` says that it has failed, and `response.incomplete` that it is cut at a limit.
"""

from __future__ import annotations

from app.providers.agent_wire import answer_of, call_of
from app.providers.heartbeat import is_heartbeat
from app.providers.reported import ReportedError, error_in
from app.providers.text import Pieces, mended_all
from app.providers.wire import Body, MalformedAnswerError, as_object, as_text, read_event
from schemas.usage import Tokens
from streams.dispatch.ports import Answer, Delta
from streams.tokens import tokens_of

DONE = "[DONE]"


class AgentStream:
    """Implements `app.providers.stream.StreamedAnswer`; `prompt_tokens` is the estimate if the stream breaks off."""

    def __init__(self, prompt_tokens: int = 0) -> None:
        self._prompt_tokens = prompt_tokens
        self._text = Pieces()
        #: Bytes of the arguments of calls.
        self._written = 0
        self._calls = 0
        self._whole: Body | None = None

    @property
    def is_complete(self) -> bool:
        return self._whole is not None

    def take(self, event: str | None, data: str) -> Delta | None:
        data = data.strip()
        if data.strip('"').upper() == DONE or (event != "error" and is_heartbeat(data)):
            return None
        if data[:1] != "{":
            raise ReportedError(data)
        body = as_object(read_event(data, exactly=True), "it")
        kind = body.get("type") or event
        if kind in ("response.failed", "error") or (not body.get("type") and (error := error_in(body)) is not None):
            raise ReportedError(body if kind in ("response.failed", "error") else error)
        if kind in ("response.completed", "response.incomplete"):
            self._whole = as_object(mended_all(body.get("response")), "response")
        if kind == "response.output_item.done":
            return self._item(as_object(body.get("item"), "item"))
        if kind != "response.output_text.delta":
            return None
        text = self._text.add(as_text(body.get("delta"), "delta"))
        return Delta(text) if text else None

    def end(self, *, is_cut: bool = False) -> Delta | None:  # noqa: ARG002 - the end has an event of its own
        text = self._text.end()
        return Delta(text) if text else None

    def _item(self, item: Body) -> Delta | None:
        if item.get("type") != "function_call":
            return None
        call = {"index": self._calls, **call_of(mended_all(item))}
        self._calls += 1
        self._written += len(call["function"]["arguments"].encode(errors="replace"))
        return Delta(tool_calls=(call,))

    def answer(self) -> Answer:
        if self._whole is None:
            raise MalformedAnswerError("it is not complete")
        return answer_of(self._whole)

    def used(self) -> Tokens | None:
        """The provider says it at the end only; what has come so far was written at least."""
        written = self._written + self._text.size
        if not written:
            return None
        return Tokens(prompt_tokens=self._prompt_tokens, completion_tokens=tokens_of(written))

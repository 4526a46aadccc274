"""A streamed message of Claude's, put together again.

What comes out is the object that the same call would have brought unstreamed. Source: "Streaming messages" of
Anthropic's documentation: `message_start` has the message without content and the prompt's usage, blocks begin, grow
and stop by their index, `message_delta` has the reason for the end and the usage so far (cumulative), `message_stop`
is the end. `ping` and events of a kind that is not known yet may come at any time. Gateways may send the whole input of
a tool's call as its block begins, or the whole message at once.
"""

from __future__ import annotations

from typing import Any

from app.providers.claude_wire import answer_of, tokens_of_usage
from app.providers.heartbeat import is_heartbeat
from app.providers.reported import ReportedError, error_in
from app.providers.text import Pieces, dump, mended_all
from app.providers.usage_wire import later
from app.providers.wire import Body, MalformedAnswerError, as_list, as_object, as_text, read_event
from schemas.usage import Tokens
from streams.dispatch.ports import Answer, Delta
from streams.tokens import tokens_of

DONE = "[DONE]"


class ClaudeStream:
    """Implements `app.providers.stream.StreamedAnswer`."""

    def __init__(self) -> None:
        self._message: Body = {}
        self._blocks: dict[int, Body] = {}
        #: What has been written of each block: its text, or the arguments of its call.
        self._written: dict[int, Pieces] = {}
        self._thoughts = Pieces()
        #: Which call a block is.
        self._tools: dict[int, int] = {}
        #: Searches that have begun. Their number is told at the end only, and each is paid for.
        self._searches = 0
        self.is_complete = False

    def take(self, event: str | None, data: str) -> Delta | None:
        data = data.strip()
        if data.strip('"').upper() == DONE or (event != "error" and is_heartbeat(data)):
            # Some gateways put OpenAI's mark behind the end: it says nothing here.
            return None
        if data[:1] not in ("{", "["):
            raise ReportedError(data)
        read = read_event(data)
        body = read if isinstance(read, dict) else {}
        kind = body.get("type")
        if (kind is None or kind == "error" or event == "error") and (error := error_in(read)) is not None:
            raise ReportedError(error)
        return self._take(kind, as_object(read, "it"))

    def _take(self, kind: object, body: Body) -> Delta | None:
        match kind:
            case "message_start":
                self._message = as_object(body.get("message"), "message")
            case "content_block_start":
                return self._start(_index(body), as_object(body.get("content_block"), "content_block"))
            case "content_block_delta":
                return self._grow(_index(body), as_object(body.get("delta"), "delta"))
            case "content_block_stop":
                return self._stop(_index(body))
            case "message_delta":
                self._end(body)
            case "message_stop":
                self.is_complete = True
                return self.end()
            case "message":
                return self._whole_message(body)
        return None

    def _whole_message(self, message: Body) -> Delta | None:
        """The whole of it, where a stream was asked for."""
        self._message = {name: value for name, value in message.items() if name != "content"}
        told = [self._start(index, as_object(block, "content[]")) for index, block in enumerate(_content(message))]
        self.is_complete = True
        return _joined([*told, self.end()])

    def _end(self, body: Body) -> None:
        delta = as_object(body.get("delta") or {}, "delta")
        self._message |= {name: value for name, value in delta.items() if value is not None}
        self._message["usage"] = later(self._message.get("usage"), body.get("usage"))

    def _start(self, index: int, block: Body) -> Delta | None:
        self._blocks[index] = dict(block)
        written = self._written[index] = Pieces()
        if block.get("type") == "text" and block.get("text"):
            return Delta(written.add(as_text(block["text"], "content_block.text")))
        if block.get("type") == "server_tool_use" and block.get("name") == "web_search":
            self._searches += 1
        if block.get("type") != "tool_use":
            return None
        self._tools[index] = len(self._tools)
        function = {"name": block.get("name"), "arguments": ""}
        return Delta(
            tool_calls=({"index": self._tools[index], "id": block.get("id"), "type": "function", "function": function},)
        )

    def _grow(self, index: int, delta: Body) -> Delta | None:
        if index not in self._blocks:
            raise MalformedAnswerError("a block grows that has not begun")
        if delta.get("type") == "text_delta":
            return _text(self._written[index].add(as_text(delta.get("text"), "delta.text")))
        if delta.get("type") == "input_json_delta" and index in self._tools:
            return self._arguments(index, self._written[index].add(_as_json(delta.get("partial_json"))))
        # Thinking and its signature are no part of the answer; it is paid for.
        if isinstance(thought := delta.get("thinking"), str):
            self._thoughts.add(thought)
        return None

    def _stop(self, index: int) -> Delta | None:
        """A call whose input came complete with its beginning has not been told yet."""
        given, written = self._blocks.get(index, {}).get("input"), self._written.get(index)
        if index not in self._tools or not given or written is None or written.size:
            return None
        return self._arguments(index, written.add(_as_json(given)))

    def _arguments(self, index: int, piece: str) -> Delta:
        return Delta(tool_calls=({"index": self._tools[index], "function": {"arguments": piece}},))

    def end(self, *, is_cut: bool = False) -> Delta | None:  # noqa: ARG002 - the end has an event of its own
        """Calls whose block was not ended, and half characters."""
        stopped = [self._stop(index) for index in self._blocks]
        rest = "".join(pieces.end() for index, pieces in self._written.items() if index not in self._tools)
        return _joined([*stopped, _text(rest)])

    def answer(self) -> Answer:
        blocks = [self._whole(index, block) for index, block in sorted(self._blocks.items())]
        return answer_of(mended_all({**self._message, "content": blocks}))

    def _whole(self, index: int, block: Body) -> dict[str, Any]:
        written = self._written[index].text
        if index in self._tools:
            return {**block, "input": _parsed(written)} if written else block
        return {**block, "text": written} if block.get("type") == "text" else block

    def used(self) -> Tokens | None:
        """The prompt as Claude has counted it, and the answer so far: estimated, or what Claude says if it is more."""
        usage = self._message.get("usage")
        if not isinstance(usage, dict):
            return None
        told = tokens_of_usage(usage)
        size = self._thoughts.size + sum(pieces.size for pieces in self._written.values())
        return told.model_copy(
            update={
                "completion_tokens": max(tokens_of(size), told.completion_tokens),
                "search_requests": max(self._searches, told.search_requests),
            }
        )


def _joined(deltas: list[Delta | None]) -> Delta | None:
    told = [delta for delta in deltas if delta is not None]
    text, calls = "".join(delta.content for delta in told), tuple(call for delta in told for call in delta.tool_calls)
    return Delta(text, calls) if text or calls else None


def _text(text: str) -> Delta | None:
    return Delta(text) if text else None


def _content(message: Body) -> list[Any]:
    content = message.get("content")
    return [{"type": "text", "text": content}] if isinstance(content, str) else as_list(content, "content")


def _as_json(given: object) -> str:
    """The input of a call as text: a piece of it, nothing, or all of it as an object."""
    if given is None or isinstance(given, str):
        return given or ""
    return dump(as_object(given, "delta.partial_json"))


def _parsed(written: str) -> object:
    """The input that was written; what is no JSON, or only half of it, stays as it is."""
    try:
        read = read_event(written)
    except MalformedAnswerError:
        return written
    return read if isinstance(read, dict) else written


def _index(body: Body) -> int:
    index = body.get("index")
    if isinstance(index, bool) or not isinstance(index, int):
        raise MalformedAnswerError("index is missing")
    return index

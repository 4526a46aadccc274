"""A streamed message of Claude's, put together again.

What comes out is the object that the same call would have brought unstreamed. Source: "Streaming messages" of
Anthropic's documentation: `message_start` has the message without content and the prompt's usage, blocks begin, grow
and stop by their index, `message_delta` has the reason for the end and the usage so far (cumulative), `message_stop`
is the end. `ping` and events of a kind that is not known yet may come at any time.
"""

from __future__ import annotations

from typing import Any

from app.providers.claude_wire import answer_of, tokens_of_usage
from app.providers.stream import StreamError
from app.providers.usage_wire import later
from app.providers.wire import Body, MalformedAnswerError, as_object, as_text, read_object
from schemas.usage import Tokens
from streams.dispatch.ports import Answer, Delta
from streams.tokens import tokens_of


class ClaudeStream:
    """Implements `app.providers.stream.StreamedAnswer`."""

    def __init__(self) -> None:
        self._message: Body = {}
        self._blocks: dict[int, Body] = {}
        #: The arguments of the tool calls as they grow, by block; and which call a block is.
        self._arguments: dict[int, list[str]] = {}
        self._tools: dict[int, int] = {}
        self._written = 0
        #: Searches that have begun. Their number is told at the end only, and each is paid for.
        self._searches = 0
        self.is_complete = False

    @property
    def has_begun(self) -> bool:
        return bool(self._message)

    def take(self, event: str | None, data: str) -> Delta | None:  # noqa: ARG002 - the data names its type as well
        body = read_object(data.encode())
        match body.get("type"):
            case "message_start":
                self._message = as_object(body.get("message"), "message")
            case "content_block_start":
                return self._start(_index(body), as_object(body.get("content_block"), "content_block"))
            case "content_block_delta":
                return self._grow(_index(body), as_object(body.get("delta"), "delta"))
            case "message_delta":
                self._message |= as_object(body.get("delta"), "delta")
                self._message["usage"] = later(self._message.get("usage"), body.get("usage"))
            case "message_stop":
                self.is_complete = True
            case "error":
                raise StreamError(body)
        return None

    def _start(self, index: int, block: Body) -> Delta | None:
        self._blocks[index] = dict(block)
        if block.get("type") == "text" and block.get("text"):
            text = as_text(block["text"], "content_block.text")
            self._written += len(text.encode(errors="replace"))
            return Delta(text)
        if block.get("type") == "server_tool_use" and block.get("name") == "web_search":
            self._searches += 1
        if block.get("type") != "tool_use":
            return None
        self._arguments[index], self._tools[index] = [], len(self._tools)
        function = {"name": block.get("name"), "arguments": ""}
        return Delta(
            tool_calls=({"index": self._tools[index], "id": block.get("id"), "type": "function", "function": function},)
        )

    def _grow(self, index: int, delta: Body) -> Delta | None:
        block = self._blocks.get(index)
        if block is None:
            raise MalformedAnswerError("a block grows that has not begun")
        if delta.get("type") == "text_delta":
            text = as_text(delta.get("text"), "delta.text")
            block["text"] = block.get("text", "") + text
            self._written += len(text.encode(errors="replace"))
            return Delta(text)
        if delta.get("type") == "input_json_delta" and index in self._tools:
            piece = as_text(delta.get("partial_json"), "delta.partial_json")
            self._arguments[index].append(piece)
            self._written += len(piece)
            return Delta(tool_calls=({"index": self._tools[index], "function": {"arguments": piece}},))
        # Thinking and its signature are no part of the answer; it is paid for.
        if isinstance(thought := delta.get("thinking"), str):
            self._written += len(thought.encode(errors="replace"))
        return None

    def answer(self) -> Answer:
        blocks = [self._whole(index, block) for index, block in sorted(self._blocks.items())]
        return answer_of({**self._message, "content": blocks})

    def _whole(self, index: int, block: Body) -> dict[str, Any]:
        written = "".join(self._arguments.get(index, ()))
        return {**block, "input": read_object(written.encode())} if written else block

    def used(self) -> Tokens | None:
        """The prompt as Claude has counted it, and the answer so far: estimated, or what Claude says if it is more."""
        usage = self._message.get("usage")
        if not isinstance(usage, dict):
            return None
        told = tokens_of_usage(usage)
        return told.model_copy(
            update={
                "completion_tokens": max(tokens_of(self._written), told.completion_tokens),
                "search_requests": max(self._searches, told.search_requests),
            }
        )


def _index(body: Body) -> int:
    index = body.get("index")
    if not isinstance(index, int):
        raise MalformedAnswerError("index is missing")
    return index

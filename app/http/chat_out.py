"""A response of the contract as OpenAI's chat completion, whole or in pieces. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from app.client.pieces import Piece
from schemas.response import Response, Usage

END = b"data: [DONE]\n\n"


def completion(response: Response, asked: str) -> dict[str, Any]:
    """The whole answer. `asked` is the model that was asked for, where the response names none."""
    message: dict[str, Any] = {"role": "assistant", "content": response.content, "refusal": None}
    if response.tool_calls:
        message["tool_calls"] = list(response.tool_calls)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": response.finish_reason or "stop"}
    return {
        "id": _id(response.request_id),
        "object": "chat.completion",
        "created": int(response.answered_at.timestamp()),
        "model": response.model or asked,
        "choices": [choice],
        "usage": usage(response.usage),
        **more(response),
    }


def usage(used: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "total_tokens": used.total_tokens,
        "prompt_tokens_details": {"cached_tokens": used.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": used.reasoning_tokens},
    }


def more(response: Response) -> dict[str, Any]:
    """What OpenAI's format has no place for: sources, who answered, and what it cost, in US dollars as text."""
    told: dict[str, Any] = {
        "request_id": response.request_id,
        "workspace_id": response.workspace_id,
        "provider": response.provider,
        "cost": f"{response.usage.cost:.9f}",
        "cached": response.cached,
        "attempts": len(response.attempts),
    }
    if response.finish_reason_raw is not None:
        told["finish_reason_raw"] = response.finish_reason_raw
    if response.warnings:
        told["warnings"] = [warning.model_dump() for warning in response.warnings]
    citations = {"citations": list(response.citations)} if response.citations else {}
    return {**citations, "spillway": told}


@dataclass
class ChunkWriter:
    """One streamed answer as server-sent events. `created` is in seconds since 1970."""

    request_id: str
    model: str
    created: int
    include_usage: bool = False

    def begin(self) -> bytes:
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def piece(self, piece: Piece) -> bytes:
        told = {"content": piece.content, "tool_calls": list(piece.tool_calls)}
        return self._chunk({name: value for name, value in told.items() if value})

    def end(self, response: Response) -> bytes:
        """The reason of the end, the usage if that is wanted, and the mark behind which nothing comes."""
        self.model = response.model or self.model
        last = self._chunk({}, response.finish_reason or "stop", **more(response))
        used = self._event([], usage=usage(response.usage)) if self.include_usage else b""
        return last + used + END

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None, **extra: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        if self.include_usage:
            extra["usage"] = None
        return self._event([choice], **extra)

    def _event(self, choices: list[dict[str, Any]], **extra: Any) -> bytes:
        return event(
            {
                "id": _id(self.request_id),
                "object": "chat.completion.chunk",
                "created": self.created,
                "model": self.model,
                "choices": choices,
                **extra,
            }
        )


def event(data: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


def _id(request_id: str) -> str:
    return f"chatcmpl-{request_id}"

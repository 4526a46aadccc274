"""A small real server for what the simulator does not have: vectors as base64, Perplexity's Agent API and Search API.

It takes nothing that the published formats do not allow, and keeps every body that it was sent.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

FIELDS = {
    "/v1/embeddings": {"model", "input", "encoding_format", "dimensions", "user"},
    "/search": {"query", "max_results", "country", "search_domain_filter", "search_recency_filter", "search_mode"},
    "/v1/agent": {
        *("model", "input", "instructions", "max_output_tokens", "tools", "response_format", "stream"),
        *("max_steps", "reasoning", "language_preference"),
    },
}
PAGE = {
    "id": 1,
    "title": "Tides",
    "url": "https://shom.fr/tides",
    "snippet": "High water at noon.",
    "date": "2026-11-01",
}
TEXT = ("At ", "noon.")


class Kinds:
    """What was asked, by path; and whether the next stream breaks off."""

    def __init__(self) -> None:
        self.bodies: list[tuple[str, dict[str, Any]]] = []
        self.breaks_off = False
        self.fail_at: int | None = None

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append((request.path, body))
        strange = set(body) - FIELDS[request.path]
        if strange or not request.headers.get("Authorization", "").startswith("Bearer "):
            return web.json_response({"error": {"message": f"unknown fields: {sorted(strange)}"}}, status=400)
        if self.fail_at == len(self.bodies):
            return web.json_response({"error": {"message": "busy", "type": "server_error"}}, status=500)
        if request.path == "/v1/embeddings":
            return web.json_response(_vectors(body))
        if request.path == "/search":
            return web.json_response({"id": "s", "results": [PAGE]})
        return await self._stream(request, body) if body.get("stream") else web.json_response(_agent(body))

    async def _stream(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        events: list[dict[str, Any]] = [{"type": "response.created"}]
        whole = _agent(body)
        if whole["output"][-1]["type"] == "message":
            events += [{"type": "response.output_text.delta", "delta": text} for text in TEXT]
        if not self.breaks_off:
            events += [{"type": "response.output_item.done", "item": item} for item in whole["output"]]
            events.append({"type": "response.completed", "response": whole})
        for event in events:
            await response.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
        return response


def vector_of(text: str, dimensions: int) -> str:
    """The vector of a text: its length, then zeros."""
    return base64.b64encode(struct.pack(f"<{dimensions}f", len(text), *[0.0] * (dimensions - 1))).decode()


def _vectors(body: dict[str, Any]) -> dict[str, Any]:
    texts, size = body["input"], body.get("dimensions", 1536)
    data = [{"index": n, "embedding": vector_of(text, size)} for n, text in enumerate(texts)]
    # In another order than they were asked in, which the interface allows: each has its index.
    return {
        "data": data[::-1],
        "model": body["model"],
        "usage": {"prompt_tokens": len(texts), "total_tokens": len(texts)},
    }


def _agent(body: dict[str, Any]) -> dict[str, Any]:
    """Some text; or a call of the function that is offered, until its result has come."""
    functions = [tool for tool in body.get("tools", ()) if tool["type"] == "function"]
    calls = functions and body["input"][-1]["type"] != "function_call_output"
    cost = {"currency": "USD", "input_cost": 0.00001, "output_cost": 0.00002, "total_cost": 0.00503}
    tools = {"web_search": {"invocation": 2}}
    usage = {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12, "tool_calls_details": tools, "cost": cost}
    status = "requires_action" if calls else "completed"
    whole = {"id": "r", "created_at": 0, "object": "response", "status": status, "model": body["model"]}
    found = {"type": "search_results", "results": [PAGE]}
    return {**whole, "output": [found, _call(functions[0]) if calls else _message()], "usage": usage}


def _message() -> dict[str, Any]:
    part = {"type": "output_text", "text": "".join(TEXT), "annotations": []}
    return {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]}


def _call(function: dict[str, Any]) -> dict[str, Any]:
    told = {"name": function["name"], "arguments": '{"port":"Saint-Malo"}'}
    return {"type": "function_call", "id": "f", "call_id": "call_1", "status": "completed", **told}


@asynccontextmanager
async def serving_kinds() -> AsyncIterator[tuple[str, Kinds]]:
    """The server's address, and the server."""
    kinds = Kinds()
    app = web.Application(client_max_size=8 * 1024 * 1024)
    for path in FIELDS:
        app.router.add_post(path, kinds.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}", kinds
    finally:
        await runner.cleanup()

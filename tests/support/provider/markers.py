"""Texts that nobody may read again, planted everywhere; and a provider that repeats all it is sent in its refusals."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from app.devstack.ports import HOST
from tests.support.provider.kinds import vector_of

#: What a request's text says is done with it: `act=refuse-400`.
ACT = re.compile(r"act=([a-z]+)(?:-(\d+))?")
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


class Marks(dict[str, str]):
    """Each place's own text, made when it is asked for, so that a find tells where it was planted."""

    def __missing__(self, place: str) -> str:
        mark = self[place] = f"mark-{place}-{uuid.uuid4().hex[:8]}"
        return mark

    def text(self, place: str, act: str = "answer") -> str:
        """A sentence with the mark in it, and with what JSON and addresses write in another way."""
        return f'act={act}: read "this"\nand {self[place]}, für alle'

    def found_in(self, text: str | bytes) -> set[str]:
        whole = text.encode() if isinstance(text, str) else text
        return {place for place, mark in self.items() if mark.encode() in whole}


@dataclass
class Parrot:
    """Speaks the providers' formats. `heard` is all that it was sent; slow calls end when they are released."""

    marks: Marks
    port: int = 0
    heard: list[str] = field(default_factory=list)
    slow: set[str] = field(default_factory=set)
    release: asyncio.Event = field(default_factory=asyncio.Event)

    def environment(self) -> dict[str, str]:
        base = f"http://{HOST}:{self.port}"
        return {
            "AI_CLAUDE_BASE_URL": f"{base}/anthropic",
            "AI_OPENAI_BASE_URL": f"{base}/v1",
            "AI_PERPLEXITY_BASE_URL": base,
            "AI_PERPLEXITY_INTERFACE": "agent",
            "AI_ALERT_WEBHOOK_URL": f"{base}/hook/{self.marks['webhook']}",
        }

    async def refuse_alert(self, request: web.Request) -> web.Response:
        self.heard.append(f"{request.path} {await request.text()}")
        return web.Response(status=500, text=request.path)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        told = {
            name: value for name, value in request.headers.items() if name.lower() in ("authorization", "x-api-key")
        }
        text = await request.text()
        self.heard.append(f"{request.path} {told} {text}")
        body = json.loads(text) if text else {}
        said = list(_leaves(body))
        # A look at the list of models has no body, and is refused as well. Without a word all is well.
        acts = [match for leaf in said for match in ACT.finditer(leaf) if match[1] != "answer"]
        act, status = (acts[0][1], int(acts[0][2] or 0)) if acts else ("answer", 0) if body else ("refuse", 401)
        if act == "slow" and await self._is_held(next(leaf for leaf in said if "act=slow" in leaf)):
            act = "answer"
        if act == "refuse":
            return web.json_response(self._refusal(told, said), status=status)
        if act == "noise":
            return web.Response(text=text, content_type="text/plain")
        if act == "shapeless":
            return web.json_response({"id": "x", "content": said, "choices": said, "data": said, "output": said})
        if body.get("stream"):
            return await self._stream(request, body, breaks=act == "breaks")
        return web.json_response(self._whole(request.path, body))

    async def _is_held(self, leaf: str) -> bool:
        if leaf not in self.slow:
            self.slow.add(leaf)
            await self.release.wait()
        return True

    def _refusal(self, told: Mapping[str, str], said: Iterable[str]) -> dict[str, Any]:
        """Every key that ever was, the one of this call, and all that was marked in it."""
        keys = " ".join((*told.values(), *(mark for place, mark in self.marks.items() if "key" in place)))
        quoted = "; ".join(leaf for leaf in said if "mark-" in leaf)
        return {"type": "error", "error": {"type": "invalid_request_error", "message": f"{quoted} sent with {keys}"}}

    def _whole(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        text = f"Your answer is {self.marks['answer']}."
        if path == "/v1/embeddings":
            size = body.get("dimensions", 1536)
            data = [{"index": n, "embedding": vector_of(one, size)} for n, one in enumerate(body["input"])]
            return {"data": data, "model": body["model"], "usage": USAGE}
        if path == "/search":
            page = {"title": self.marks["page-title"], "url": "https://shom.fr", "snippet": self.marks["page-snippet"]}
            return {"id": "s", "results": [page]}
        if path == "/anthropic/v1/messages":
            usage = {"input_tokens": 9, "output_tokens": 3}
            whole = {"id": "m", "type": "message", "role": "assistant", "model": body["model"], "usage": usage}
            return whole | {"content": [{"type": "text", "text": text}], "stop_reason": "end_turn"}
        arguments = json.dumps({"of": self.marks["answered-arguments"]})
        call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": arguments}}
        message = {"role": "assistant", "content": text, "tool_calls": [call] if body.get("tools") else []}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return {"id": "c", "object": "chat.completion", "model": body["model"], "choices": [choice], "usage": USAGE}

    async def _stream(self, request: web.Request, body: dict[str, Any], *, breaks: bool) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        common = {"id": "c", "object": "chat.completion.chunk", "model": body["model"]}
        events: list[Any] = [
            {**common, "choices": [{"index": 0, "delta": {"content": part}}]} for part in ("So: ", self.marks["chunk"])
        ]
        if breaks:
            events.append(self._refusal({}, _leaves(body)))
        else:
            events.append({**common, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            events.append({**common, "choices": [], "usage": USAGE})
        for event in events:
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response


def _leaves(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _leaves(part)


@asynccontextmanager
async def repeating(marks: Marks) -> AsyncIterator[Parrot]:
    """The provider on a free port; it is a webhook as well, which refuses."""
    parrot = Parrot(marks)
    app = web.Application()
    app.router.add_post("/hook/{secret}", parrot.refuse_alert)
    app.router.add_route("*", "/{path:.*}", parrot.answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    parrot.port = runner.addresses[0][1]
    try:
        yield parrot
    finally:
        parrot.release.set()
        await runner.cleanup()

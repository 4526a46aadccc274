"""The door's addresses: OpenAI's paths, each a request that goes through the topics and waits for its reply."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.client import SpillwayClient
from app.client.errors import checked
from app.client.pieces import Piece
from app.client.stream import AnswerStream
from app.http.bridge import Bridge, Events, Work, answer_of
from app.http.chat_in import DEFAULT_MODEL, completion_fields
from app.http.chat_out import ChunkWriter, completion
from app.http.embeddings import embedding_fields, embedding_list
from app.http.incoming import TIMEOUT, json_of, timeout_of
from app.http.keys import Gate
from app.http.problems import Problem
from app.settings import Settings
from streams.logs import about

log = logging.getLogger(__name__)

WORKSPACE = "x-spillway-workspace"

Fields = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """What came in: the body, and the contract's fields that its headers decide."""

    body: dict[str, Any]
    common: Fields

    @property
    def model(self) -> str:
        return str(self.body.get("model"))

    @property
    def is_streamed(self) -> bool:
        return bool(self.body.get("stream"))


class Door:
    """Brings requests to the stream and answers back; decides nothing but who comes in."""

    def __init__(self, settings: Settings, client: SpillwayClient, gate: Gate) -> None:
        self._settings = settings
        self._client = client
        self._gate = gate
        self._dialect = ("openai", *settings.named_providers())
        self._models = _models(settings)

    def routes(self) -> list[Route]:
        return [
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/embeddings", self.embeddings, methods=["POST"]),
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/v1/models/{model:path}", self.model, methods=["GET"]),
            Route("/health", self.health, methods=["GET"]),
        ]

    async def chat(self, request: Request) -> Bridge:
        asked = await self._read(request)
        fields = completion_fields(asked.body, self._dialect) | asked.common
        if not asked.is_streamed:
            return self._bridge(request, fields, lambda: self._whole(fields, asked, completion))
        return self._bridge(request, fields, lambda: self._events(fields, asked))

    async def embeddings(self, request: Request) -> Bridge:
        asked = await self._read(request)
        fields = embedding_fields(asked.body, self._dialect) | asked.common
        return self._bridge(request, fields, lambda: self._whole(fields, asked, embedding_list))

    async def models(self, request: Request) -> Response:
        self._enter(request)
        return JSONResponse({"object": "list", "data": list(self._models.values())})

    async def model(self, request: Request) -> Response:
        self._enter(request)
        name = request.path_params["model"]
        if name not in self._models:
            known = ", ".join(self._models)
            raise Problem(404, "model_not_found", f"The model {name:.128} is not listed; listed are: {known}.", "model")
        return JSONResponse(self._models[name])

    async def health(self, _: Request) -> Response:
        """Whether replies are being read."""
        if self._client.is_open:
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "replies are not read"}, 503)

    def _bridge(self, request: Request, fields: Fields, work: Work) -> Bridge:
        told = request.headers.get("traceparent")
        return Bridge(fields["request_id"], work, request.url.path, fields["workspace_id"], traceparent=told)

    async def _whole(self, fields: Fields, asked: Asked, shape: Callable[..., dict[str, Any]]) -> Response:
        response = checked(await self._client.request(fields))
        return Response(orjson.dumps(shape(response, asked.model)), media_type="application/json")

    async def _events(self, fields: Fields, asked: Asked) -> Events:
        """Answer with a status when the first piece is there: until then it can still be an error's."""
        options = asked.body.get("stream_options") or {}
        writer = ChunkWriter(
            fields["request_id"],
            asked.model,
            int(time.time()),
            include_usage=isinstance(options, dict) and bool(options.get("include_usage")),
        )
        answer = self._client.open_stream(fields)
        try:
            first = await anext(answer, None)
        except BaseException:
            answer.close()
            raise
        return Events(writer.begin(), _rest(answer, first, writer), answer.close)

    async def _read(self, request: Request) -> Asked:
        workspace = self._enter(request)
        seconds = timeout_of(request.headers.get(TIMEOUT), self._settings.http_timeout)
        common = {"workspace_id": workspace, "request_id": str(uuid.uuid4()), "timeout": seconds}
        return Asked(await json_of(request), common)

    def _enter(self, request: Request) -> str:
        self._gate.refuse_pages(request.headers)
        return self._gate.workspace(request.headers.get("authorization"), request.headers.get(WORKSPACE))


async def _rest(answer: AnswerStream, first: Piece | None, writer: ChunkWriter) -> AsyncIterator[bytes]:
    """All after the beginning. Half an answer cannot be taken back here: one that begins anew ends with an error."""
    if first is not None:
        yield writer.piece(first)
    async for piece in answer:
        if piece.restarted:
            raise Problem(502, "stream_broken", "The answer broke off at the provider; ask again.")
        yield writer.piece(piece)
    yield writer.end(answer.response)


def _models(settings: Settings) -> dict[str, dict[str, Any]]:
    """The models that the settings name, `default` first. Others may be asked for: the stream knows who has them."""
    shipped = (settings.default_chat_model, settings.default_fast_model, settings.default_search_model)
    owners = dict.fromkeys((DEFAULT_MODEL, *shipped, settings.default_embedding_model), "spillway")
    for name, part in settings.named_providers().items():
        for model in (part.chat_model, part.embedding_model):
            if model:
                owners.setdefault(model, name)
    return {name: {"id": name, "object": "model", "created": 0, "owned_by": owner} for name, owner in owners.items()}


def _refused(request: Request, error: Exception) -> Response:
    """What is answered before anything is published."""
    if isinstance(error, Problem):
        problem = error
    elif isinstance(error, HTTPException):
        told = f"There is nothing at {request.method} {request.url.path:.200}."
        problem = Problem(error.status_code, "unknown_url", told)
    else:
        problem = Problem(500, "internal_error", "The door has failed; its log says why.")
    request_id = str(uuid.uuid4())
    log.info("http_refused: %d %s", problem.status, problem.code, extra=about(request_id))
    return answer_of(problem, request_id)


def build_app(door: Door) -> Starlette:
    """The ASGI application."""
    return Starlette(
        routes=door.routes(), exception_handlers=dict.fromkeys((Problem, HTTPException, Exception), _refused)
    )

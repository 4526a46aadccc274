"""The client: an application publishes a request, waits for its reply, and does not see Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Any, Unpack

from app.client.connection import Connection
from app.client.courier import Courier
from app.client.errors import ResultNotFound, checked
from app.client.lookup import Lookup
from app.client.outgoing import CompletionOptions, EmbeddingOptions, Outgoing, SearchOptions, outgoing, utc_now
from app.client.stream import AnswerStream
from app.kafka import Cluster
from app.security import KafkaSecurity
from schemas.base import DEFAULT_WORKSPACE
from schemas.response import Response
from streams.topology import REPLIES

#: Seconds beyond a request's deadline in which the stream can still say that it has passed.
GRACE = 2.0
#: Requests of one `publish_many` whose acknowledgement is awaited at the same time.
ON_THE_WAY = 1_000
#: How far `result` looks back.
LOOK_BACK = timedelta(hours=1)


class SpillwayClient:
    """Requests and their answers over Kafka. One per process and event loop; it may be used by any number of tasks.

    `timeout` (seconds) is how long a request may take unless it says otherwise: it becomes the request's deadline.
    `grace` is how long the client then still waits for the stream's own word on it. `reply_topic` must exist; all its
    records are read by each client, so a service with many requests may want one of its own. `security` is for brokers
    that want TLS or a login, `kafka` for any more options of aiokafka's clients.
    """

    def __init__(
        self,
        bootstrap_servers: str = "127.0.0.1:9092",
        *,
        workspace_id: str = DEFAULT_WORKSPACE,
        timeout: float = 60.0,
        grace: float = GRACE,
        reply_topic: str = REPLIES,
        security: KafkaSecurity | None = None,
        kafka: Mapping[str, Any] | None = None,
    ) -> None:
        options = {**(security or KafkaSecurity()).options, **(kafka or {})}
        self._connection = Connection(Cluster(bootstrap_servers, options))
        self._courier = Courier(self._connection, reply_topic, grace)
        self._workspace_id = workspace_id
        self._timeout = timeout
        self._reply_topic = reply_topic

    async def __aenter__(self) -> SpillwayClient:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Connect, and take the position from which no reply is missed. Raises ConnectionLostError."""
        await self._courier.start()

    async def close(self) -> None:
        """Leave. Whoever still waits gets ClientClosedError, and what they wait for is cancelled."""
        await self._courier.close()

    @property
    def is_open(self) -> bool:
        """Whether replies are being read."""
        return self._courier.is_open

    async def complete(self, prompt: str | None = None, **options: Unpack[CompletionOptions]) -> Response:
        """Text from a prompt or `messages`. Raises SpillwayError where there is no answer."""
        return checked(await self.request({"prompt": prompt, **options}))

    def stream(self, prompt: str | None = None, **options: Unpack[CompletionOptions]) -> AnswerStream:
        """As `complete`, with the pieces while they are written: `async with client.stream(…) as answer`."""
        return self.open_stream({"prompt": prompt, **options})

    async def embed(self, texts: str | Sequence[str], **options: Unpack[EmbeddingOptions]) -> Response:
        """Vectors of texts, in their order, in `embeddings`."""
        return checked(await self.request({"kind": "embedding", "input": texts, **options}))

    async def search(self, query: str, **options: Unpack[SearchOptions]) -> Response:
        """A web search: `content`, `citations`, `search_results`."""
        return checked(await self.request({"kind": "search", "query": query, **options}))

    async def request(self, fields: Mapping[str, Any]) -> Response:
        """Any request by the contract's fields; returns its terminal response, whatever its status.

        Raises RequestTimedOut when no word comes, and cancels the request. Cancelling the waiting task does the same.
        """
        request = self._asking(fields)
        waiter = self._courier.expect(request)
        answered = False
        try:
            async with self._courier.patience(request):
                await self._courier.send(request)
                response = await waiter.response()
            answered = True
        finally:
            self._courier.leave(waiter, cancel=not answered)
        return response

    def open_stream(self, fields: Mapping[str, Any]) -> AnswerStream:
        """Any completion by the contract's fields, streamed."""
        return AnswerStream(self._courier, self._asking({**fields, "stream": True}))

    async def publish(self, prompt: str | None = None, **options: Unpack[CompletionOptions]) -> str:
        """Publish a completion whose answer is not awaited here; returns its id. Without a `timeout` the deployment's
        own deadline holds. `result` finds the answer.
        """
        return (await self.publish_many([{"prompt": prompt, **options}]))[0]

    async def publish_many(self, requests: Iterable[Mapping[str, Any]]) -> list[str]:
        """Publish requests of any kind, by the contract's fields; returns their ids, in order, when all are with Kafka.

        Raises InvalidRequestError at the first that is none; those before it are on their way.
        """
        ids: list[str] = []
        on_the_way: list[Awaitable[None]] = []
        for fields in requests:
            request = outgoing(fields, workspace_id=self._workspace_id, timeout=None, reply_to=None, now=utc_now())
            ids.append(request.request_id)
            on_the_way.append(asyncio.ensure_future(self._courier.send(request)))
            if len(on_the_way) == ON_THE_WAY:
                await asyncio.gather(*on_the_way)
                on_the_way.clear()
        await asyncio.gather(*on_the_way)
        return ids

    async def cancel(self, request_id: str, *, workspace_id: str | None = None) -> None:
        """Say that nobody wants the answer any more; returns when Kafka has it."""
        await self._courier.cancel(request_id, workspace_id or self._workspace_id)

    async def result(
        self,
        request_id: str,
        *,
        workspace_id: str | None = None,
        look_back: timedelta = LOOK_BACK,
        timeout: float | None = None,  # noqa: ASYNC109 - how long to wait is a part of the question
    ) -> Response:
        """The answer of a request that was published before, by this process or another.

        The workspace's partition of `ai.responses` is read from `look_back` ago on; with `timeout` (seconds) also what
        comes within it. Raises ResultNotFound, and what `complete` raises.
        """
        lookup = Lookup(request_id, workspace_id or self._workspace_id)
        found: Response | None = None
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                found = await lookup.find(self._connection, utc_now() - look_back, wait=timeout is not None)
        if found is None:
            told = f"No response to {request_id} was given in the last {look_back}."
            raise ResultNotFound(told, request_id=request_id)
        return checked(found)

    def _asking(self, fields: Mapping[str, Any]) -> Outgoing:
        """A request whose answer comes to this client."""
        return outgoing(
            fields,
            workspace_id=self._workspace_id,
            timeout=self._timeout,
            reply_to=self._reply_topic,
            now=utc_now(),
        )

"""The door as a process: it opens when it can reach Kafka, and closes when the open requests have their answers."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator

import uvicorn

from app.client import SpillwayClient
from app.http.door import Door, build_app
from app.http.keys import Gate, KeyBook
from app.http.process import Server, is_loopback, listening
from app.kafka import cluster_of, explained
from app.settings import Settings, SettingsError
from app.tracing.setup import tracing
from streams.runtime.broadcast import Broadcast
from streams.topology import API_KEYS

log = logging.getLogger(__name__)

#: Requests whose connections may wait to be accepted.
BACKLOG = 2_048
#: Seconds for which an idle connection is kept.
KEEP_ALIVE = 75


async def serve(settings: Settings, *, is_open: bool = False) -> None:
    """Serve until SIGTERM or SIGINT. `is_open`: without keys, on loopback only. Raises SettingsError."""
    if is_open and not is_loopback(settings.http_host):
        raise SettingsError(
            f"AI_HTTP_HOST: {settings.http_host} is not loopback; a door without keys opens there only."
        )
    book = None if is_open else KeyBook()
    client = SpillwayClient(
        settings.kafka_bootstrap_servers,
        timeout=settings.http_timeout,
        reply_topic=settings.http_reply_topic,
        security=settings.kafka_security,
    )
    with tracing(settings, "spillway-http"):
        await _serve(settings, client, book)
    log.info("door_closed")


async def _serve(settings: Settings, client: SpillwayClient, book: KeyBook | None) -> None:
    async with client, _keys(settings, book):
        if book is not None and not book:
            log.warning("door_without_keys: nobody comes in; `spillway keys create` makes a key")
        config = uvicorn.Config(
            build_app(Door(settings, client, Gate(book))),
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=int(settings.stop_within()),
        )
        with listening(settings.http_host, settings.http_port, "AI_HTTP") as listener:
            log.info("door_open: http://%s:%d/v1", *listener.getsockname()[:2])
            await Server(config).serve([listener])


@contextlib.asynccontextmanager
async def _keys(settings: Settings, book: KeyBook | None) -> AsyncIterator[None]:
    """While the block runs, the book has every key that is valid: a new or revoked one within moments."""
    if book is None:
        yield
        return
    cluster = cluster_of(settings)
    topic = Broadcast(cluster.consumer, API_KEYS, book.apply)
    try:
        async with explained(cluster):
            await topic.start()
        yield
    finally:
        await topic.stop()

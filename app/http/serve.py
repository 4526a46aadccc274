"""The door as a process: it opens when it can reach Kafka, and closes when the open requests have their answers."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn
from aiokafka import AIOKafkaConsumer

from app.client import SpillwayClient
from app.http.door import Door, build_app
from app.http.keys import Gate, KeyBook
from app.kafka import explained
from app.settings import Settings, SettingsError
from streams.runtime.broadcast import Broadcast
from streams.topology import API_KEYS

log = logging.getLogger(__name__)

#: Requests whose connections may wait to be accepted.
BACKLOG = 2_048
#: Seconds for which an idle connection is kept.
KEEP_ALIVE = 75


class _Server(uvicorn.Server):
    """SIGTERM and Ctrl-C ask for an orderly stop, after which the process ends with 0, and not by the signal."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        yield

    def _stop(self) -> None:
        if not self.should_exit:
            log.info("door_stopping: finishing what is open")
        self.should_exit = True


async def serve(settings: Settings, *, is_open: bool = False) -> None:
    """Serve until SIGTERM or SIGINT. `is_open`: without keys, on loopback only. Raises SettingsError."""
    if is_open and not is_loopback(settings.http_host):
        raise SettingsError(
            f"AI_HTTP_HOST: {settings.http_host} is not loopback; a door without keys opens there only."
        )
    book = None if is_open else KeyBook()
    client = SpillwayClient(
        settings.kafka_bootstrap_servers, timeout=settings.http_timeout, reply_topic=settings.http_reply_topic
    )
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
            timeout_graceful_shutdown=int(settings.drain_timeout),
        )
        with _listening(settings) as listener:
            log.info("door_open: http://%s:%d/v1", *listener.getsockname()[:2])
            await _Server(config).serve([listener])
    log.info("door_closed")


def _listening(settings: Settings) -> socket.socket:
    host, port = settings.http_host, settings.http_port
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise SettingsError(f"AI_HTTP_HOST, AI_HTTP_PORT: {host}, port {port}: {reason}.") from None


@contextlib.asynccontextmanager
async def _keys(settings: Settings, book: KeyBook | None) -> AsyncIterator[None]:
    """While the block runs, the book has every key that is valid: a new or revoked one within moments."""
    if book is None:
        yield
        return
    servers = settings.kafka_bootstrap_servers
    topic = Broadcast(
        lambda: AIOKafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False), API_KEYS, book.apply
    )
    try:
        with explained(servers):
            await topic.start()
        yield
    finally:
        await topic.stop()


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

"""A network that can be cut: all that a process and the broker send each other goes through it, or is kept back."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from collections.abc import Callable

from app.devstack.ports import HOST

#: Bytes before each of Kafka's requests and answers: their size.
SIZE = 4
#: What is asked on connections to leaders of partitions: Produce, Fetch; and to the group's coordinator: OffsetCommit,
#: JoinGroup, Heartbeat, SyncGroup. Source: Kafka's protocol, "API keys".
LEADER, COORDINATOR = frozenset({0, 1}), frozenset({8, 11, 12, 14})


class Proxy:
    """Stands between Kafka's clients and a broker on `port`, in a thread of its own.

    A broker names its own address in what it answers; here it becomes the proxy's, so that clients stay with it. While
    the network is cut both sides keep their connections, and what they send arrives when it is mended.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._only: frozenset[int] | None = None
        self._server: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def cut(self, only: frozenset[int] | None = None) -> None:
        """Keep everything back, or what goes over connections on which one of these has ever been asked."""

        def clear() -> None:
            self._only = only
            self._open.clear()

        self._loop.call_soon_threadsafe(clear)

    def mend(self) -> None:
        self._loop.call_soon_threadsafe(self._open.set)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _start(self) -> int:
        self._open.set()
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for pipe in self._pipes:
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(HOST, self._port)
        mine, its = (f"{HOST}".encode() + struct.pack(">i", port) for port in (self.port, self._port))
        asked: set[int] = set()

        def note(body: bytes) -> bytes:
            asked.add(*struct.unpack(">h", body[:2]))
            return body

        pipes = [
            self._loop.create_task(self._pipe(reader, back, note, asked)),
            self._loop.create_task(self._pipe(there, writer, lambda body: body.replace(its, mine), asked)),
        ]
        self._pipes |= set(pipes)
        try:
            await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pipe in pipes:
                pipe.cancel()
                self._pipes.discard(pipe)
            for side in (writer, back):
                side.close()

    async def _pipe(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        change: Callable[[bytes], bytes],
        asked: set[int],
    ) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readexactly(SIZE)
                body = change(await reader.readexactly(struct.unpack(">i", head)[0]))
                if self._only is None or asked & self._only:
                    await self._open.wait()
                writer.write(head + body)
                await writer.drain()

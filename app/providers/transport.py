"""How the clients talk HTTP: limits, time-outs, and silence in the logs.

The SDKs' aiohttp transport takes less CPU time than their default one (bench/sdk_transport.py has the table).
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

import aiohttp
import httpx
import httpx2

#: Calls of one worker to one provider at a time. The dispatcher's own limit is lower: nothing waits in this pool.
MAX_CONNECTIONS = 1024
#: Seconds an idle connection is kept. A server that closes it at the moment of the next call makes that call's fate
#: uncertain, so ours is the first to give it up: before the five seconds of uvicorn, on which vLLM, LiteLLM and many
#: others run, and of Node's servers.
KEEPALIVE = 4.0
#: Seconds to connect. Short, because a call that never got through can be repeated without a doubt.
CONNECT_TIMEOUT = 10.0

#: Stands where an SDK insists on a key: each call brings its own, which takes its place.
KEY_OF_THE_CALL = "key-of-the-call"

#: What the SDKs tell of themselves, of this machine and of their own time-outs with each call. No provider needs it,
#: and it was a tenth of the CPU time of a call.
_OF_THE_SDK = ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")
_OF_THE_TRY = ("Retry-Count", "Timeout", "Read-Timeout")
UNTOLD = tuple(f"X-Stainless-{what}" for what in (*_OF_THE_SDK, *_OF_THE_TRY))

LIMITS = httpx2.Limits(
    max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS, keepalive_expiry=KEEPALIVE
)
#: The largest line of an answer's head, in bytes. aiohttp's own limit is 8 KiB, and gateways put policies, cookies and
#: traces into headers that are longer: the answer below such a head is good, and paid for.
MAX_HEADER = 64 * 1024
#: No time-out for reading: `VendorProvider` bounds the whole call, which a limit between two bytes would not.
TIMEOUT = httpx2.Timeout(None, connect=CONNECT_TIMEOUT)


class NotSentError(Exception):
    """The call was not permitted any more when its first byte would have gone out."""


class Permit:
    """Whether one attempt may go out: asked at its first exchange, right before that is sent. What is on the wire goes
    on, and so do the further exchanges of an attempt.
    """

    def __init__(self, may_send: Callable[[], bool]) -> None:
        self._may_send = may_send
        self._is_used = False

    def use(self) -> None:
        """Raises NotSentError."""
        if not self._is_used:
            if not self._may_send():
                raise NotSentError
            self._is_used = True


#: Of the attempt that the current task makes. What is asked beside attempts (a list of models) needs none.
permit: ContextVar[Permit | None] = ContextVar("permit", default=None)


def ask_permit() -> None:
    """To be asked when the connection is there and nothing of the call is on it. Raises NotSentError.

    Not before: connecting can take seconds, and the process may stand still in them.
    """
    if (asked := permit.get()) is not None:
        asked.use()


async def ask_at_the_wire(request: httpx.Request) -> None:
    """An httpx client's hook for each request: asks when its connection begins to send."""

    async def heard(event: str, _: object) -> None:
        if event.endswith("send_request_headers.started"):
            ask_permit()

    request.extensions["trace"] = heard


class PermittedConnector(aiohttp.TCPConnector):
    """Gives out a connection only to calls that may still be made."""

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp
    ) -> aiohttp.connector.Connection:
        connection = await super().connect(req, traces, timeout)
        try:
            ask_permit()
        except NotSentError:
            connection.close()
            raise
        return connection


def sdk_client(client: type[httpx2.AsyncClient]) -> httpx2.AsyncClient:
    """An SDK's client on aiohttp. It follows no redirect: the prompt would go to a host that nobody has named here, or
    the call would become another one.
    """
    made = client(limits=LIMITS, timeout=TIMEOUT, follow_redirects=False)
    # The SDKs offer no setting for how aiohttp connects; their transport does take a maker of sessions.
    for transport in (made._transport, *made._mounts.values()):
        if transport is not None and hasattr(transport, "ssl_context"):
            transport.client = partial(_session, transport.ssl_context)  # type: ignore[attr-defined]
    return made


def _session(ssl_context: ssl.SSLContext) -> aiohttp.ClientSession:
    """As the transport itself makes it, with room for long heads, and permits asked."""
    connector = PermittedConnector(keepalive_timeout=KEEPALIVE, ssl=ssl_context, limit=MAX_CONNECTIONS)
    return aiohttp.ClientSession(connector=connector, max_line_size=MAX_HEADER, max_field_size=MAX_HEADER)


def silence_clients() -> None:
    """At DEBUG the SDKs log requests with their prompts, and at INFO the HTTP libraries a line for each call."""
    for name in ("anthropic", "openai", "httpx", "httpx2", "httpcore", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)

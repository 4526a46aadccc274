"""Why ClickHouse cannot be reached, in words that are true."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from app.clickhouse.client import ClickHouse
from app.clickhouse.errors import ClickHouseError, explained
from app.settings import Settings

ADDRESS = "http://127.0.0.1:8123"
CLOSED = "ClickHouse at http://127.0.0.1:8123 has closed the connection"


def told(error: Exception, *, has_answered: bool) -> str:
    with pytest.raises(ClickHouseError) as raised, explained(ADDRESS, "me", 3, lambda: has_answered):
        raise error
    return str(raised.value)


def behind(error: Exception, cause: Exception) -> Exception:
    """As the client raises it: the cause is in its depth."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        aiohttp.ServerDisconnectedError(),
        behind(aiohttp.ClientError("x"), ConnectionResetError()),
        behind(aiohttp.ClientError("x"), ssl.SSLEOFError()),
    ],
    ids=["closed", "reset", "end in the middle of TLS"],
)
def test_a_server_that_has_answered_and_closes_the_connection_has_no_other_way_of_talking(error: Exception) -> None:
    assert told(error, has_answered=True) == f"{CLOSED}; is it still running?"
    first = told(error, has_answered=False)
    assert first.startswith(f"{CLOSED} without an answer; is it running, and does that port use TLS")


@pytest.mark.parametrize("has_answered", [True, False])
def test_a_refusal_of_tls_itself_is_told_as_such(has_answered: bool) -> None:
    said = told(
        behind(aiohttp.ClientError("x"), ssl.SSLError(1, "alert certificate required")), has_answered=has_answered
    )
    assert "does not agree with us on TLS" in said
    assert "want a certificate of ours (AI_CLICKHOUSE_CERTIFICATE_FILE)?" in said


@pytest.mark.parametrize("has_answered", [True, False])
def test_where_nobody_listens_nothing_is_said_of_tls(has_answered: bool) -> None:
    said = told(behind(aiohttp.ClientError("x"), ConnectionRefusedError()), has_answered=has_answered)
    assert said.endswith("does not answer; is it running, and is AI_CLICKHOUSE_URL right?")


async def test_a_port_that_hangs_up_on_the_first_word_may_want_tls() -> None:
    async with hanging_up() as port, ClickHouse(Settings(clickhouse_url=f"http://127.0.0.1:{port}")) as database:
        with pytest.raises(ClickHouseError, match=r"closed the connection without an answer; .* use TLS"):
            await database.query("SELECT 1")


@asynccontextmanager
async def hanging_up() -> AsyncIterator[int]:
    """The port of a server that reads and says nothing."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]

"""The connection to ClickHouse: made when it is first needed, and again after the server was away.

The client is clickhouse-connect's own asynchronous one. Measured against a thread pool around its synchronous one, the
CPU time per inserted row is the same, and nothing has to be handed to a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from app.clickhouse.errors import explained
from app.settings import Settings

if TYPE_CHECKING:
    from clickhouse_connect.driver import AsyncClient

#: Seconds.
CONNECT_TIMEOUT = 3.0
REQUEST_TIMEOUT = 15.0

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Rows:
    """A result: the columns' names, and the rows."""

    names: tuple[str, ...]
    rows: list[Row]


class ClickHouse:
    """One user's connection to one database. Every method raises ClickHouseError, and nothing else.

    The HTTP connections below it are kept and reused; a server that comes back is found by the next call.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        use_database: bool = True,
        reader: bool = False,
        timeout: float = REQUEST_TIMEOUT,
    ) -> None:
        self._url = settings.clickhouse_url
        self._database = settings.clickhouse_database if use_database else None
        self._user, password = _login(settings, reader=reader)
        self._password = password
        self._tls = _tls(settings, password)
        self._timeout = timeout
        self._client: AsyncClient | None = None
        self._connecting = asyncio.Lock()

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None, **server_settings: Any) -> Rows:
        """The result of a statement that reads; `{name:Type}` in it stands for a parameter."""
        with self._explained():
            async with asyncio.timeout(self._timeout):
                client = await self._connected()
                result = await client.query(sql, dict(parameters or {}), settings=server_settings or None)
        return Rows(tuple(result.column_names), [tuple(row) for row in result.result_rows])

    async def command(self, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Run a statement that has no result."""
        with self._explained():
            async with asyncio.timeout(self._timeout):
                client = await self._connected()
                await client.command(sql, parameters=dict(parameters or {}))

    async def insert(
        self,
        table: str,
        columns: Sequence[Sequence[Any]],
        names: Sequence[str],
        types: Sequence[str],
        **server_settings: Any,
    ) -> None:
        """Insert whole columns, in one block. The rows are stored when this returns."""
        with self._explained():
            async with asyncio.timeout(self._timeout):
                client = await self._connected()
                await client.insert(
                    table,
                    columns,
                    column_names=names,
                    column_type_names=types,
                    column_oriented=True,
                    settings=server_settings,
                )

    async def raw(self, sql: str, output_format: str, **server_settings: Any) -> bytes:
        """The server's own rendering of a result."""
        with self._explained():
            async with asyncio.timeout(self._timeout):
                client = await self._connected()
                found: bytes = await client.raw_query(sql, fmt=output_format, settings=server_settings or None)
                return found

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def __aenter__(self) -> ClickHouse:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _explained(self) -> AbstractContextManager[None]:
        # A client is made by asking the server who it is.
        return explained(self._url, self._user, self._timeout, lambda: self._client is not None)

    async def _connected(self) -> AsyncClient:
        if self._client is None:
            async with self._connecting:
                if self._client is None:
                    self._client = await self._connect()
        return self._client

    async def _connect(self) -> AsyncClient:
        import clickhouse_connect  # noqa: PLC0415 - takes long to import, and most commands do without

        address = urlsplit(self._url)
        secure = address.scheme == "https"
        return await clickhouse_connect.get_async_client(
            host=address.hostname or "127.0.0.1",
            port=address.port or (8443 if secure else 8123),
            secure=secure,
            **(self._tls if secure else {}),
            proxy_path=address.path.strip("/"),
            username=self._user,
            password=self._password,
            database=self._database,
            connect_timeout=CONNECT_TIMEOUT,
            send_receive_timeout=self._timeout,
            # A session would force its statements one after the other.
            autogenerate_session_id=False,
            # Who repeats a statement is decided here, not below.
            query_retries=0,
            compress=False,
        )


def _tls(settings: Settings, password: str) -> dict[str, Any]:
    """The client's own names for it. A certificate beside a password is shown; one without is the login."""
    files = (settings.clickhouse_ca_file, settings.clickhouse_certificate_file, settings.clickhouse_key_file)
    ca, certificate, key = (str(file) if file is not None else None for file in files)
    mode = ("strict" if password else "mutual") if certificate is not None else None
    return {
        "verify": settings.clickhouse_verify,
        "ca_cert": ca,
        "client_cert": certificate,
        "client_cert_key": key,
        "tls_mode": mode,
    }


def _login(settings: Settings, *, reader: bool) -> tuple[str, str]:
    if reader and settings.clickhouse_reader_password is not None:
        return settings.clickhouse_reader_user, settings.clickhouse_reader_password.get_secret_value()
    return settings.clickhouse_user, settings.clickhouse_password.get_secret_value()

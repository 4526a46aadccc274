"""What our HTTP servers have in common as processes: where they listen, and how they stop."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import socket
from collections.abc import Iterator

import uvicorn

from app.settings import SettingsError

log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """SIGTERM and Ctrl-C ask for an orderly stop, after which the process ends with 0, and not by the signal."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        yield

    def _stop(self) -> None:
        if not self.should_exit:
            log.info("server_stopping: finishing what is open")
        self.should_exit = True


def listening(host: str, port: int, variables: str) -> socket.socket:
    """A socket that takes connections. Raises SettingsError, which names `variables`_HOST and _PORT."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise SettingsError(f"{variables}_HOST, {variables}_PORT: {host}, port {port}: {reason}.") from None


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

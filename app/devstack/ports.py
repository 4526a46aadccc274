"""Ports on loopback: free ones, and who has a taken one."""

from __future__ import annotations

import random
import socket

import psutil

from app.devstack.errors import StackError

HOST = "127.0.0.1"
#: Below the ports that systems give to outgoing connections (Linux from 32,768, others from 49,152): a part that is
#: started again finds its port free.
FREE = range(20_000, 32_000)
#: Those that this process was given: whoever was given one may not listen on it yet.
_given: set[int] = set()


def choose(wanted: int, variable: str) -> int:
    """The wanted port if it is free; for 0 a free one, never the same again. Raises StackError when it is taken."""
    if wanted == 0:
        port = next(port for port in random.sample(FREE, len(FREE)) if port not in _given and _is_free(port))
        _given.add(port)
        return port
    if not _is_free(wanted):
        owner = _owner(wanted)
        by = f" by {owner}" if owner else ""
        raise StackError(f"Port {wanted} is taken{by}; free it, or set {variable} to another one.")
    return wanted


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a port in TIME_WAIT after an earlier run is not taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _owner(port: int) -> str | None:
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN
            if listens and tuple(connection.laddr)[1:] == (port,) and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:
        return None
    return None

"""The Python client: `async with SpillwayClient(bootstrap_servers=…, workspace_id=…) as client` (docs/client.md)."""

from app.client.client import SpillwayClient
from app.client.errors import (
    ClientClosedError,
    ConnectionLostError,
    InvalidRequestError,
    RequestExpired,
    RequestFailed,
    RequestRejected,
    RequestTimedOut,
    ResultNotFound,
    SpillwayError,
)
from app.client.pieces import Piece
from app.client.stream import AnswerStream
from app.client.sync import SyncAnswerStream, SyncSpillwayClient
from app.security import KafkaSecurity, SecurityError

__all__ = [
    "AnswerStream",
    "ClientClosedError",
    "ConnectionLostError",
    "InvalidRequestError",
    "KafkaSecurity",
    "Piece",
    "RequestExpired",
    "RequestFailed",
    "RequestRejected",
    "RequestTimedOut",
    "ResultNotFound",
    "SecurityError",
    "SpillwayClient",
    "SpillwayError",
    "SyncAnswerStream",
    "SyncSpillwayClient",
]

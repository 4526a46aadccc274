"""What can go wrong with ClickHouse, in one sentence for people, without a row's content or a password."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import aiohttp
from clickhouse_connect.driver.exceptions import ClickHouseError as ClientError
from clickhouse_connect.driver.exceptions import Error as ServerError
from clickhouse_connect.driver.exceptions import OperationalError

#: ClickHouse's own numbers. Source: src/Common/ErrorCodes.cpp of ClickHouse.
UNKNOWN_TABLE = 60
UNKNOWN_DATABASE = 81
READONLY = 164
ACCESS_DENIED = 497
AUTHENTICATION_FAILED = frozenset({192, 193, 194, 516})
#: Refusals that depend on a value and on nothing else, so that trying again cannot help: argument out of bound, string
#: too large, value out of range of its type, decimal overflow, violated constraint, unknown element of an enum. Errors
#: that a changed table would cause as well are left out: those must wait for the operator, not lose rows.
BAD_VALUE = frozenset({69, 131, 321, 407, 469, 691})


class ClickHouseError(Exception):
    """ClickHouse cannot be reached, or refused.

    The message is one sentence. `code` is the server's number, None when it never answered; `detail` is the server's
    own text, which may quote the statement: for the person who wrote that statement only.
    """

    def __init__(self, message: str, code: int | None = None, detail: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.detail = detail


@contextmanager
def explained(url: str, user: str, seconds: float, has_answered: Callable[[], bool]) -> Iterator[None]:
    """Turn whatever the client raises into ClickHouseError. `has_answered` says whether this address has ever answered
    this client: then nothing is wrong with how it is called.
    """
    try:
        yield
    except TimeoutError:
        raise ClickHouseError(f"ClickHouse at {url} did not answer within {seconds:g} seconds.") from None
    except (ClientError, aiohttp.ClientError, OSError) as error:
        raise _explain(error, url, user, has_answered()) from None


def _explain(error: Exception, url: str, user: str, has_answered: bool) -> ClickHouseError:
    code = error.code if isinstance(error, ServerError) else None
    if isinstance(error, ClientError) and code is None and not isinstance(error, OperationalError):
        # The client itself refuses, for example a setting that this user may not change.
        return ClickHouseError(f"ClickHouse cannot do this for the user {user!r}: {error}.", detail=str(error))
    if code is None:
        return ClickHouseError(f"ClickHouse at {url} {_unreached(error, has_answered)}")
    if code in AUTHENTICATION_FAILED:
        reason = f"ClickHouse refuses the login of the user {user!r}; check AI_CLICKHOUSE_USER and its password."
    elif code == ACCESS_DENIED:
        reason = f"ClickHouse does not allow the user {user!r} to do this."
    else:
        name = getattr(error, "name", None) or "an error"
        reason = f"ClickHouse answered with {name} (code {code})."
    return ClickHouseError(reason, code, _server_text(str(error)))


def _unreached(error: BaseException | None, has_answered: bool) -> str:
    """Why nobody answered, from the depth of the error."""
    is_closed = is_refused = False
    while error is not None:
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            error = error.certificate_error
        if isinstance(error, ssl.SSLCertVerificationError):
            return (
                f"shows a certificate that is not trusted ({error.verify_message}); AI_CLICKHOUSE_CA_FILE must hold "
                "the authority that signed it, and AI_CLICKHOUSE_URL a name that is in it."
            )
        is_ended = isinstance(error, (aiohttp.ServerDisconnectedError, ssl.SSLEOFError, ssl.SSLZeroReturnError))
        is_closed = is_closed or is_ended or isinstance(error, ConnectionResetError)
        is_refused = is_refused or (isinstance(error, ssl.SSLError) and not is_ended)
        error = error.__cause__ or error.__context__
    tls = "does that port use TLS, and does it want a certificate of ours (AI_CLICKHOUSE_CERTIFICATE_FILE)?"
    if is_refused:
        return f"does not agree with us on TLS; {tls}"
    if is_closed and has_answered:
        return "has closed the connection; is it still running?"
    if is_closed:
        return f"has closed the connection without an answer; is it running, and {tls}"
    return "does not answer; is it running, and is AI_CLICKHOUSE_URL right?"


def _server_text(message: str) -> str:
    """The server's own words, without what the client and the server wrap around them."""
    text = message.split("DB::Exception: ", 1)[-1]
    return text.split(" (version ", 1)[0]

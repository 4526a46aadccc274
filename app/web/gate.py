"""Who may see the page, and whose button it was. Pure: headers in, a decision out.

The cookie is no copy of the token but a digest made with it, so whoever sees one cannot use the other elsewhere. It is
SameSite=Strict, and what changes anything must come from the page itself besides.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from app.http.process import is_loopback

COOKIE = "spillway_page"
#: Seconds for which a browser stays logged in.
LASTS = 12 * 3600

Headers = Mapping[str, str]


class Gate:
    """Without a token everybody on loopback comes in, and nobody who was sent there by another name."""

    def __init__(self, token: str | None) -> None:
        self._token = token
        self._cookie = _digest(token) if token else ""

    @property
    def asks(self) -> bool:
        return self._token is not None

    def lets_in(self, headers: Headers) -> bool:
        """Whether these may see the page."""
        if self._token is None:
            # A page elsewhere can name 127.0.0.1 by a name of its own (DNS rebinding) and read what this one shows.
            return is_loopback(_name(headers.get("host", "")))
        return self.has_bearer(headers) or _same(_cookie(headers.get("cookie", "")), self._cookie)

    def has_bearer(self, headers: Headers) -> bool:
        """Whether the header Authorization has the token: no browser sends that by itself."""
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self.accepts(secret.strip())

    def accepts(self, secret: str) -> bool:
        return self._token is not None and _same(_digest(secret), self._cookie)

    def may_change(self, headers: Headers) -> bool:
        """Whether a POST comes from the page itself, or from a program that has the token."""
        return self.lets_in(headers) and (self.has_bearer(headers) or from_here(headers))

    def cookie(self, *, secure: bool) -> str:
        """The header Set-Cookie of one who has shown the token."""
        flags = "; Secure" if secure else ""
        return f"{COOKIE}={self._cookie}; Path=/; Max-Age={LASTS}; HttpOnly; SameSite=Strict{flags}"


def from_here(headers: Headers) -> bool:
    """Whether the browser says that a page of this very address has sent the request. In doubt it has not."""
    if headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return False
    origin, host = headers.get("origin"), headers.get("host")
    if origin is None or not host:
        return False
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def _digest(secret: str) -> str:
    return hmac.new(secret.encode(errors="replace"), b"spillway page", hashlib.sha256).hexdigest()


def _same(given: str, expected: str) -> bool:
    """In the same time for every wrong value."""
    return hmac.compare_digest(given.encode(errors="replace"), expected.encode())


def _cookie(header: str) -> str:
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _name(host: str) -> str:
    """The name in a header Host, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""

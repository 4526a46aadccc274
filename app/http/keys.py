"""API keys: made, kept as digests on a compacted topic, and looked up. Pure, but for the random secret."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from urllib.parse import urlsplit

from app.http.problems import Problem
from app.http.process import is_loopback
from schemas.api_key import EVERY, ApiKey
from schemas.base import DEFAULT_WORKSPACE
from schemas.codec import UndecodableError, decode

PREFIX = "sk-spillway-"
SECRET_BYTES = 32
ID_BYTES = 6


def new_key(workspaces: Sequence[str], name: str, now: datetime) -> tuple[ApiKey, str]:
    """A key, and its secret, which is in nothing but this answer. Raises ValidationError for what is no workspace."""
    secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    key = ApiKey(
        key_id=secrets.token_hex(ID_BYTES),
        sha256=digest(secret),
        workspaces=tuple(dict.fromkeys(workspaces)),
        name=name,
        created_at=now,
    )
    return key, secret


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


class KeyBook:
    """The keys that are valid now, as the topic's records come in."""

    def __init__(self) -> None:
        self._by_id: dict[str, ApiKey] = {}
        self._by_digest: dict[str, ApiKey] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def apply(self, key: bytes | None, value: bytes | None) -> None:
        """Take over a record. One that is no key revokes what stood in its place: in doubt nobody comes in."""
        identity = (key or b"").decode(errors="replace")
        was = self._by_id.pop(identity, None)
        if was is not None:
            self._by_digest.pop(was.sha256, None)
        try:
            new = decode(ApiKey, value)
        except UndecodableError:
            return
        if new.key_id == identity:
            self._by_id[identity] = new
            self._by_digest[new.sha256] = new

    def all(self) -> list[ApiKey]:
        return sorted(self._by_id.values(), key=lambda key: key.created_at)

    def find(self, secret: str) -> ApiKey | None:
        """The key with this secret. Looked up by its digest: how long that takes says nothing of the secret."""
        return self._by_digest.get(digest(secret))


class Gate:
    """Who comes in, and for which workspace. Without a book everybody does (`spillway serve --open`)."""

    def __init__(self, book: KeyBook | None) -> None:
        self._book = book

    def refuse_pages(self, headers: Mapping[str, str]) -> None:
        """Without a book: a page that somebody looks at in a browser must not spend money here. It can send a request
        to loopback, and by a name of its own (DNS rebinding) read the answer. Raises Problem.
        """
        if self._book is not None:
            return
        site, host = headers.get("sec-fetch-site", "none"), headers.get("host", "")
        if site not in ("none", "same-origin") or "origin" in headers or not is_loopback(_name(host)):
            told = "Without keys this door is for programs of this machine; `spillway keys create` makes a key."
            raise Problem(403, "foreign_origin", told)

    def workspace(self, authorization: str | None, wanted: str | None) -> str:
        """The workspace that pays. Raises Problem: 401 for a wrong key, 403 for a workspace that is not the key's."""
        if self._book is None:
            return wanted or DEFAULT_WORKSPACE
        scheme, _, secret = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise _unauthorized("No API key was sent; put one into the header `Authorization: Bearer …`.")
        key = self._book.find(secret.strip())
        if key is None:
            raise _unauthorized("The API key is not valid; `spillway keys create` makes one.")
        first = key.workspaces[0]
        if wanted is None:
            return DEFAULT_WORKSPACE if first == EVERY else first
        if EVERY not in key.workspaces and wanted not in key.workspaces:
            raise Problem(403, "workspace_not_allowed", f"This API key may not ask for the workspace {wanted:.128}.")
        return wanted


def _name(host: str) -> str:
    """The name in a header Host, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _unauthorized(message: str) -> Problem:
    return Problem(401, "invalid_api_key", message)

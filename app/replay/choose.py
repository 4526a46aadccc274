"""Whether a past request is published again, and as which record. Pure.

Its own id makes that safe: admission drops an id that it knows, and what has succeeded is not sent under its id at all.
Only with a new id is a request answered, and paid for, once more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase

import orjson
from pydantic import TypeAdapter, ValidationError

from schemas.base import RequestId
from schemas.codec import STRUCTURED_CONTENT_TYPE, Headers, header, parse_object
from streams.admit.parse import Parsed, Raw, id_of_record, parse

#: What a filter may ask for, beside `status`.
FIELDS = ("workspace_id", "request_id", "kind", "model", "purpose", "user_id", "priority")
STATUS = "status"
#: The status of a request without an outcome.
NO_STATUS = "none"

_request_id = TypeAdapter(RequestId)


class Skipped(StrEnum):
    """Why a request that is meant is not published again."""

    #: It would be refused again.
    UNREADABLE = "unreadable"
    #: The same id came earlier in the period, or it is from an earlier replay with the same suffix.
    REPEATED = "repeated"
    SUCCEEDED = "succeeded"
    #: Admission still knows the id, and would drop it.
    KNOWN = "known"
    TOO_LATE = "too_late"
    #: With its suffix the id would be longer than an id may be.
    ID_TOO_LONG = "id_too_long"


@dataclass(frozen=True, slots=True)
class Stored:
    """A record of `ai.requests`. `timestamp` is in seconds since 1970."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    partition: int
    timestamp: float
    identity: str


@dataclass(frozen=True, slots=True)
class Again:
    """What is published."""

    workspace: str
    request_id: str
    value: bytes | None
    headers: Headers
    stored: Stored


@dataclass(frozen=True)
class Wanted:
    """What is meant: patterns by field. `suffix` gives new ids; None: the old ones, and nothing is paid twice.

    `window` is for how many seconds admission knows an id.
    """

    now: float
    window: float
    filters: Mapping[str, str] = field(default_factory=dict)
    suffix: str | None = None


#: Workspace and request id → the status of its outcome; None where there is none.
StatusOf = Callable[[str, str], str | None]


@dataclass
class Chooser:
    """Takes the records of a period in their order."""

    wanted: Wanted
    max_bytes: int
    _seen: set[tuple[str, str]] = field(default_factory=set)

    def choose(self, stored: Stored, parsed: Parsed | None, status: str | None) -> Again | Skipped | None:
        """What becomes of a record; None: it is not meant. `parsed` as `read` gives it."""
        if parsed is None:
            # Nobody knows whether a filter means it.
            return None if self.wanted.filters else Skipped.UNREADABLE
        if not _is_meant(parsed, status, self.wanted.filters):
            return None
        key = parsed.envelope.workspace_id, parsed.envelope.request_id
        if key in self._seen:
            return Skipped.REPEATED
        self._seen.add(key)
        if self.wanted.suffix is not None and parsed.envelope.request_id.endswith(self.wanted.suffix):
            return Skipped.REPEATED
        return self._verdict(stored, parsed, status)

    def _verdict(self, stored: Stored, parsed: Parsed, status: str | None) -> Again | Skipped:
        wanted = self.wanted
        deadline = parsed.request.deadline or parsed.envelope.expires
        if wanted.suffix is None and status == "succeeded":
            return Skipped.SUCCEEDED
        if wanted.suffix is None and stored.timestamp + wanted.window > wanted.now:
            return Skipped.KNOWN
        if deadline is not None and deadline.timestamp() <= wanted.now:
            return Skipped.TOO_LATE
        return _again(stored, parsed, wanted.suffix)

    def read(self, stored: Stored) -> Parsed | None:
        """The request in a record, as admission reads it; None where there is none."""
        found = parse(Raw(stored.value, stored.headers, stored.identity), max_bytes=self.max_bytes)
        return found if isinstance(found, Parsed) else None


def _is_meant(parsed: Parsed, status: str | None, filters: Mapping[str, str]) -> bool:
    envelope, request = parsed.envelope, parsed.request
    known = {name: getattr(request, name) for name in FIELDS if name not in ("workspace_id", "request_id")}
    known |= {"workspace_id": envelope.workspace_id, "request_id": envelope.request_id, STATUS: status or NO_STATUS}
    return all(fnmatchcase(str(known[name] or ""), pattern) for name, pattern in filters.items())


def _again(stored: Stored, parsed: Parsed, suffix: str | None) -> Again | Skipped:
    workspace, request_id = parsed.envelope.workspace_id, parsed.envelope.request_id
    if suffix is None:
        # One that brought no id was named by its place, and would be a new one at another.
        named_by_place = request_id == id_of_record(stored.identity)
        headers = _named(stored.headers, request_id) if named_by_place else stored.headers
        return Again(workspace, request_id, stored.value, headers, stored)
    new = request_id + suffix
    try:
        _request_id.validate_python(new)
    except ValidationError:
        return Skipped.ID_TOO_LONG
    return Again(workspace, new, _with_id(stored, new), _named(stored.headers, new), stored)


def _named(headers: Headers, request_id: str) -> Headers:
    others = tuple(pair for pair in headers if pair[0].lower() != "ce_id")
    return (*others, ("ce_id", request_id.encode()))


def _with_id(stored: Stored, request_id: str) -> bytes | None:
    """The value with another id, where it has one; otherwise byte for byte, and the header names it."""
    body = parse_object(stored.value)
    if (header(stored.headers, "content-type") or b"").lower().startswith(STRUCTURED_CONTENT_TYPE):
        return orjson.dumps({**body, "id": request_id, "data": {**body["data"], "request_id": request_id}})
    return orjson.dumps({**body, "request_id": request_id}) if "request_id" in body else stored.value

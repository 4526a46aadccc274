"""What a request carries inside itself, such as a picture in a data URL, however it is spelled."""

from __future__ import annotations

import base64
import binascii
import re
from typing import NamedTuple
from urllib.parse import unquote, unquote_to_bytes

_DATA_URL = re.compile(r"\s*data:([^,]{0,200}),(.*)", re.DOTALL | re.IGNORECASE)
#: Other names of types, as browsers and libraries write them.
_ALIASES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/jfif": "image/jpeg",
    "image/x-png": "image/png",
    "application/x-pdf": "application/pdf",
}
#: How files begin. A provider that finds another type than the one it was told refuses the request.
_BEGINNINGS = (
    (b"\x89PNG\r\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"%PDF-", "application/pdf"),
)


class Enclosed(NamedTuple):
    """A media type in lower case, which may be empty, and the data in plain base64."""

    media_type: str
    data: str


def enclosed(url: str) -> Enclosed | None:
    """What a data URL holds; None for any other URL."""
    found = _DATA_URL.match(url)
    if found is None:
        return None
    media_type, *options = (part.strip().lower() for part in found[1].split(";"))
    if "base64" not in options:
        return typed(media_type, base64.b64encode(unquote_to_bytes(found[2])).decode())
    return typed(media_type, found[2])


def typed(media_type: str, data: str) -> Enclosed:
    """Data in base64, of whatever kind, with the type that it really has, as far as that can be seen."""
    plain = plain_base64(data)
    return Enclosed(_seen(plain) or _ALIASES.get(media_type.lower(), media_type.lower()), plain)


def plain_base64(data: str) -> str:
    """Without line ends, in the usual alphabet, padded to its end."""
    if "%" in data:
        data = unquote(data)
    if not data.isascii() or any(blank in data for blank in " \n\r\t"):
        data = "".join(data.split())
    if "-" in data or "_" in data:
        data = data.replace("-", "+").replace("_", "/")
    return data + "=" * (-len(data) % 4)


def _seen(data: str) -> str | None:
    try:
        begins = base64.b64decode(data[:32])
    except (binascii.Error, ValueError):
        return None
    if begins[:4] == b"RIFF" and begins[8:12] == b"WEBP":
        return "image/webp"
    return next((media_type for beginning, media_type in _BEGINNINGS if begins.startswith(beginning)), None)

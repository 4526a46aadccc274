"""How long a document, a recording or a film is that stands in a request: pages and seconds. Pure.

Providers bill these by what is on them. Their size says little: a scanned page takes a megabyte, a page of text some
kilobytes. What cannot be read is estimated from its size, and one that is only linked to is taken to be of middling
length; both rather too long than too short.
"""

from __future__ import annotations

import binascii
import math
import re
import struct
import zlib
from functools import lru_cache

#: What is linked to, or was uploaded before, and cannot be looked at.
UNSEEN_PAGES = 10
UNSEEN_SECONDS = 60.0
#: Of what cannot be read: a page of a document, a second of speech at 32 kbit/s, a second of film at 1 Mbit/s.
BYTES_PER_PAGE = 20_000
BYTES_PER_SECOND = 4_000
BYTES_PER_SECOND_OF_FILM = 125_000
#: A second of raw samples: 24 kHz, 16 bits, one channel.
BYTES_PER_SECOND_OF_SAMPLES = 48_000
#: No document that a request can hold has more.
MOST_PAGES = 10_000
MOST_SECONDS = 86_400.0

_PAGE = re.compile(rb"/Type\s*/Page(?![a-zA-Z])")
#: Where the objects of a newer document are packed: what tells of the pages is in there.
_PACKED = re.compile(rb"/ObjStm\b.{0,400}?stream\r?\n", re.DOTALL)
_TOLD = re.compile(rb"/Linearized\b.{0,200}?/N\s+(\d{1,6})", re.DOTALL)
_TREE = re.compile(rb"/Type\s*/Pages\b.{0,200}?/Count\s+(\d{1,6})", re.DOTALL)
_MOST_PACKED = 256
_MOST_UNPACKED = 1 << 20

#: How a frame of layer 3 begins, with a rate that is known; and which version of the standard its second byte says.
_FRAME = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\x10-\xeb]")
_VERSION_1, _VERSION_2 = b"\xfa\xfb", b"\xf2\xf3"
_TAG_HEAD = 10
#: Kilobits a second, of version 1 and of the others.
_RATES_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_RATES_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)


def decoded(text: str) -> bytes:
    """What base64 stands for, also within a data URL; nothing for what is none."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return binascii.a2b_base64(text.rstrip("=") + "==")
    except (binascii.Error, ValueError):
        return b""


# A request's media are asked for once for each provider that may answer, one after another.
@lru_cache(maxsize=4)
def pages_of(text: str) -> int:
    """The pages of a PDF in base64, at least one."""
    data = decoded(text)
    pages = _pages_in(data) or math.ceil(max(len(data), 1) / BYTES_PER_PAGE)
    return min(pages, MOST_PAGES)


def _pages_in(data: bytes) -> int:
    """As the document lists them; 0 where it cannot be told, as in one that is encrypted."""
    found = len(_PAGE.findall(data))
    for number, start in enumerate(_PACKED.finditer(data)):
        if number == _MOST_PACKED:
            break
        found += len(_PAGE.findall(_unpacked(data, start.end())))
    told = (int(match[1]) for pattern in (_TOLD, _TREE) for match in pattern.finditer(data))
    return found or next((count for count in told if count), 0)


def _unpacked(data: bytes, start: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(memoryview(data)[start:], _MOST_UNPACKED)
    except zlib.error:
        return b""


@lru_cache(maxsize=4)
def seconds_of(text: str, form: str = "") -> float:
    """The length of a recording in base64. `form` is what the request calls it, such as `wav` or `pcm16`."""
    data = decoded(text)
    seconds = _told_seconds(data)
    if seconds is None:
        seconds = len(data) / (BYTES_PER_SECOND_OF_SAMPLES if form.startswith("pcm") else BYTES_PER_SECOND)
    return min(seconds, MOST_SECONDS)


def film_seconds_of(text: str) -> float:
    """The length of a film in base64."""
    return min(len(text) * 3 / 4 / BYTES_PER_SECOND_OF_FILM, MOST_SECONDS)


def _told_seconds(data: bytes) -> float | None:
    """What the recording itself says; None for a form that is not read here."""
    try:
        if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
            return _of_wav(data)
        if data[:4] == b"fLaC":
            return _of_flac(data)
        if data[:4] == b"OggS":
            return _of_ogg(data)
        return _of_mp3(data)
    except (struct.error, ZeroDivisionError, IndexError):
        return None


def _of_wav(data: bytes) -> float | None:
    at = data.find(b"fmt ", 12, 4096)
    if at < 0:
        return None
    (rate,) = struct.unpack_from("<I", data, at + 16)
    # What the header says of the length is often 0 or all ones, where it was written before the end was known.
    return float((len(data) - at) / rate)


def _of_flac(data: bytes) -> float | None:
    (packed,) = struct.unpack_from(">Q", data, 18)
    rate, samples = packed >> 44, packed & 0xFFFFFFFFF
    return samples / rate if samples else None


def _of_ogg(data: bytes) -> float | None:
    """The place of the last page, in samples; Opus counts 48,000 a second, whatever was recorded."""
    (samples,) = struct.unpack_from("<q", data, data.rfind(b"OggS") + 6)
    vorbis = data.find(b"\x01vorbis", 0, 4096)
    rate = struct.unpack_from("<I", data, vorbis + 12)[0] if vorbis >= 0 else 48_000
    return samples / rate if samples > 0 else None


def _of_mp3(data: bytes) -> float | None:
    """By the rate of the first frame, or the number of frames where they differ in size."""
    start = _after_tag(data)
    frame = _FRAME.search(data, start, start + 4096) if start else _FRAME.match(data)
    if frame is None:
        return None
    at, version, third = frame.start(), data[frame.start() + 1], data[frame.start() + 2]
    is_first = version in _VERSION_1
    rate = (44_100, 48_000, 32_000)[third >> 2 & 3] // (1 if is_first else 2 if version in _VERSION_2 else 4)
    header = max(data.find(b"Xing", at, at + 64), data.find(b"Info", at, at + 64))
    if header >= 0 and data[header + 7] & 1:
        (frames,) = struct.unpack_from(">I", data, header + 8)
        return float(frames * (1152 if is_first else 576) / rate)
    kilobits = (_RATES_1 if is_first else _RATES_2)[third >> 4]
    return (len(data) - at) / (kilobits * 125)


def _after_tag(data: bytes) -> int:
    """Where the sound begins after an ID3 tag, whose size is in 7 bits a byte; 0 where there is none."""
    if data[:3] != b"ID3":
        return 0
    size = 0
    for byte in data[6:_TAG_HEAD]:
        size = size << 7 | byte
    return _TAG_HEAD + size

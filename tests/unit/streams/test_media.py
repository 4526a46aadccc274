"""How long documents, recordings and films in a request are, and what they count as."""

from __future__ import annotations

import base64
import io
import struct
import time
import wave
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.prices import Prices
from app.tokenizer import measure_for
from schemas.request import CompletionRequest
from streams.media import film_seconds_of, pages_of, seconds_of
from streams.tokens import estimate_tokens, prompt_of, reserved_tokens
from tests.unit.providers.test_prices import AT


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def pdf(pages: int, *, size: int = 0, packed: bool = False) -> bytes:
    """A document with so many pages, and a picture of so many bytes."""
    objects = b"".join(b"<< /Type /Page /Parent 1 0 R >>\n" for _ in range(pages))
    if packed:
        inner = zlib.compress(objects)
        objects = b"5 0 obj << /Type /ObjStm /N 9 /Length %d >> stream\r\n%s\nendstream\n" % (len(inner), inner)
    tree = b"" if packed else b"1 0 obj << /Type /Pages /Count %d >> endobj\n" % pages
    return b"%PDF-1.5\n" + tree + objects + b"stream\n" + b"\xaa" * size + b"\nendstream %%EOF"


def wav(seconds: float) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, 16_000, 0, "NONE", ""))
        out.writeframes(b"\0\0" * int(16_000 * seconds))
    return file.getvalue()


def ogg(seconds: int, head: bytes = b"OpusHead", rate: int = 48_000) -> bytes:
    page = b"OggS\0\2" + struct.pack("<q", 0) + head + b"\0\0\0\0\1" + struct.pack("<I", rate) + b"\0" * 50
    return page + b"OggS\0\4" + struct.pack("<q", seconds * rate) + b"\0" * 20


def flac(seconds: int) -> bytes:
    return b"fLaC\0\0\0\x22" + b"\0" * 10 + struct.pack(">Q", 44_100 << 44 | 15 << 36 | 44_100 * seconds) + b"\0" * 16


def mp3(seconds: int, *, tag: int = 0) -> bytes:
    """At 128 kbit/s and 44.1 kHz."""
    name = b"ID3\4\0\0" + bytes((0, 0, tag >> 7, tag & 127)) + b"\0" * tag if tag else b""
    return name + (b"\xff\xfb\x90\x00" + b"\0" * 413) * (seconds * 16_000 // 417)


def test_a_pdf_has_the_pages_that_it_lists() -> None:
    assert pages_of(coded(pdf(3))) == 3
    assert pages_of("data:application/pdf;base64," + coded(pdf(7))) == 7
    assert pages_of(coded(pdf(40, packed=True))) == 40, "newer documents pack the list of their pages"


@pytest.mark.parametrize(
    ("data", "pages"),
    [
        (b"%PDF-1.4 << /Linearized 1 /L 9 /N 12 >>" + b"\xaa" * 90_000, 12),
        (b"%PDF-1.4 << /Type /Pages /Kids [] /Count 9 >>", 9),
        (b"%PDF-1.4 /ObjStm stream\r\nno deflate" + b"\xaa" * 100_000, 6),
        (b"%PDF", 1),
        (b"", 1),
    ],
)
def test_a_pdf_that_hides_its_pages_is_estimated(data: bytes, pages: int) -> None:
    assert pages_of(coded(data)) == pages


@pytest.mark.parametrize(
    ("data", "form", "seconds"),
    [
        (wav(2.5), "wav", 2.5),
        (wav(2.5)[:4] + b"\xff" * 4 + wav(2.5)[8:], "wav", 2.5),
        (ogg(30), "ogg", 30),
        (ogg(30, b"\x01vorbis", 44_100), "ogg", 30),
        (flac(61), "flac", 61),
        (mp3(10), "mp3", 10),
        (mp3(10, tag=300), "mp3", 10),
        (b"\0" * 96_000, "pcm16", 2),
        (b"\0" * 40_000, "webm", 10),
        (b"RIFF\0\0\0\0WAVEfmt ", "wav", 0),
        (b"", "wav", 0),
    ],
)
def test_a_recording_is_as_long_as_it_says(data: bytes, form: str, seconds: float) -> None:
    assert seconds_of(coded(data), form) == pytest.approx(seconds, abs=0.1)


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"%PDF", b"RIFF\0\0\0\0WAVE", b"OggS", b"fLaC", b"ID3", b"\xff\xfb"])
)
def test_whatever_it_is_it_has_a_length(data: bytes, begin: bytes) -> None:
    text = coded(begin + data)
    assert 1 <= pages_of(text) <= 10_000
    assert 0 <= seconds_of(text) <= 86_400
    assert 0 <= seconds_of(text[:-1] + "é") <= 86_400


def test_nothing_that_is_unpacked_fills_the_memory_or_the_time() -> None:
    bomb = zlib.compress(b"/Type /Page " * 5_000_000)
    data = b"%PDF" + (b"/ObjStm stream\n" + bomb) * 2 + b"/ObjStm" * 20_000
    began = time.perf_counter()
    assert pages_of(coded(data)) == 10_000
    assert time.perf_counter() - began < 5


def asked(*parts: dict[str, Any]) -> CompletionRequest:
    return CompletionRequest(messages=({"role": "user", "content": list(parts)},))


DOCUMENT = coded(pdf(2, size=337_000))
PDFS: list[dict[str, Any]] = [
    {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": DOCUMENT}},
    {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64," + DOCUMENT}},
    {"type": "file", "file": {"filename": "a.pdf", "file_data": DOCUMENT}},
    {"type": "input_file", "filename": "a", "file_data": DOCUMENT},
    {"type": "file_url", "file_url": {"url": "data:application/pdf;base64," + DOCUMENT}},
    {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "document", "source": {"data": DOCUMENT}}]},
]


@pytest.mark.parametrize("part", PDFS, ids=lambda part: part["type"])
def test_a_pdf_counts_by_its_pages_in_whatever_form_it_comes(part: dict[str, Any]) -> None:
    assert (prompt_of(asked(part)).pages, prompt_of(asked(part)).texts) == (2, ())
    assert estimate_tokens(asked(part)) == 2 * (3_000 + 1_600) + 4
    assert reserved_tokens(asked(part), "claude") < 20_000
    cost = Prices().estimate("claude", "claude-sonnet-4-5", asked(part), AT)
    assert cost is not None
    assert cost < 1


@pytest.mark.parametrize(
    ("part", "seen"),
    [
        ({"type": "file_url", "file_url": {"url": "https://example.com/a.pdf"}}, {"pages": 10}),
        ({"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}}, {"pages": 10}),
        ({"type": "file", "file": {"file_id": "file-1"}}, {"pages": 10}),
        (
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "abc"}},
            {"texts": ("abc",)},
        ),
        (
            {
                "type": "document",
                "title": "T",
                "source": {"type": "content", "content": [{"type": "text", "text": "x"}]},
            },
            {"texts": ("T", "x")},
        ),
        ({"type": "file", "file": {"file_data": "data:text/plain;base64," + coded(b"hello")}}, {"texts": ("hello",)}),
        ({"type": "file", "file": {"file_data": "data:image/png;base64,AAAA"}}, {"images": 1}),
        ({"type": "input_audio", "input_audio": {"data": coded(wav(2)), "format": "wav"}}, {"sound": 2}),
        ({"type": "audio_url", "audio_url": {"url": "data:audio/ogg;base64," + coded(ogg(30))}}, {"sound": 30}),
        ({"type": "audio_url", "audio_url": {"url": "https://example.com/a.mp3"}}, {"sound": 60}),
        ({"type": "video_url", "video_url": {"url": "data:video/mp4;base64," + "A" * 500_000}}, {"film": 3}),
        ({"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}}, {"film": 60}),
        ({"type": "tool_result", "content": [{"type": "image", "source": {"data": "A" * 9_000}}]}, {"images": 1}),
        ({"type": "document"}, {"pages": 10}),
        ({"type": "input_audio", "input_audio": None}, {"sound": 60}),
    ],
)
def test_each_part_counts_as_what_it_is(part: dict[str, Any], seen: dict[str, Any]) -> None:
    prompt = prompt_of(asked(part))
    found = {name: getattr(prompt, name) for name in ("texts", "images", "pages", "sound", "film")}
    expected = {"texts": (), "images": 0, "pages": 0, "sound": 0.0, "film": 0.0, **seen}
    assert found.pop("texts") == expected.pop("texts")
    assert found == pytest.approx(expected, abs=0.01)


def test_a_second_of_sound_counts_as_its_model_counts_it() -> None:
    request = asked({"type": "input_audio", "input_audio": {"data": coded(wav(10)), "format": "wav"}})
    assert estimate_tokens(request, measure_for("gpt-4o-audio-preview")) == pytest.approx(100 + 4, abs=1)
    assert estimate_tokens(request) == pytest.approx(320 + 4, abs=1)
    assert film_seconds_of("") == 0

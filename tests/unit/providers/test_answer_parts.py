"""The parts of which answers are read: words for the end, half characters, events, errors, and calls of tools."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers import sse
from app.providers.finish import failed_as, reason_of, word_of
from app.providers.heartbeat import is_heartbeat
from app.providers.reported import error_in, failure_of
from app.providers.text import Pieces, dump, mended, parse, text_of
from app.providers.tool_calls import Calls, calls_of, is_half
from app.providers.usage_wire import count_in
from app.providers.wire import MalformedAnswerError


@pytest.mark.parametrize("nothing", [None, "", " ", "null", "None", "NULL", 7, [], {"type": None}])
def test_what_names_no_reason_is_none(nothing: object) -> None:
    assert word_of(nothing) is None


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", "stop"),
        ("eos_token", "stop"),
        ("max-tokens", "length"),
        ("Model_Length", "length"),
        ("TOOL_USE", "tool_calls"),
        ("content filter", "content_filter"),
        ("RECITATION", "content_filter"),
    ],
)
def test_a_word_has_its_synonym_in_whatever_case(word: str, reason: str) -> None:
    assert (word_of(word), reason_of(word), failed_as(word)) == (word, reason, None)
    assert word_of({"type": word}) == word


@pytest.mark.parametrize(("word", "status"), [("ERROR", 500), ("abort", 500), ("insufficient-system-resource", 503)])
def test_a_word_by_which_a_provider_has_failed(word: str, status: int) -> None:
    assert failed_as(word) == status


@given(st.text(), st.lists(st.integers(0, 60), max_size=5))
def test_a_text_in_pieces_is_the_same_text(text: str, cuts: list[int]) -> None:
    """Also where a character is cut in two."""
    units = text.encode("utf-16-be", "surrogatepass")
    halves = [units[at : at + 2].decode("utf-16-be", "surrogatepass") for at in range(0, len(units), 2)]
    places = sorted({min(cut, len(halves)) for cut in cuts} | {0, len(halves)})
    pieces = Pieces()
    told = [pieces.add("".join(halves[a:b])) for a, b in pairwise(places)]
    assert "".join((*told, pieces.end())) == pieces.text == mended(text)
    pieces.text.encode()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, None),
        ("a", "a"),
        ({"type": "text", "text": "a"}, "a"),
        (["a", {"text": "b"}, {"type": "output_text", "text": "c"}], "abc"),
        ([{"type": "thinking", "thinking": "x"}, {"type": "image_url"}, {"type": "text", "text": None}, 7], ""),
    ],
)
def test_text_in_parts(content: object, text: str | None) -> None:
    assert text_of(content) == text


def test_what_is_no_content_is_no_text() -> None:
    with pytest.raises(TypeError):
        text_of(7)


@pytest.mark.parametrize(
    "data",
    ["", "ping", "PING", '"ping"', "[PING]", "pong", "heartbeat", "heart-beat", "keep-alive", "keepalive", "null", "0"],
)
def test_signs_of_life(data: str) -> None:
    assert is_heartbeat(data)


@pytest.mark.parametrize(
    "data", ["{", "[1]", "pinging you", "error", "<html>", "[DONE]", '{"type": "ping"}', "Internal"]
)
def test_what_is_no_sign_of_life(data: str) -> None:
    assert not is_heartbeat(data)


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b"data: 1\n\ndata: 2\n\n", [(None, "1"), (None, "2")]),
        (b"data:1\r\n\r\ndata:2\r\n\r\n", [(None, "1"), (None, "2")]),
        (b"\xef\xbb\xbfevent: x\ndata: 1\n\n", [("x", "1")]),
        (b"data: a\ndata: b\n\n", [(None, "a\nb")]),
        (b"id: 7\nretry: 9\n: c\ndata: 1\n\n", [(None, "1")]),
        (b"data: [DONE]", [(None, "[DONE]")]),
        (b'data: {"a": 1}', [(None, '{"a": 1}')]),
        (b'data: {"a": ', []),
        (b"data: half a sent", []),
        (b'error: {"code": 500}\n\n', [("error", '{"code": 500}')]),
        (b'data: 1\n\n{"a": 1}\n', [(None, "1"), (None, '{"a": 1}')]),
        (b'{\n "a": 1\n}\ndata: 2\n\n', [(None, '{\n "a": 1\n}'), (None, "2")]),
        (b'{"a": \ndata: 2\n\n', [(None, '{"a": '), (None, "2")]),
        (b"data: caf\xe9\n\n", [(None, "caf\ufffd")]),
    ],
)
def test_events(body: bytes, events: list[tuple[str | None, str]]) -> None:
    decoder = sse.Decoder(is_known=True)
    assert [*decoder.feed(body), *decoder.end()] == events


@pytest.mark.parametrize("body", [b'{"a": 1}', b"[1]", b"<html>", b"hello", b"", b"\n\n", b"dat"])
def test_what_is_no_stream_is_kept(body: bytes) -> None:
    decoder = sse.Decoder()
    assert [*decoder.feed(body), *decoder.end()] == []
    assert decoder.body == body


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"error": {"code": 429, "message": "x"}}, "rate_limited"),
        ({"error": {"code": "429", "message": "x"}}, "rate_limited"),
        ({"error": {"status": "UNAVAILABLE", "message": "x"}}, "overloaded"),
        ({"error": {"type": "RateLimitError", "message": "x"}}, "rate_limited"),
        ({"error": "rate limit reached"}, "rate_limited"),
        ({"error": True, "message": "HTTP 503 from upstream"}, "overloaded"),
        ({"error": {"message": "Error code: 401 - no"}}, "bad_key"),
        ({"error": {"message": "maximum context: context_length_exceeded"}}, "prompt_too_long"),
        ({"message": "boom"}, "server_error"),
        ({"fault": {"faultstring": "Spike arrest", "detail": {"errorcode": "TooManyRequests"}}}, "rate_limited"),
        ([{"error": {"code": 503}}], "overloaded"),
        ("429 Too Many Requests", "rate_limited"),
        ("<title>504 Gateway Time-out</title>", "timeout"),
        ({"success": False}, "server_error"),
    ],
)
def test_an_error_has_its_class_in_every_form(error: Any, code: str) -> None:
    found = error_in(error)
    assert found is not None
    failure = failure_of(found)
    assert (failure.code, failure.may_be_billed) == (code, False)
    assert failure.message


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"choices": [{"delta": {}}]},
        {"choices": [], "usage": {"prompt_tokens": 1}},
        {"error": None},
        {"error": {"code": None, "message": ""}},
        {"error": ""},
        {"code": 0, "data": {"a": 1}},
        {"base_resp": {"status_code": 0, "status_msg": "success"}, "choices": [1]},
        {"type": "message_start", "message": {}},
        [],
    ],
)
def test_what_tells_no_error_is_none(answer: object) -> None:
    assert error_in(answer) is None


def test_half_arguments_are_told_from_strange_ones() -> None:
    assert all(map(is_half, ["{", '{"a', '{"a":', '{"a": 1', '{"a": "x']))
    assert not any(map(is_half, ["{}", '{"a": 1}', "{'a': 1}", "{a}", "7"]))


@pytest.mark.parametrize(
    "calls", [7, [7], [{}], [{"function": {"name": 7}}], [{"function": {"name": "f", "arguments": 7}}]]
)
def test_calls_that_are_none_are_malformed(calls: object) -> None:
    with pytest.raises(MalformedAnswerError):
        calls_of({"tool_calls": calls})


NAMES = st.sampled_from(["tide", "wind", "now"])
ARGUMENTS = st.sampled_from(["{}", '{"at":"Brest"}', '{"a":[1,2,{"b":"}"}]}', '{"text":"\\u00e9"}'])


@given(st.lists(st.tuples(NAMES, ARGUMENTS), min_size=1, max_size=4), st.integers(1, 6), st.data())
def test_calls_in_pieces_are_put_together_whatever_names_them(
    calls: list[tuple[str, str]], size: int, data: st.DataObject
) -> None:
    """By a right index, by ids alone, or by ids at a wrong index; and the name may stand in every piece."""
    by = data.draw(st.sampled_from(["index", "id", "both", "id at 0"]))
    is_repeated = data.draw(st.booleans())
    found = Calls()
    told: dict[int, dict[str, str]] = {}
    for number, (name, arguments) in enumerate(calls):
        cuts = [arguments[at : at + size] for at in range(0, len(arguments), size)]
        for at, piece in enumerate(["", *cuts]):
            named: dict[str, Any] = {"function": {"arguments": piece}}
            if at == 0 or is_repeated:
                named["function"]["name"] = name
            if by in ("index", "both"):
                named["index"] = number
            if by == "id at 0":
                named["index"] = 0
            if by in ("id", "both", "id at 0") and (at == 0 or is_repeated):
                named["id"] = f"id-{number}"
            one = found.add(named)
            if one is not None:
                call = told.setdefault(one["index"], {"name": "", "arguments": ""})
                for part in call:
                    call[part] += one["function"].get(part, "")
    whole = [call["function"] for call in found.whole()]
    assert whole == [{"name": name, "arguments": arguments} for name, arguments in calls]
    assert [told[index] for index in sorted(told)] == whole
    assert len({call["id"] for call in found.whole()}) == len(calls)


@pytest.mark.parametrize("number", ["7.0", "1e400", "1e999999", "-1.0", "1.5", "1e30", "NaN", "true", '"7"'])
@pytest.mark.parametrize("exactly", [False, True])
def test_numbers_of_all_sorts_are_counts_or_none_and_can_be_written(number: str, exactly: bool) -> None:
    try:
        value = parse(f'{{"n": {number}}}'.encode(), exactly=exactly)
    except ValueError:
        return
    assert parse(dump(value).encode()) is not None
    assert count_in(value, "n") == (7 if number in ("7.0", '"7"') else 0)

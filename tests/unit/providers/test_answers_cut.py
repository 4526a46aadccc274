"""The same answers cut anywhere, and answers of nonsense: never called whole with less than was said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers import sse
from app.providers.reading import read_body
from streams.dispatch.ports import Answer, ErrorClass, Failure
from tests.support.provider.answers.case import all_cases
from tests.support.provider.answers.wires import WIRES

#: What is sent, by its name and the kind of provider, of all that become answers.
WHOLE = {
    (case.name, kind): b"".join(given_.pieces)
    for case in all_cases()
    for kind in case.providers
    for given_ in (case.whole, case.stream)
    if given_ is not None and "failure" not in case.expect
}


def read(kind: str, body: bytes) -> Answer | Failure:
    to_answer, new_stream = WIRES[kind]
    return read_body(body, {}, to_answer, new_stream)


def said(answer: Answer) -> tuple[object, ...]:
    return answer.content, [call["function"] for call in answer.tool_calls]


@given(st.sampled_from(sorted(WHOLE)), st.floats(0.0, 1.0))
def test_what_is_cut_is_never_called_whole(which: tuple[str, str], share: float) -> None:
    body = WHOLE[which]
    whole, part = read(which[1], body), read(which[1], body[: int(len(body) * share)])
    assert isinstance(whole, Answer), whole
    if isinstance(part, Answer):
        assert said(part) == said(whole)
    else:
        assert part.error_class is ErrorClass.RETRYABLE


@given(st.sampled_from(sorted(WHOLE)), st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_however_the_network_cuts_a_stream_its_events_are_the_same(which: tuple[str, str], sizes: list[int]) -> None:
    body = WHOLE[which]
    decoder, at = sse.Decoder(), 0
    found: list[sse.Event] = []
    while at < len(body):
        size = sizes[at % len(sizes)]
        found += decoder.feed(body[at : at + size])
        at += size
    found += decoder.end()
    if sse.is_stream(body):
        whole = sse.Decoder(is_known=True)
        assert found == [*whole.feed(body), *whole.end()]
    else:
        assert (found, decoder.body) == ([], body)


NONSENSE = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 600) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "choices",
                        "delta",
                        "message",
                        "content",
                        "tool_calls",
                        "function",
                        "name",
                        "arguments",
                        "id",
                        "index",
                    ),
                    *(
                        "finish_reason",
                        "usage",
                        "prompt_tokens",
                        "completion_tokens",
                        "error",
                        "code",
                        "type",
                        "detail",
                    ),
                    *(
                        "stop_reason",
                        "text",
                        "output",
                        "status",
                        "response",
                        "content_block",
                        "input",
                        "object",
                        "model",
                    ),
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@pytest.mark.parametrize("kind", WIRES)
@given(st.lists(NONSENSE | st.binary(max_size=20), min_size=1, max_size=4), st.booleans())
def test_nonsense_is_an_answer_or_a_failure_and_no_fault_of_ours(kind: str, values: list[Any], streamed: bool) -> None:
    told = [value if isinstance(value, bytes) else json.dumps(value).encode() for value in values]
    body = b"".join(b"data: " + data + b"\n\n" for data in told) if streamed else told[0]
    result = read(kind, body)
    if isinstance(result, Failure):
        assert result.message
        result.message.encode()
    else:
        assert result.content is not None or result.tool_calls or result.finish_reason != "stop" or kind == "claude"

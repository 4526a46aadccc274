"""What answers say they have used and cost, in all the places and words in which they say it."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers import claude_wire, compatible_wire, openai
from app.providers.chat_stream import ChatStream
from app.providers.reading import completed
from app.providers.usage_wire import UNCOUNTED, as_count, cost_in, cost_stated, counted, later, tokens_in, usage_in
from schemas.request import CommonRequest, CompletionRequest, SearchRequest
from schemas.usage import Tokens
from streams.dispatch.ports import Answer, Failure


def counts(prompt: int, completion: int, **others: int) -> Tokens:
    return Tokens(prompt_tokens=prompt, completion_tokens=completion, **others)


@pytest.mark.parametrize(
    ("value", "count"),
    [
        *((7, 7), (7.0, 7), (Decimal("7.0"), 7), ("7", 7), (0, 0)),
        *((-1, None), (7.5, None), (True, None), (None, None), ("x", None), ("٣", None), ("9" * 99, None)),
        *((10**12, None), (float("inf"), None), (float("nan"), None), (Decimal("1e999999"), None)),
    ],
)
def test_a_count_is_a_whole_number_in_whatever_form(value: object, count: int | None) -> None:
    assert as_count(value) == count


def usages() -> list[tuple[dict[str, Any], Tokens]]:
    """One a line: a usage, and its counts in OpenAI's sense."""
    lines = (Path(__file__).parents[2] / "data" / "usages.jsonl").read_text(encoding="utf-8").splitlines()
    return [(case["usage"], Tokens(**case["tokens"])) for case in map(json.loads, lines)]


@pytest.mark.parametrize(("usage", "tokens"), usages(), ids=str)
def test_counts_are_understood_in_all_words(usage: dict[str, Any], tokens: Tokens) -> None:
    assert tokens_in(usage) == tokens


SAID = {"prompt_tokens": 10, "completion_tokens": 4}
ZEROS = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
PLACES: list[dict[str, Any]] = [
    {"usage": SAID},
    {"usage": None, "choices": [{"usage": SAID}]},
    {"choices": [{"delta": {}, "usage": SAID}]},
    {"x_groq": {"id": "req", "usage": SAID}},
    {"x_vendor": {"usage": SAID}, "usage": ZEROS},
    {"timings": {"prompt_n": 10, "predicted_n": 4}},
    {"prompt_eval_count": 10, "eval_count": 4},
]


@pytest.mark.parametrize("body", PLACES, ids=str)
def test_usage_is_found_wherever_it_is(body: dict[str, Any]) -> None:
    assert tokens_in(usage_in(body)) == counts(10, 4)


@pytest.mark.parametrize("body", [{}, {"usage": None}, {"usage": []}, {"choices": None}, {"x_groq": "7"}], ids=str)
def test_an_answer_may_say_nothing(body: dict[str, Any]) -> None:
    assert usage_in(body) is None


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        ({"cost": 0.00014}, "0.00014"),
        ({"cost": Decimal("0.0050330000000000000001")}, "0.0050330000000000000001"),
        ({"cost": "0.25"}, "0.25"),
        ({"cost": 0}, "0"),
        ({"cost": {"total_cost": 0.5}}, "0.5"),
        ({"cost_in_usd_ticks": 37_756_000}, "0.0037756"),
        ({"estimated_cost": 2.5e-05}, "0.000025"),
        ({"total_cost": 1}, "1"),
        ({"cost": 0.05, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.95}}, "1.00"),
        ({"cost": 0, "is_byok": True}, None),
        ({"cost": 0.05, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.05}}, "0.05"),
        ({"cost": -1}, None),
        ({"cost": "NaN"}, None),
        ({"cost": 1e30}, None),
        ({"cost": True}, None),
        ({"cost": {}}, None),
        ({}, None),
        (None, None),
    ],
)
def test_a_cost_that_is_stated_is_read_to_the_last_digit(usage: object, cost: str | None) -> None:
    assert cost_in(usage) == (None if cost is None else Decimal(cost))


def whole(usage: object, **beside: Any) -> dict[str, Any]:
    choice = {"message": {"role": "assistant", "content": "Low tide."}, "finish_reason": "stop"}
    return {"model": "m", "choices": [choice], "usage": usage, **beside}


@pytest.mark.parametrize("to_answer", [openai.to_answer, compatible_wire.to_answer])
def test_an_answer_has_the_cost_that_it_states(to_answer: Any) -> None:
    answer = to_answer(orjson.dumps(whole({**SAID, "cost": 0.0123})))
    assert (answer.reported_cost, answer.tokens) == (Decimal("0.0123"), counts(10, 4))
    assert to_answer(orjson.dumps(whole(SAID))).reported_cost is None


@pytest.mark.parametrize(
    ("header", "cost"),
    [("2.5e-05", "0.000025"), ("0.5", "0.5"), ("0", None), ("0.0", None), ("None", None), (None, None)],
)
def test_a_gateway_may_state_the_cost_in_a_header(header: str | None, cost: str | None) -> None:
    answer = openai.to_answer(orjson.dumps(whole(SAID)))
    headers = {} if header is None else {"x-litellm-response-cost": header}
    assert cost_stated(answer, headers).reported_cost == (None if cost is None else Decimal(cost))
    said = openai.to_answer(orjson.dumps(whole({**SAID, "cost": 0.25})))
    assert cost_stated(said, {"x-litellm-response-cost": "9"}) is said


def test_claudes_answers_through_a_gateway_may_state_their_cost() -> None:
    usage = {"input_tokens": 1, "output_tokens": 1, "cost": 0.25}
    message = {"model": "c", "stop_reason": "end_turn", "content": [{"type": "text", "text": "Low."}], "usage": usage}
    assert claude_wire.to_answer(orjson.dumps(message)).reported_cost == Decimal("0.25")


USELESS: list[Any] = [
    None,
    [],
    "7",
    {},
    ZEROS,
    {"prompt_tokens": -1, "completion_tokens": 1.5},
    {"prompt_tokens": None},
]


def estimated(read: Answer, request: CommonRequest, model: str) -> Answer:
    answer = completed(read, request, model)
    assert isinstance(answer, Answer)
    return answer


@pytest.mark.parametrize("usage", USELESS, ids=str)
@pytest.mark.parametrize("to_answer", [openai.to_answer, compatible_wire.to_answer])
def test_no_usage_makes_a_good_answer_fail_and_what_is_missing_is_estimated(to_answer: Any, usage: object) -> None:
    answer = estimated(to_answer(orjson.dumps(whole(usage))), CompletionRequest(prompt="x" * 40), "m")
    assert (answer.content, answer.is_estimated) == ("Low tide.", True)
    assert answer.tokens == counts(14, 3)


def test_what_is_said_is_not_estimated_and_half_of_it_is_kept() -> None:
    request = CompletionRequest(prompt="x" * 40)
    said = openai.to_answer(orjson.dumps(whole(SAID)))
    assert estimated(said, request, "m") is said
    half = estimated(openai.to_answer(orjson.dumps(whole({"prompt_tokens": 99}))), request, "m")
    assert (half.tokens, half.is_estimated) == (counts(99, 3), True)
    found = Answer(content=None, model="search", finish_reason="stop", tokens=UNCOUNTED)
    assert estimated(found, SearchRequest(kind="search", query="tides"), "m") is found


@pytest.mark.parametrize("usage", [*USELESS, {"input_tokens": 1}], ids=str)
def test_claudes_answers_need_no_usage_either(usage: object) -> None:
    message = {"model": "c", "stop_reason": "end_turn", "content": [{"type": "text", "text": "Low."}], "usage": usage}
    answer = estimated(claude_wire.to_answer(orjson.dumps(message)), CompletionRequest(prompt="hi"), "c")
    assert (answer.content, answer.is_estimated) == ("Low.", True)


def streamed(*chunks: dict[str, Any]) -> ChatStream:
    stream = ChatStream(openai.answer_of, prompt_tokens=40)
    choice = {"delta": {"content": "Low tide."}, "finish_reason": "stop"}
    for chunk in ({"model": "m", "choices": [choice]}, *chunks):
        stream.take(None, json.dumps(chunk))
    stream.take(None, "[DONE]")
    return stream


@pytest.mark.parametrize(
    "chunks",
    [
        ({"usage": SAID}, {"choices": [], "usage": ZEROS}),
        ({"usage": ZEROS}, {"usage": SAID}, {"usage": None}),
        ({"choices": [{"delta": {}, "usage": SAID}]}, {"choices": []}),
        ({"x_groq": {"usage": SAID}}, {"usage": {}}),
        ({"usage": {**SAID, "completion_tokens": 1}}, {"usage": SAID}),
        ({"usage": {"prompt_tokens": 10}}, {"usage": {"completion_tokens": 4.0}}),
    ],
    ids=str,
)
def test_of_several_usages_in_a_stream_the_last_that_says_something_counts(chunks: tuple[dict[str, Any], ...]) -> None:
    answer = streamed(*chunks).answer()
    assert (answer.tokens, answer.is_estimated) == (counts(10, 4), False)


def test_a_stream_that_states_its_cost_and_no_counts_keeps_the_cost() -> None:
    answer = streamed({"usage": {"cost": 0.5}}).answer()
    assert (answer.reported_cost, answer.tokens.prompt_tokens) == (Decimal("0.5"), 40)


def test_details_are_put_together_field_by_field() -> None:
    known = {"a": 1, "d": {"x": 1, "y": 0}}
    assert later(known, {"a": 0, "b": 2, "d": {"x": None, "y": 3}}) == {"a": 1, "b": 2, "d": {"x": 1, "y": 3}}
    assert later(None, None) is None


NAMES = st.sampled_from(["usage", "cost", "prompt_tokens", "completion_tokens", "total_tokens", "x_a"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["usage", "choices", "x_a", "timings"]), JSON))
def test_whatever_an_answer_says_it_is_read(body: dict[str, Any]) -> None:
    usage = usage_in(body)
    assert tokens_in(usage).total_tokens >= 0
    assert (cost_in(usage) or 0) >= 0


def test_a_tier_alone_is_no_count() -> None:
    assert counted(counts(0, 0).model_copy(update={"service_tier": "flex"})) is None
    assert counted(counts(0, 1)) == counts(0, 1)
    answer = streamed({"service_tier": "flex"}).answer()
    assert (answer.tokens.total_tokens, answer.tokens.service_tier, answer.is_estimated) == (43, "flex", True)


def test_what_was_counted_and_not_sent_is_lost_also_without_a_count_of_the_prompt() -> None:
    empty = Answer(content="", model="m", finish_reason="stop", tokens=counts(0, 50))
    assert isinstance(completed(empty, CompletionRequest(prompt="hi"), "m"), Failure)
    silent = Answer(content=None, model="m", finish_reason="length", tokens=UNCOUNTED)
    assert estimated(silent, CompletionRequest(prompt="x" * 40), "m").tokens.prompt_tokens > 0

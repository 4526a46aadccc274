"""Golden answers: what each provider counts and what that costs, by hand, to the nano-dollar.

The files are answers in the form of the providers' API references, each with its tokens, its cost, and the calculation.
A `stream` stands in place of an `answer`: its events, and for one without usage the estimate of its prompt.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from app.prices import Prices
from app.providers import agent_wire, claude_wire, openai, perplexity_search_wire, perplexity_wire
from app.providers.agent_stream import AgentStream
from app.providers.chat_stream import ChatStream
from app.providers.claude_stream import ClaudeStream
from app.providers.embeddings_wire import vectors_of
from app.providers.stream import StreamedAnswer
from schemas.usage import Tokens
from streams.dispatch.ports import Answer

GOLDEN = sorted((Path(__file__).parents[2] / "data" / "golden").glob("*.json"))
PRICES = Prices()
WIRES: dict[str, Callable[[bytes], Answer]] = {
    "claude": claude_wire.to_answer,
    "openai": openai.to_answer,
    "embedding": partial(vectors_of, 1, 0),
    "sonar": perplexity_wire.to_answer,
    "agent": agent_wire.to_answer,
    "search": perplexity_search_wire.to_answer,
}
STREAMS: dict[str, Callable[[int], StreamedAnswer]] = {
    "claude": lambda _: ClaudeStream(),
    "openai": partial(ChatStream, openai.answer_of),
    "sonar": partial(ChatStream, perplexity_wire.answer_of, exactly=True),
    "agent": AgentStream,
}


def answer_in(case: dict[str, Any]) -> Answer:
    if "answer" in case:
        return WIRES[case["wire"]](orjson.dumps(case["answer"]))
    stream = STREAMS[case["wire"]](case.get("prompt_estimate", 0))
    for event in case["stream"]:
        stream.take(None, event if isinstance(event, str) else json.dumps(event))
    assert stream.is_complete
    return stream.answer()


def test_there_are_golden_answers_of_every_wire_and_streams_of_all_that_stream() -> None:
    cases = [json.loads(file.read_text()) for file in GOLDEN]
    assert {case["wire"] for case in cases if "answer" in case} == set(WIRES)
    assert {case["wire"] for case in cases if "stream" in case} == set(STREAMS)


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_usage_and_cost_are_what_the_hand_calculation_says(file: Path) -> None:
    case: dict[str, Any] = json.loads(file.read_text())
    answer = answer_in(case)
    assert answer.is_estimated is case.get("estimated", False)
    assert answer.tokens == Tokens(**case["tokens"])
    computed = PRICES.cost(case["provider"], case["model"], answer.tokens, datetime.fromisoformat(case["at"]))
    assert (answer.reported_cost is not None) is case.get("reported", False)
    assert (answer.reported_cost if case.get("reported") else computed) == Decimal(case["cost"])

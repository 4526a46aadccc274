"""Answers of providers, changed at random and cut anywhere: `python bench/fuzz.py --seed 7`.

It takes the answers that are known (tests/support/provider/answers), puts nonsense into a place of one of them, adds
lines to a stream, or cuts it, and reads the result as each provider does. What must hold, whatever comes:

- it is an answer or a failure, and no fault of Spillway's;
- an answer that was cut is no answer, unless it says all that the whole one says;
- an answer has a count of its tokens, and all of it can be written into a record;
- a failure that may be billed had been answered in part, states what it used, or breaks off where an answer belongs.

A violation is printed with what was read and the number of its example; the seed and that number bring it back.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

sys.path.insert(0, str(Path(__file__).parents[1]))

from app.providers import sse
from app.providers.reading import completed, read_body
from schemas.request import CompletionRequest
from streams.dispatch.ports import Answer, Failure
from tests.support.provider.answers.case import all_cases
from tests.support.provider.answers.wires import WIRES

EXAMPLES = 50_000
REQUEST = CompletionRequest(prompt="When is high water at Saint-Malo?")
#: What is put in a value's place.
NONSENSE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 7, 7.5, 10**30, "", "x", "null", "stop", "error", "[DONE]", "429", "{", "{}"),
    *([], {}, [None], [{}], [[[]]], {"a": 1}, {"type": "x"}, {"message": "m"}, {"error": {"code": 429}}, "\ud83d"),
)
LINES = (
    b"",
    b"data: x",
    b"data: ",
    b"garbage",
    b"{",
    b"{}",
    b"event: error",
    b"\xff\xfe",
    b"data: [1]",
    b"[",
    b"data: {",
)
DATA = b"data: "
#: Codes of failures of which nobody can know whether they are billed: nothing that could be read has come.
IN_THE_DARK = frozenset({"malformed_answer", "truncated"})


@dataclass(frozen=True)
class Known:
    """One of the known answers, as it is sent by one kind of provider."""

    name: str
    kind: str
    body: bytes


def known() -> list[Known]:
    return [
        Known(case.name, kind, b"".join(given.pieces))
        for case in all_cases()
        for kind in case.providers
        for given in (case.whole, case.stream)
        if given is not None
    ]


def read(kind: str, body: bytes) -> Answer | Failure:
    to_answer, new_stream = WIRES[kind]
    result = read_body(body, {}, to_answer, new_stream)
    return completed(result, REQUEST, "m") if isinstance(result, Answer) else result


def changed(body: bytes, dice: random.Random) -> bytes:
    """The body with nonsense in one place."""
    if not sse.is_stream(body):
        value = _parsed(body)
        return body if value is None else json.dumps(_with_nonsense(value, dice)).encode()
    lines = body.split(b"\n")
    events = [number for number, line in enumerate(lines) if _parsed(line.removeprefix(DATA)) is not None]
    if events:
        number = dice.choice(events)
        value = _parsed(lines[number].removeprefix(DATA))
        lines[number] = DATA + json.dumps(_with_nonsense(value, dice)).encode()
    if dice.random() < 0.3:
        lines.insert(dice.randrange(len(lines)), dice.choice(LINES))
    return b"\n".join(lines)


def _parsed(text: bytes) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict | list) else None


def _with_nonsense(value: Any, dice: random.Random) -> Any:
    value = copy.deepcopy(value)
    places = [place for place in _places(value) if place]
    if not places:
        return dice.choice(NONSENSE)
    *way, last = dice.choice(places)
    inner = value
    for step in way:
        inner = inner[step]
    if dice.random() < 1 / len(NONSENSE):
        del inner[last]
    else:
        inner[last] = copy.deepcopy(dice.choice(NONSENSE))
    return value


def _places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield way
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, part in steps:
        yield from _places(part, (*way, step))


def said(answer: Answer) -> tuple[object, ...]:
    return answer.content, [call.get("function") for call in answer.tool_calls]


def wrong_with(result: Answer | Failure, whole: Answer | None) -> str | None:
    """What must not be. `whole` is what the answer says that this one is a part of."""
    if isinstance(result, Failure):
        result.message.encode()
        if result.may_be_billed and result.tokens is None and result.code not in IN_THE_DARK:
            return "it may be billed, and nothing says why"
        return None
    orjson.dumps([result.content, result.tool_calls, result.citations, result.model, result.finish_reason_raw])
    if not result.tokens.total_tokens:
        return "an answer for nothing"
    if whole is not None and said(whole) != said(result):
        return "called whole, with less than was said"
    return None


def example(seed: int, number: int, pool: list[Known]) -> tuple[Known, bytes, Answer | None]:
    """What is read, and what it is a part of."""
    dice = random.Random(f"{seed}/{number}")  # noqa: S311 - examples, no secrets
    one = dice.choice(pool)
    if dice.random() < 1 / 3:
        whole = read(one.kind, one.body)
        return one, one.body[: dice.randrange(len(one.body) + 1)], whole if isinstance(whole, Answer) else None
    return one, changed(one.body, dice), None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.randrange(10**9))  # noqa: S311
    parser.add_argument("--examples", type=int, default=EXAMPLES)
    parser.add_argument("--only", type=int, help="the number of one example")
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}", flush=True)
    pool, found, wrong = known(), Counter[str](), 0
    for number in [options.only] if options.only is not None else range(options.examples):
        one, body, whole = example(options.seed, number, pool)
        try:
            result = read(one.kind, body)
            why = wrong_with(result, whole)
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            why = f"{type(error).__name__}: {error}"
        else:
            found["answer" if isinstance(result, Answer) else result.code] += 1
        if why is not None:
            wrong += 1
            print(f"example {number}: {one.kind}, {one.name}: {why}\n  {body[:2000]!r}", flush=True)
    print(f"{sum(found.values())} read, {wrong} wrong: {dict(found.most_common())}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

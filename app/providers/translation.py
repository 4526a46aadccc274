"""A request on its way into one provider's words: what it loses there, and which names of tools it changes.

What a provider would refuse is left out or said in other words where that is possible, and the response's `warnings`
tell of it. What cannot be said raises `UnsupportedRequestError`: the next provider may be able to take it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from schemas.response import ResponseWarning
from streams.dispatch.ports import Answer, Delta

#: What OpenAI and Claude both take in names of tools and of schemas, and in ids of calls.
_NOT_OF_A_NAME = re.compile(r"[^a-zA-Z0-9_-]")
LONGEST_NAME = 64

EMPTY_TEXT = ResponseWarning(
    code="empty_text_dropped", message="Texts of the conversation that hold no word were left out: they are refused."
)
IMAGE_MOVED = ResponseWarning(
    code="image_moved", message="A tool's result may hold text only: its picture was sent in a message behind it."
)
JSON_IN_WORDS = ResponseWarning(
    code="json_asked_in_words", message="A JSON object was asked for by a sentence in the system prompt."
)
NAMES_CHANGED = ResponseWarning(
    code="names_changed", message="Names in the conversation were sent with `_` for characters that are refused."
)
PREFILL_REWORDED = ResponseWarning(
    code="prefill_reworded",
    message="The model continues no turn of the assistant: it was asked in a message to go on where that turn ends.",
)
PREFILL_TRIMMED = ResponseWarning(
    code="prefill_trimmed",
    message="The assistant's last turn was sent without the blanks at its end: they are refused.",
)
SCHEMA_LOOSENED = ResponseWarning(
    code="schema_loosened",
    message="Parts of the schema were put into its descriptions: the provider does not enforce them.",
)
SYSTEM_PART_DROPPED = ResponseWarning(
    code="system_part_dropped", message="The system prompt takes text only: its other parts were left out."
)
THOUGHTS_DROPPED = ResponseWarning(
    code="thoughts_dropped", message="Thoughts of a model in the conversation were left out: the provider takes none."
)
TOOL_SCHEMA_LOOSENED = ResponseWarning(
    code="tool_schema_loosened",
    message="Alternatives of a tool's parameters were put into its description: the provider does not enforce them.",
)


def left_out(code: str, names: Iterable[str]) -> ResponseWarning:
    """A model takes none of these fields."""
    return ResponseWarning(code=code, message=f"Sent without {', '.join(names)}: the model refuses it.")


def stops_dropped(most: int) -> ResponseWarning:
    return ResponseWarning(code="stop_dropped", message=f"Only the first {most} stop sequences were sent.")


def limit_lowered(most: int) -> ResponseWarning:
    return ResponseWarning(code="max_tokens_lowered", message=f"The model answers with at most {most} tokens.")


def fitting(name: str, longest: int | None = None) -> str:
    """The name with `_` for what is refused in one, and no longer than that."""
    return _NOT_OF_A_NAME.sub("_", name)[:longest]


class FittingNames:
    """Names as they are sent: what fits stays, and each of the others becomes one that nobody else has."""

    def __init__(self, longest: int | None = None) -> None:
        self._longest = longest
        self._sent: dict[str, str] = {}
        #: The names as they were, by those that are sent.
        self.given: dict[str, str] = {}

    def know(self, names: Iterable[object]) -> None:
        """Keep the names that can be sent as they are, so that no changed one becomes one of them."""
        for name in names:
            if isinstance(name, str) and name and fitting(name, self._longest) == name:
                self._sent[name] = self.given[name] = name

    def sent(self, name: str) -> str:
        if (known := self._sent.get(name)) is not None:
            return known
        fits = fitting(name, self._longest) or "_"
        sent, number = fits, 1
        while sent in self.given:
            number += 1
            end = f"_{number}"
            sent = (fits if self._longest is None else fits[: self._longest - len(end)]) + end
        self._sent[name], self.given[sent] = sent, name
        return sent


class Translation:
    """One request in one provider's words."""

    def __init__(self) -> None:
        #: What the request has lost on the way, each once.
        self.warnings: list[ResponseWarning] = []
        self._tools = FittingNames(LONGEST_NAME)

    def note(self, warning: ResponseWarning) -> None:
        if warning not in self.warnings:
            self.warnings.append(warning)

    # Names of tools ------------------------------------------------------------------------------------------------

    def know(self, names: Iterable[object]) -> None:
        """See `FittingNames.know`, of all tools that the request names."""
        self._tools.know(names)

    def tool_name(self, name: str) -> str:
        """The name as it is sent: one that would be refused gets another, and has its own in the answer."""
        return self._tools.sent(name)

    @property
    def renames(self) -> bool:
        return any(sent != given for sent, given in self._tools.given.items())

    def given(self, delta: Delta) -> Delta:
        """A piece of the answer with the application's names."""
        return replace(delta, tool_calls=self._calls(delta.tool_calls)) if delta.tool_calls else delta

    def whole(self, answer: Answer) -> Answer:
        """The answer with the application's names, and with what the request has lost."""
        if self.renames and answer.tool_calls:
            answer = replace(answer, tool_calls=self._calls(answer.tool_calls))
        return replace(answer, warnings=(*self.warnings, *answer.warnings)) if self.warnings else answer

    def _calls(self, calls: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
        return tuple(self._call(call) for call in calls)

    def _call(self, call: dict[str, Any]) -> dict[str, Any]:
        function = call.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or name not in self._tools.given:
            return call
        return {**call, "function": {**function, "name": self._tools.given[name]}}  # type: ignore[dict-item]

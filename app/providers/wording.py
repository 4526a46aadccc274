"""What a model has refused of the fields that only Spillway has said, and how it is asked since.

A request states what it wants; some fields are ours: the options of a stream, the form of vectors, a temperature and a
limit that nobody asked for. A model that refuses one of them answers well without it, or with it by another name or a
smaller number. So the refusal is remembered, and the request is asked once more, as an attempt of its own. From then on
the model is asked rightly at once. A field that the application states itself is never touched.

What is remembered is of this process, and forgotten after a day: servers are renewed. For one event loop: nothing here
waits or locks.
"""

from __future__ import annotations

import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from app.providers.wire import Body, asks_for_temperature
from schemas.request import CommonRequest, CompletionRequest
from streams.dispatch.ports import Failure

log = logging.getLogger(__name__)

#: Seconds for which a refusal is remembered, and for how many models.
REMEMBERED_FOR = 86_400.0
MOST_MODELS = 1_024

#: The limit of an answer by its names. It is never left out: what an answer may cost is reserved by it.
_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_OTHER_NAME = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
#: What can be left out. Without it a stream may not say what it has used, vectors come as numbers, and the model takes
#: its own temperature.
_OPTIONAL = ("stream_options", "encoding_format", "temperature")

#: Words by which a refusal says what it is about; more names than one for one field.
_NAMED = re.compile(
    r"\b(max_tokens|max_completion_tokens|max_output_tokens|stream_options|include_usage|encoding_format|temperature)\b"
)
_MEANT = {"include_usage": "stream_options"}
#: How the largest limit that a model takes is said, the number being the last group.
_AT_MOST = re.compile(
    r"(at most|less than or equal to|no more than|not exceed|cannot be (?:greater|larger) than|up to|<=?|>"
    r"|\[\s*\d+\s*,|(?:maximum|max)\b[^.\d]{0,60}?)\s*[`'\"(]?\s*(\d[\d,_]*)",
    re.IGNORECASE,
)
#: A limit that is too large for what the prompt leaves is this prompt's affair, and says nothing of the next one.
_OF_THE_PROMPT = re.compile(r"context (length|window|size|limit)|input tokens|your (request|prompt) has", re.IGNORECASE)
#: That a field is not known, and that its value is not taken.
_UNKNOWN = re.compile(
    r"unsupported|not support|unrecogni[sz]ed|unknown|unexpected|not permitted|not allowed|additional propert"
    r"|deprecated|extra (input|field|argument)|use '?max_",
    re.IGNORECASE,
)
_WRONG = re.compile(r"invalid|must be|should be|only the default|cannot be", re.IGNORECASE)
#: No model's limit is as small as this; a number below it is about something else.
_LEAST_LIMIT = 256


@dataclass(frozen=True)
class Habit:
    """How a model is asked: without some fields, with the limit by another name, and with no more than `most`."""

    without: frozenset[str] = frozenset()
    renamed: tuple[tuple[str, str], ...] = ()
    most: int | None = None
    learned_at: float = field(default=0.0, compare=False)

    def __str__(self) -> str:
        """For the log."""
        parts = [f"without {name}" for name in sorted(self.without)]
        parts += [f"{old} as {new}" for old, new in self.renamed]
        return ", ".join([*parts, f"at most {self.most} tokens"] if self.most else parts)


def fields_in(texts: Iterable[str]) -> tuple[str, ...]:
    """The fields of ours that a refusal speaks of, out of all its texts."""
    found = (_MEANT.get(name, name) for text in texts for name in _NAMED.findall(text.lower()))
    return tuple(dict.fromkeys(found))


class Wording:
    """The habits of one provider's models."""

    def __init__(self, provider: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._provider = provider
        self._clock = clock
        self._habits: OrderedDict[str, Habit] = OrderedDict()

    def said(self, model: str, body: Body, request: CommonRequest) -> Body:
        """The body as this model takes it."""
        habit = self._habit(model)
        return _put(body, habit, self._stated(request)) if habit else body

    def lowered(self, body: Body, request: CommonRequest) -> int | None:
        """The limit of an answer in this body, where the request has a larger one."""
        stated = request.max_tokens if isinstance(request, CompletionRequest) else 0
        ours = (name for name in _LIMITS if name not in self._stated(request))
        return next((body[name] for name in ours if isinstance(body.get(name), int) and body[name] < stated), None)

    def learn(self, model: str, body: Body, request: CommonRequest, refusal: Failure) -> bool:
        """Whether the request can be asked once more in other words, now that the model has refused this body."""
        ours = self._stated(request)
        habit = known = self._habit(model) or Habit()
        for name in dict.fromkeys((*refusal.fields, *fields_in([refusal.message]))):
            if name in body and name not in ours:
                habit = _better(habit, name, body, request, refusal.message)
        if _put(body, habit, ours) == body:
            return False
        if habit != known:
            self._keep(model, habit)
        # Else another request has taught it while this one was on its way.
        return True

    def _stated(self, request: CommonRequest) -> Mapping[str, object]:
        """What the application passes through: it is not ours."""
        return request.provider_options.get(self._provider) or {}

    def _habit(self, model: str) -> Habit | None:
        habit = self._habits.get(model)
        return habit if habit is not None and self._clock() - habit.learned_at < REMEMBERED_FOR else None

    def _keep(self, model: str, habit: Habit) -> None:
        log.info("wording_learned: %s: %s: %s", self._provider, model, habit)
        self._habits[model] = replace(habit, learned_at=self._clock())
        self._habits.move_to_end(model)
        while len(self._habits) > MOST_MODELS:
            self._habits.popitem(last=False)


def _better(habit: Habit, name: str, body: Body, request: CommonRequest, message: str) -> Habit:
    """The habit after this field was refused; the same where nothing can be done about it."""
    if name in _LIMITS:
        most = _most_of(message, body[name])
        if most is not None:
            return replace(habit, most=most if habit.most is None else min(most, habit.most))
        other = _OTHER_NAME.get(name)
        if other is None or other in dict(habit.renamed) or not _UNKNOWN.search(message):
            return habit
        return replace(habit, renamed=(*(pair for pair in habit.renamed if pair[0] != name), (name, other)))
    if name not in _OPTIONAL or not (_UNKNOWN.search(message) or _WRONG.search(message)):
        return habit
    if name == "temperature" and (asks_for_temperature(request) or "top_p" in message):
        return habit
    return replace(habit, without=habit.without | {name})


def _most_of(message: str, asked: object) -> int | None:
    """The largest limit that the model takes, where the message says one below what it was asked for."""
    if not isinstance(asked, int) or _OF_THE_PROMPT.search(message):
        return None
    told = (int(re.sub(r"\D", "", found[2])) for found in _AT_MOST.finditer(message))
    return max((most for most in told if _LEAST_LIMIT <= most < asked), default=None)


def _put(body: Body, habit: Habit, stated: Mapping[str, object]) -> Body:
    """The body in a habit's words, but for what the application states itself."""
    renamed = {old: new for old, new in habit.renamed if old not in stated and new not in body}
    kept = {
        renamed.get(name, name): value for name, value in body.items() if name in stated or name not in habit.without
    }
    if habit.most is not None:
        limits = (name for name in _LIMITS if name in kept and name not in stated and isinstance(kept[name], int))
        kept.update({name: min(kept[name], habit.most) for name in limits})
    return kept

"""Faults that the product has had: each puts one back, so that the histories can show that they would find it.

Each is a fault of the agents' glue, which the models of single parts do not run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any
from unittest import mock

from streams.dispatch import agent as dispatch
from streams.dispatch.crew import Crew, Hand
from streams.dispatch.desk import Desk
from streams.dispatch.lane import Lane
from streams.dispatch.quota import Limits
from streams.dispatch.unreported import Unreported
from streams.runtime import faults
from streams.runtime.clock import BrokerClock
from streams.runtime.deliveries import PartitionDeliveries
from streams.runtime.outbox import Told
from streams.runtime.pausing import StagePause
from streams.runtime.unacknowledged import Agreement
from streams.sharing import CachePolicy
from tests.simulation.broker import Broker
from tests.simulation.history import RESULTS
from tests.simulation.worker import Deployment


@dataclass(frozen=True)
class Mutant:
    """What is put back, how, a seed that has shown it, which accidents bring it out, a part of the words that tell it,
    and what else is said of its histories.

    Another seed may show it when the product has changed: `seed` is only the first that is tried.
    """

    fault: str
    patch: Callable[[], Any]
    seed: int
    accidents: tuple[str, ...]
    shows: str
    more: Mapping[str, Any] = field(default_factory=dict)


def _patched(where: Any, name: str, new: Any) -> Any:
    return mock.patch.object(where, name, new)


@contextmanager
def _several(*patches: Any) -> Iterator[None]:
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        yield


def _full_disk_is_the_records_fault() -> Any:
    return _several(_patched(faults, "OURS", ()), _patched(StagePause, "takes", lambda *_: False))


def _report_is_published_once() -> Any:
    async def publish(self: Any, report: Any) -> None:
        await self._outbox.publish(report)

    return _patched(Unreported, "publish", publish)


def _left_stay_movable() -> Any:
    return _patched(Desk, "_forget_who_left", lambda _: None)


def _hands_are_kept() -> Any:
    def take_up(
        self: Any, event: Any, handler: Any, ended: Any = lambda: None, hand: Any = None, *, is_urgent: bool = False
    ) -> None:
        del is_urgent
        held = hand or Hand()
        self._backlog.append((event, handler, ended, held))
        self._start_next()

    return _several(
        _patched(Crew, "look_after", take_up),
        _patched(dispatch.Dispatcher, "_wait_for", _wait_with_a_hand),
    )


def _wait_with_a_hand(self: Any, twin: Any, event: Any, *_: Any) -> None:
    async def follow(_: Any) -> None:
        over = asyncio.get_running_loop().create_future()
        twin.when_over(partial(over.set_result, None))
        await over

    self._crew.look_after(event, follow, lambda: self._arrive(event))


def _reread_offsets_count_as_delivered() -> Any:
    return _patched(PartitionDeliveries, "still_open", PartitionDeliveries.delivered)


def _second_copies_go_by_the_first_ones_drain() -> Any:
    def wait_for(self: Any, twin: Any, event: Any, _: Any, desk: Any, size: int) -> None:
        def look_again() -> None:
            desk.let_go(size)
            again = self._loop.abandon if self._drain.count != twin.drains else self._arrive
            again(event)

        desk.keep_beside(size)
        twin.when_over(look_again)

    return _patched(dispatch.Dispatcher, "_wait_for", wait_for)


def _nobody_waits_for_anothers_report() -> Any:
    async def at_once(*_: Any) -> None: ...

    return _patched(dispatch.Dispatcher, "_until_it_is_known", at_once)


def _nobody_compares_epochs() -> Any:
    return _patched(Broker, "give_epoch", lambda *_: 1)


def _time_is_what_the_machine_shows() -> Any:
    return _patched(BrokerClock, "now", lambda self: datetime.fromtimestamp(self._wall(), UTC))


def _the_note_jumps_over_anothers_rows() -> Any:
    return _patched(Agreement, "acknowledged", lambda _, offset: offset)


def _calls_of_an_earlier_life_are_forgotten() -> Any:
    return _patched(Lane, "adopt", lambda *_: None)


def _everything_is_said_at_each_try() -> Any:
    return _patched(Told, "find", lambda *_: None)


#: Every call is answered, and none for another request.
CALM = {
    "results": RESULTS[:1],
    "long_calls": 0.0,
    "in_bursts": False,
    "deployment": Deployment(cache=CachePolicy(enabled=False)),
}
MUTANTS = (
    Mutant("a full disk buries every event", _full_disk_is_the_records_fault, 1, ("full_disk",), "buried"),
    Mutant(
        "a report that is not taken makes the visit run again",
        _report_is_published_once,
        27,
        ("frozen", "away"),
        "knew it",
    ),
    Mutant(
        "who has left a lane is remembered",
        _left_stay_movable,
        1,
        (),
        "with a fallback",
        {**CALM, "requests": 300, "latency": (0.001, 0.002)},
    ),
    Mutant(
        "a second copy waits with a hand",
        _hands_are_kept,
        0,
        ("kill", "kill", "join"),
        "backlog holds",
        {"deployment": Deployment(Limits(rpm=30)), "size": 1, "requests": 45},
    ),
    Mutant(
        "what is read again counts as delivered",
        _reread_offsets_count_as_delivered,
        15,
        ("full_disk", "full_disk"),
        "lost",
    ),
    Mutant(
        "second copies go by the first one's drain",
        _second_copies_go_by_the_first_ones_drain,
        1,
        ("join", "stop"),
        "wait for ever",
        {"long_calls": 0.4},
    ),
    Mutant(
        "nobody waits for another worker's report",
        _nobody_waits_for_anothers_report,
        0,
        ("join", "stop"),
        "knew it",
        {"long_calls": 0.4, "latency": (0.05, 2.0)},
    ),
    Mutant(
        "nobody compares epochs",
        _nobody_compares_epochs,
        2,
        ("stands_still", "stands_still", "cut_off"),
        "",
        {"latency": (0.05, 2.0), "size": 2},
    ),
    Mutant(
        "the note of how far a table is jumps over another writer's rows",
        lambda: _several(_nobody_compares_epochs(), _the_note_jumps_over_anothers_rows()),
        19,
        ("stands_still", "cut_off", "cut_off"),
        "two answers",
        {"size": 2},
    ),
    Mutant(
        "time is what the machine's clock shows",
        _time_is_what_the_machine_shows,
        27,
        ("clock_jumps", "clock_jumps"),
        "",
    ),
    Mutant(
        "a lane that comes back has forgotten its calls",
        _calls_of_an_earlier_life_are_forgotten,
        0,
        ("join", "join"),
        "calls holds",
        {"long_calls": 0.4},
    ),
    Mutant(
        "everything is said at each try", _everything_is_said_at_each_try, 0, ("closed_topic",), "the same was said"
    ),
)

"""The faults of a round: which, when and how, by its seed alone."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

#: What may happen and how often, against the others.
WEIGHTS = {
    "kill": 3,
    "term": 2,
    "start": 1,
    "freeze": 4,
    "kill2": 1,
    "killstart": 1.5,
    "wipe": 1.2,
    "brokerkill": 1.1,
    "brokerfreeze": 1.1,
    "chkill": 0.8,
    "chfreeze": 0.8,
    "provdown": 1.2,
    "alldown": 0.7,
    "limits": 1,
    "pause": 1,
    "foreign": 1,
}
#: Seconds of load before the first fault, and those at its end in which none begins.
CALM_BEFORE, CALM_AFTER = 8.0, 3.0
#: Seconds of a stand-still that stay below the session's time-out.
SHORT_STAND_STILL = 7.0


@dataclass(frozen=True)
class Fault:
    """One fault. All times are seconds; `at` counts from the first request, the others are how long a state lasts. Each
    kind takes what it needs of the rest.
    """

    at: float
    kind: str
    #: Chooses a worker of those that can be the victim.
    victim: int = 0
    #: Until a dead process is started again.
    away: float = 3.0
    #: How long a worker stands still.
    still: float = 10.0
    #: How long a broker, database or provider is away.
    outage: float = 10.0
    provider: str = "claude"
    #: Between 0 and 1.
    share: float = 0.0
    #: How long a worker has been starting when it is killed.
    early: float = 1.0
    #: How many workers at most.
    count: int = 9


def plan(seed: int, seconds: float) -> list[Fault]:
    """The faults of a load of so many seconds: the same for the same seed."""
    dice = random.Random(f"schedule-{seed}")  # noqa: S311 - the same again for the same seed
    at, faults = CALM_BEFORE, []
    while at < seconds - CALM_AFTER:
        kind = dice.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        faults.append(
            Fault(
                at=round(at, 1),
                kind=kind,
                victim=dice.randrange(3),
                away=round(dice.uniform(1, 10), 1),
                still=round(dice.uniform(5, 40), 1),
                outage=round(dice.uniform(5, 20), 1),
                provider=dice.choice(["claude", "openai", "local"]),
                share=dice.random(),
                early=round(dice.uniform(0.4, 7.0), 1),
            )
        )
        at += dice.uniform(3, 9)
    return faults


def without_zombies(faults: Sequence[Fault]) -> list[Fault]:
    """The same, but no worker stands still longer than its session lasts."""
    return [replace(fault, still=min(fault.still, SHORT_STAND_STILL)) for fault in faults]


def write(file: Path, faults: Sequence[Fault]) -> None:
    file.write_text(json.dumps([asdict(fault) for fault in faults], indent=1) + "\n")


def read(file: Path) -> list[Fault]:
    return [Fault(**fault) for fault in json.loads(file.read_text())]

"""The parts of `make prove`, in their order. A new part is one more entry."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

PYTHON = (sys.executable, "-u")
PYTEST = (*PYTHON, "-m", "pytest", "--numprocesses", "2", "--instafail", "--durations", "15")
#: Of each state machine; `make test` has 100.
EXAMPLES = 10_000
#: Simulated ones, of other seeds each time.
HISTORIES = 3_000
#: What all parts may take together, in minutes.
BUDGET = 142


@dataclass(frozen=True)
class Told:
    """What a part is told: the seed of the run, and pytest's arguments of `make test`."""

    seed: int
    suite: Sequence[str] = ()


@dataclass(frozen=True)
class Part:
    """A command, what it proves, and the minutes after which it is ended and has failed."""

    name: str
    proves: str
    limit: float
    command: Callable[[Told], Sequence[str]]
    environment: Mapping[str, str] = field(default_factory=dict)


STANDSTILL = "tests/e2e/standstill"
LOADFILE = ("--dist", "loadfile", "--no-loadscope-reorder")

PARTS = (
    Part(
        "suite",
        "All that `make test` asserts holds, and this much of the code runs in it.",
        limit=17,
        command=lambda told: [*PYTHON, "bench/covered.py", *told.suite],
    ),
    Part(
        "slow",
        "What needs real minutes holds too: quotas, long accidents, whole months.",
        limit=20,
        command=lambda _: [*PYTEST, *LOADFILE, "-m", "prove", "--ignore", STANDSTILL],
    ),
    Part(
        "standstill",
        "A worker that stood still, or was cut off, at any moment pays no call twice and writes over nobody.",
        limit=45,
        command=lambda _: [*PYTEST, *LOADFILE, "-m", "prove", STANDSTILL],
    ),
    Part(
        "accidents",
        "A kill, a stop, a broker and a database that are away lose none of more requests than in `make test`.",
        limit=8,
        command=lambda _: [*PYTEST, *LOADFILE, "tests/e2e/test_failures.py"],
        environment={"SPILLWAY_TEST_REQUESTS": "3000"},
    ),
    Part(
        "models",
        "The state machines and all other properties hold for examples that nobody has chosen.",
        limit=14,
        command=lambda told: [
            *(*PYTEST, "--dist", "worksteal", "-m", "hypothesis", "-o", "timeout=0"),
            *(f"--hypothesis-seed={told.seed}", "tests/model", "tests/unit"),
        ],
        environment={"SPILLWAY_EXAMPLES": str(EXAMPLES)},
    ),
    Part(
        "answers",
        "Answers that are changed at random or cut anywhere are never called whole, and none costs without a reason.",
        limit=1,
        command=lambda told: [*PYTHON, "bench/fuzz.py", "--seed", str(told.seed)],
    ),
    Part(
        "histories",
        "The agents lose, contradict and repeat nothing in any of so many simulated histories.",
        limit=12,
        command=lambda told: [
            *(*PYTHON, "-m", "tests.simulation"),
            *(str(told.seed * HISTORIES), str((told.seed + 1) * HISTORIES)),
        ],
    ),
    Part(
        "kills",
        "A worker that is killed or stopped at any moment under load loses, contradicts and repeats nothing.",
        limit=10,
        command=lambda told: [
            *(*PYTHON, "bench/failures.py", "--rounds", "3", "--requests", "3000", "--rate", "200"),
            *("--seed", str(told.seed), "--logs", ".prove/kills"),
        ],
    ),
    Part(
        "chaos",
        "After faults of all kinds at once, topics, bills, accounts and quotas agree, by a checker of its own.",
        limit=15,
        command=lambda told: [
            *(*PYTHON, "bench/chaos.py", str(told.seed * 2), str(told.seed * 2 + 1), "--folder", ".prove/chaos"),
        ],
    ),
)

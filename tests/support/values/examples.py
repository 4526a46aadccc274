"""How many examples hypothesis draws, and which: the same each time, unless a seed says otherwise.

`make test` judges a change by few and fixed ones, `make prove` draws many others by its seed (SPILLWAY_EXAMPLES and
`--hypothesis-seed`).
"""

from __future__ import annotations

import os

import hypothesis
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants

#: Set by bench/prove.py.
VARIABLE = "SPILLWAY_EXAMPLES"
#: Of each state machine.
EXAMPLES = int(os.environ.get(VARIABLE, "100"))


def prepare() -> None:
    """The profile of all tests.

    How long an example takes, or is drawn for, says how busy the machine is: a JVM that starts beside it is no fault.
    """
    hypothesis.settings.register_profile(
        "patient",
        deadline=None,
        derandomize=VARIABLE not in os.environ,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
        print_blob=True,
    )
    hypothesis.settings.load_profile("patient")
    # Hypothesis also draws constants that it finds in the modules of the project that are imported at the moment: the
    # same seed would draw other examples beside other tests, and a failure could not be repeated alone.
    nothing = Constants()
    providers._get_local_constants = lambda: nothing

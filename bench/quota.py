"""How much of a provider's quota is used, and how often it is refused: minutes of load against the simulator's quotas.

python bench/quota.py                 all mixes, about 35 minutes
python bench/quota.py rpm-short       one of them

Each mix runs a worker whose limits are the simulator's (or wrong on purpose), with more work than they allow, and reads
the simulator's own journal afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.load.quota import MIXES, run_mix
from tests.support.stack.running import free_stack, settings_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mixes", nargs="*", choices=[*MIXES, []], help="which; all, unless given")
    parser.add_argument("--minutes", type=float, default=4.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stack = free_stack(Path(folder) / "stack")
        stack.start()
        try:
            for name in options.mixes or MIXES:
                work = run_mix(stack, settings_of(stack), Path(folder), MIXES[name], options.minutes * 60)
                print(name, json.dumps(asyncio.run(work).summary()), flush=True)
        finally:
            stack.stop()


if __name__ == "__main__":
    main()

"""The simulator with a minute of so many seconds: `python short_minute.py 20 serve --rpm 60 …`

For workers with the same AI_MINUTE_SECONDS, so that a test of limits need not wait for real minutes.
"""

from __future__ import annotations

import sys
from typing import Any

from llmock import ratelimit
from llmock.cli import app

MINUTE = 60.0


def shorten(seconds: float) -> None:
    """Quotas come back within so many seconds."""

    class Bucket(ratelimit._Bucket):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.rate *= MINUTE / seconds

    ratelimit._Bucket = Bucket  # type: ignore[misc]


if __name__ == "__main__":
    shorten(float(sys.argv.pop(1)))
    app()

"""Requests that ask a lane for a call, where it does not matter which."""

from __future__ import annotations

from itertools import count

from streams.dispatch.breaker import Caller

_numbers = count()


def another(workspace: str = "acme") -> Caller:
    """A request that has not been there before."""
    return Caller(f"{workspace}/{next(_numbers)}", workspace)

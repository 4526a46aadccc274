"""Trace contexts as others send them."""

from __future__ import annotations

from app.tracing.context import _read, read
from streams.tracing import LONGEST_CONTEXT

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_context_that_is_longer_than_any_is_not_read_and_not_remembered() -> None:
    before = _read.cache_info().currsize
    assert not read(TRACEPARENT + "-" + "x" * 64_000).is_valid
    assert _read.cache_info().currsize == before


def test_a_state_that_is_longer_than_any_does_not_cost_its_trace() -> None:
    found = read(TRACEPARENT, f"vendor={'x' * LONGEST_CONTEXT}")
    assert found.is_valid
    assert not found.trace_state


def test_a_context_with_its_state_is_read() -> None:
    found = read(TRACEPARENT, "vendor=1")
    assert (f"{found.trace_id:032x}", found.trace_state.get("vendor")) == ("0af7651916cd43dd8448eb211c80319c", "1")

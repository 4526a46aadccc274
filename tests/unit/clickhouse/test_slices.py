"""A long period in pieces."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from app.clickhouse.slices import gather

START = datetime(2026, 11, 1, tzinfo=UTC)


@given(st.dictionaries(st.integers(0, 100), st.integers(1, 50), max_size=30), st.integers(1, 100))
def test_every_hour_with_rows_is_in_one_piece_and_pieces_are_small(rows: dict[int, int], most: int) -> None:
    hours = [(START + timedelta(hours=hour), rows[hour]) for hour in sorted(rows)]
    pieces = list(gather(hours, most))
    for moment, _ in hours:
        assert sum(piece.start <= moment < piece.end for piece in pieces) == 1
    for piece in pieces:
        inside = [count for moment, count in hours if piece.start <= moment < piece.end]
        assert sum(inside) <= most or len(inside) == 1
    assert all(before.end <= after.start for before, after in pairwise(pieces))

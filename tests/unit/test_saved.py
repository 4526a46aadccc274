"""What operators have set, in a file: what is read of it."""

from __future__ import annotations

import pytest

from app.recovery.saved import SavedError, load
from app.settings import Settings


@pytest.mark.parametrize(
    "line",
    [
        b"x",
        b"[]",
        b"null",
        b'{"topic":"ai.budgets"}',
        b'{"topic":{},"key":"a","value":1}',
        b'{"topic":"x","key":"a","value":1}',
    ],
)
async def test_a_line_that_is_none_of_ours_is_told_by_its_number(line: bytes) -> None:
    with pytest.raises(SavedError, match="Line 2 is n"):
        await load(Settings(), [b"", line])

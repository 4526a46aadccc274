"""A streamed answer as it is read: in order, once, and from the beginning again where an attempt broke off."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.client.pieces import Assembler, Piece
from schemas.chunk import Chunk
from tests.unit.client.making import chunk, response

CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def read(assembler: Assembler, *chunks: Chunk) -> list[Piece]:
    return [piece for one in chunks if (piece := assembler.take(one)) is not None]


def shown(pieces: list[Piece]) -> str:
    """What somebody has before them who heeds `restarted`."""
    text = ""
    for piece in pieces:
        text = piece.content if piece.restarted else text + piece.content
    return text


def test_chunks_are_pieces_in_order() -> None:
    assembler = Assembler()
    assert [p.content for p in read(assembler, chunk(1, 0, "a"), chunk(1, 1, "b"))] == ["a", "b"]
    assert assembler.finish(response("ab")) is None


def test_a_chunk_that_comes_twice_is_read_once() -> None:
    assert shown(read(Assembler(), chunk(1, 0, "a"), chunk(1, 0, "a"), chunk(1, 1, "b"))) == "ab"


def test_a_later_attempt_begins_anew_and_an_earlier_one_is_void() -> None:
    found = read(Assembler(), chunk(1, 0, "a"), chunk(2, 0, "A"), chunk(1, 1, "b"), chunk(2, 1, "B"))
    assert [(p.content, p.restarted) for p in found] == [("a", False), ("A", True), ("B", False)]


def test_an_attempt_that_said_nothing_makes_nothing_void() -> None:
    [piece] = read(Assembler(), chunk(3, 0, "a"))
    assert not piece.restarted


def test_an_answer_without_chunks_is_one_piece() -> None:
    assert Assembler().finish(response("from the cache", attempts=0)) == Piece("from the cache")
    assert Assembler().finish(response(None, tool_calls=(CALL,))) == Piece("", ({"index": 0, **CALL},))


def test_tool_calls_that_were_streamed_are_not_told_again() -> None:
    assembler = Assembler()
    read(assembler, chunk(1, 0, "", tool_calls=({"index": 0, **CALL},)))
    assert assembler.finish(response(None, tool_calls=(CALL,))) is None


def test_an_answer_that_is_another_one_begins_anew() -> None:
    assembler = Assembler()
    read(assembler, chunk(1, 0, "half of"))
    assert assembler.finish(response("Something else.", attempts=2)) == Piece("Something else.", (), 2, restarted=True)


deliveries = st.lists(
    st.tuples(st.integers(1, 3), st.integers(0, 4), st.booleans()).filter(lambda one: one[2]), max_size=40
)


@given(deliveries, st.integers(1, 3))
def test_whatever_is_lost_repeated_or_late_the_reader_ends_with_the_whole_answer(
    arrivals: list[tuple[int, int, bool]], last: int
) -> None:
    """Chunk n of attempt a reads `a:n `; the last attempt's five chunks are the answer."""
    assembler = Assembler()
    found = read(assembler, *(chunk(a, n, f"{a}:{n} ") for a, n, _ in arrivals if a <= last))
    whole = "".join(f"{last}:{n} " for n in range(5))
    end = assembler.finish(response(whole, attempts=last))
    assert shown([*found, *([end] if end else [])]) == whole
    assert assembler.text == whole

"""Which pieces of an answer a worker may tell: while it has the partition, and then while it is taken for alive."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.dispatch.ownership import CATCH_UP, Ownership
from streams.runtime.lives import Life, Lives
from tests.support.clock.waiting import eventually


@dataclass
class Peer:
    """Implements Owners and Presence."""

    name: str = "me"
    may: bool = True
    is_taken_for_alive: bool = True

    def may_call(self, _: int) -> bool:
        return self.may

    def lives(self, name: str) -> bool:
        return name == "other"

    def holds(self) -> bool:
        return self.is_taken_for_alive


def owning() -> tuple[Ownership, Peer, Lives, Life]:
    peer, lives = Peer(), Lives()
    life = lives.begin([3])[3]
    return Ownership(peer, lives, peer, interval=0.001), peer, lives, life


def test_a_call_needs_a_lease_and_the_life_in_which_it_was_decided() -> None:
    ownership, peer, lives, life = owning()
    assert ownership.may_call(life)
    peer.may = False
    assert not ownership.may_call(life)
    peer.may = True
    later = lives.begin([3])[3]
    assert not ownership.may_call(life)
    assert ownership.may_call(later)
    assert (ownership.life(3), ownership.life(4)) == (later, None)


async def test_who_has_stood_still_makes_no_call_before_it_has_heard_what_was_said_meanwhile(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A request may have been cancelled, and pieces of a call that goes on are told all the same."""
    peer, lives, now = Peer(), Lives(), [100.0]
    life = lives.begin([3])[3]
    ownership = Ownership(peer, lives, peer, interval=0.5, steady=lambda: now[0])
    now[0] += 60.0
    assert ownership.may_call(life), "nobody has looked yet"
    watching = asyncio.create_task(ownership.watch())
    await asyncio.sleep(0)
    now[0] += 2.4
    assert ownership.may_call(life), "a loop that is busy"
    now[0] += 5.6
    assert not ownership.may_call(life)
    assert ownership.telling(life)()
    now[0] += CATCH_UP - 0.1
    assert not ownership.may_call(life)
    now[0] += 0.2
    assert ownership.may_call(life)
    assert caplog.text.count("stood_still: for 5.6 s") == 1
    watching.cancel()


def test_pieces_are_told_while_the_partition_is_this_workers_whatever_others_take_it_for() -> None:
    ownership, peer, _, life = owning()
    peer.is_taken_for_alive = False
    may_tell = ownership.telling(life)
    assert may_tell()


def test_pieces_are_told_after_that_while_others_take_it_for_alive() -> None:
    ownership, peer, lives, life = owning()
    may_tell = ownership.telling(life)
    lives.end()
    assert may_tell()
    peer.is_taken_for_alive = False
    assert not may_tell()
    peer.is_taken_for_alive = True
    assert not may_tell(), "the next attempt may have begun meanwhile"
    assert ownership.telling(life)(), "a call that begins now is another one"


def test_a_call_that_began_when_others_did_not_is_told_in_its_partition_only() -> None:
    ownership, peer, lives, life = owning()
    peer.is_taken_for_alive = False
    may_tell = ownership.telling(life)
    peer.is_taken_for_alive = True
    assert may_tell()
    lives.end()
    assert not may_tell()


async def test_a_lapse_between_two_pieces_is_seen_by_the_watch() -> None:
    ownership, peer, lives, life = owning()
    may_tell = ownership.telling(life)
    lives.end()
    watching = asyncio.create_task(ownership.watch())
    peer.is_taken_for_alive = False
    await eventually(lambda: ownership._lapses, every=0.001)
    peer.is_taken_for_alive = True
    assert not may_tell()
    watching.cancel()


@given(st.lists(st.booleans(), max_size=20), st.lists(st.booleans(), max_size=20))
def test_no_piece_is_told_after_a_lapse_without_the_partition(before: list[bool], after: list[bool]) -> None:
    ownership, peer, lives, life = owning()
    for alive in before:
        peer.is_taken_for_alive = alive
        ownership._look()
    may_tell = ownership.telling(life)
    began_alive = peer.is_taken_for_alive
    lives.end()
    for number, alive in enumerate(after, 1):
        peer.is_taken_for_alive = alive
        assert may_tell() == (began_alive and all(after[:number]))

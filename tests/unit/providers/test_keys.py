"""Keys are used in turn, rest when they are refused, follow their file, and are never shown."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers.keys import SET_ASIDE, BadKeyError, Key, KeyRing, judge_key, split_keys
from app.providers.redact import MESSAGE_LIMIT, cut, without_keys
from streams.dispatch.ports import ErrorClass, Failure
from tests.support.reader.logs import said

REFUSED = Failure(ErrorClass.FALL_BACK, "bad_key", "Wrong key.")
A, B, C = "key-aaaa", "key-bbbb", "key-cccc"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def taken(ring: KeyRing, times: int) -> list[str]:
    return [key.value for key in (ring.take() for _ in range(times)) if key is not None]


def take(ring: KeyRing, value: str) -> Key:
    """The ring's key with this value, as soon as it is its turn."""
    return next(key for key in (ring.take() for _ in range(len(ring))) if key is not None and key.value == value)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Write the file of keys anew, as whoever rotates them does: another file is moved into its place."""
    count = 0

    def written(text: str) -> Path:
        nonlocal count
        count += 1
        new, file = tmp_path / "new", tmp_path / "keys"
        new.write_text(text)
        os.utime(new, ns=(count, count))
        new.replace(file)
        return file

    return written


@pytest.mark.parametrize("text", [f"{A},{B}", f" {A} ,, {B} ", f"{A}\n{B}\n", f"\r\n{A}\r\n{B},{A}"])
def test_keys_are_separated_by_commas_or_lines_and_each_counts_once(text: str) -> None:
    assert [key.value for key in split_keys("X", text)] == [A, B]


def test_a_place_tells_which_key_it_is_and_one_key_is_its_variable() -> None:
    assert [key.place for key in split_keys("X", f"{A},{B}")] == ["key 1 of 2 of X", "key 2 of 2 of X"]
    assert [key.place for key in split_keys("X", A)] == ["X"]


def test_a_key_that_no_header_can_hold_is_refused_by_its_place() -> None:
    with pytest.raises(BadKeyError, match=r"^key 2 of 2 of X holds characters") as refused:
        KeyRing("X", f"{A},sk 1")
    assert "sk" not in str(refused.value)


def test_without_keys_there_is_none_to_take() -> None:
    ring = KeyRing("X")
    assert (len(ring), ring.take(), ring.secrets()) == (0, None, ())


@given(st.integers(1, 5), st.integers(1, 4))
def test_every_key_has_its_turn_equally_often(count: int, rounds: int) -> None:
    ring = KeyRing("X", ",".join(f"key-{number}" for number in range(count)))
    found = taken(ring, count * rounds)
    assert {found.count(value) for value in found} == {rounds}
    assert len(set(found)) == count


def test_a_refused_key_rests_until_its_time_is_over(clock: Clock) -> None:
    ring = KeyRing("X", f"{A},{B}", clock=clock)
    assert ring.refuse(take(ring, A))
    assert set(taken(ring, 6)) == {B}
    clock.now += SET_ASIDE
    assert set(taken(ring, 6)) == {A, B}


def test_when_all_are_refused_the_one_that_rested_longest_is_tried(clock: Clock) -> None:
    ring = KeyRing("X", f"{A},{B}", clock=clock)
    assert ring.refuse(take(ring, B))
    clock.now += 1
    assert not ring.refuse(take(ring, A))
    assert taken(ring, 2) == [B, B]


def test_a_key_that_is_taken_after_all_rests_no_longer(clock: Clock) -> None:
    ring = KeyRing("X", f"{A},{B}", clock=clock)
    refused = take(ring, A)
    ring.refuse(refused)
    ring.accept(refused)
    assert set(taken(ring, 4)) == {A, B}


def test_a_refusal_is_logged_once_with_place_and_fingerprint_only(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    ring = KeyRing("X", f"{A},{B}", clock=clock)
    key = take(ring, A)
    with caplog.at_level(logging.DEBUG):
        ring.refuse(key)
        ring.refuse(key)
    assert len(said(caplog, "app.providers.keys")) == 1
    assert f"key 1 of 2 of X (fingerprint {key.fingerprint})" in caplog.text
    assert A not in caplog.text
    assert A not in repr(key)


# What a failure means for a key ------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["bad_key", "forbidden", "quota_exhausted"])
def test_while_another_key_is_left_a_refusal_asks_for_another_attempt(code: str) -> None:
    ring = KeyRing("X", f"{A},{B}")
    failure = judge_key(Failure(ErrorClass.FALL_BACK, code, "No."), take(ring, A), ring)
    assert (failure.error_class, failure.code) == (ErrorClass.RETRYABLE, "key_refused")
    assert failure.message == "No (key 1 of 2 of X)."
    last = judge_key(Failure(ErrorClass.FALL_BACK, code, "No."), take(ring, B), ring)
    assert (last.error_class, last.code) == (ErrorClass.FALL_BACK, code)


def test_the_only_key_falls_back_as_ever_and_is_named() -> None:
    ring = KeyRing("AI_OPENAI_API_KEY", A)
    failure = judge_key(REFUSED, ring.take(), ring)
    assert (failure.error_class, failure.code) == (ErrorClass.FALL_BACK, "bad_key")
    assert failure.message == "Wrong key (AI_OPENAI_API_KEY)."
    assert taken(ring, 1) == [A]


def test_other_failures_and_calls_without_a_key_are_left_alone() -> None:
    ring, busy = KeyRing("X", f"{A},{B}"), Failure(ErrorClass.RETRYABLE, "rate_limited", "slow down")
    assert judge_key(busy, ring.take(), ring) is busy
    assert judge_key(REFUSED, None, KeyRing("X")) is REFUSED
    assert set(taken(ring, 4)) == {A, B}


# Files -------------------------------------------------------------------------------------------------------------


def test_a_file_that_changes_is_read_again_a_second_later(clock: Clock, write: Callable[[str], Path]) -> None:
    ring = KeyRing("X_FILE", file=write(f"{A}\n{B}\n"), clock=clock)
    write(C)
    assert C not in taken(ring, 4)
    clock.now += 1
    assert taken(ring, 2) == [C, C]
    assert set(ring.secrets()) == {A, B, C}, "a call with an old key may be under way"


def test_a_key_that_was_replaced_and_is_refused_is_tried_again_with_the_new_one(
    clock: Clock, write: Callable[[str], Path]
) -> None:
    ring = KeyRing("X_FILE", file=write(A), clock=clock)
    old = ring.take()
    write(B)
    clock.now += 1
    assert judge_key(REFUSED, old, ring).code == "key_refused"
    assert taken(ring, 1) == [B]


def test_a_refused_key_rests_although_the_file_has_changed(clock: Clock, write: Callable[[str], Path]) -> None:
    ring = KeyRing("X_FILE", file=write(f"{A}\n{B}"), clock=clock)
    ring.refuse(take(ring, A))
    write(f"{A}\n{C}")
    clock.now += 1
    assert set(taken(ring, 4)) == {C}


@pytest.mark.parametrize("text", ["", "\n", "sk 1", None])
def test_a_file_that_turns_bad_leaves_the_keys_as_they_were(
    clock: Clock, write: Callable[[str], Path], caplog: pytest.LogCaptureFixture, text: str | None
) -> None:
    file = write(f"{A}\n{B}")
    ring = KeyRing("X_FILE", file=file, clock=clock)
    if text is None:
        file.unlink()
    else:
        write(text)
    clock.now += 1
    with caplog.at_level(logging.WARNING):
        assert set(taken(ring, 4)) == {A, B}
    assert [record.msg.split(":")[0] for record in said(caplog, "app.providers.keys")] == ["keys_kept"]
    write(C)
    clock.now += 1
    assert taken(ring, 1) == [C]


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "cannot be read: No such file"), (b"\xff", "is not UTF-8"), (b" \n", "holds no key")]
)
def test_a_file_without_a_key_is_refused_at_the_start(tmp_path: Path, content: bytes | None, reason: str) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadKeyError, match=rf"^X_FILE: the file .*{reason}"):
        KeyRing("X_FILE", file=file)


# Messages ----------------------------------------------------------------------------------------------------------


def test_all_keys_are_kept_out_of_a_message_also_one_that_begins_another() -> None:
    ring = KeyRing("X", "abcdef,abcdefghij")
    told = without_keys("abcdefghij is not abcdef", ring.secrets())
    assert told == "… is not …"


@given(st.integers(0, 60))
def test_a_key_that_a_cut_message_ends_in_is_not_half_shown(before: int) -> None:
    key = "hf_Zz9Yy8Xx7Ww6Vv5Uu4Tt3"
    message = cut("." * (MESSAGE_LIMIT - before) + key + "!" * 100)
    assert "hf_Z" not in without_keys(message, [key])

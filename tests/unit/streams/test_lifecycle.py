"""The record of a request, and what its table keeps of it."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.internal import Follow
from streams.lifecycle import ADMISSION, Charge, Reported, RequestRecord, Sharing, request_key
from streams.rows import decode_row, encode_row

MOMENTS = st.floats(0, 4e9)
OFFSETS = st.integers(-1, 2**63 - 1)
RECORDS = st.builds(
    RequestRecord,
    admitted_by=OFFSETS,
    admitted_at=MOMENTS,
    reports=st.dictionaries(
        st.integers(1, 50), st.builds(Reported, offset=OFFSETS, follow=st.sampled_from(Follow)), max_size=5
    ),
    month=st.sampled_from([None, "2026-11"]),
    reserved=st.integers(0, 10**18),
    charges=st.lists(st.builds(Charge, OFFSETS, st.integers(1, 9), st.integers(0, 2**63), st.integers(0, 10**18))).map(
        tuple
    ),
    sharing=st.none()
    | st.builds(Sharing, st.text("abc", min_size=1), st.integers(1, 10**9), st.none() | OFFSETS, st.booleans()),
    told=st.none() | st.text(st.characters(codec="utf-8"), min_size=1),
)


@given(RECORDS)
def test_an_open_record_survives_its_table(record: RequestRecord) -> None:
    assert decode_row(encode_row(record)) == record


@given(RECORDS, OFFSETS, MOMENTS)
def test_a_closed_record_survives_its_table(record: RequestRecord, by: int, at: float) -> None:
    closed = record.close(by, at)
    assert decode_row(encode_row(closed)) == closed
    assert closed.closed


def test_a_request_that_admission_answered_is_closed() -> None:
    record = RequestRecord(7, 1.0).close(ADMISSION, 2.0)
    assert record.closed
    assert decode_row(encode_row(record)) == record


def test_what_is_written_down_names_its_version_and_is_read_without_it() -> None:
    record = RequestRecord(7, 1.5)
    assert orjson.loads(encode_row(record)) == {"v": 1, "o": 7, "t": 1.5}
    assert decode_row(b'{"o":7,"t":1.5}') == record


def test_noting_a_report_changes_no_other_record() -> None:
    first = RequestRecord(7, 1.0).report(1, 20, Follow.RETRY)
    second = first.report(2, 21, Follow.ANSWER)
    assert first.reports == {1: Reported(20, Follow.RETRY)}
    assert second.reports == {1: Reported(20, Follow.RETRY), 2: Reported(21, Follow.ANSWER)}


@pytest.mark.parametrize(
    ("record", "moment"), [(RequestRecord(7, 1.0), 1.0), (RequestRecord(7, 1.0).close(3, 9.0), 9.0)]
)
def test_a_record_is_idle_since_it_was_closed_or_else_admitted(record: RequestRecord, moment: float) -> None:
    assert record.last_touched() == moment


WORKSPACES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,9}", fullmatch=True)
REQUESTS = st.from_regex(r"[\x21-\x7e]{1,9}", fullmatch=True)


@given(WORKSPACES, REQUESTS, WORKSPACES, REQUESTS)
def test_two_requests_never_share_a_key(workspace: str, request: str, other: str, another: str) -> None:
    assert (request_key(workspace, request) == request_key(other, another)) is (
        (workspace, request) == (other, another)
    )

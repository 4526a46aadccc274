"""What an audit makes of stretches that were deleted before they were read."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from app.audit.compare import Judge
from app.audit.findings import Kind
from app.audit.gone import gap_of, once, untold
from schemas.dead_letter import GONE_LAST, Gap
from streams.records import Record
from streams.runtime.gone import letter
from streams.topology import REQUESTS, TICKS
from tests.unit.audit.world import scope

GAP = Gap("spillway", REQUESTS, 3, 10, 109)


def read(record: Record) -> Any:
    return cast(Any, SimpleNamespace(key=record.key, value=record.value, headers=record.headers))


def test_a_group_whose_next_record_is_gone_has_a_gap() -> None:
    committed = {(REQUESTS, 3): 10, (REQUESTS, 4): 7, (REQUESTS, 5): 0, (TICKS, 0): 1, ("deleted", 0): 5}
    starts = {(REQUESTS, 3): 110, (REQUESTS, 4): 7, (REQUESTS, 5): 0, (TICKS, 0): 100}
    assert untold("spillway", committed, starts) == [GAP]


def test_a_gap_that_was_told_twice_or_has_grown_since_is_one() -> None:
    longer, other = replace(GAP, last=500), replace(GAP, group="spillway-ledger")
    assert once([GAP, other, longer, GAP]) == [longer, other]


def test_letters_of_other_codes_and_those_that_are_none_tell_of_no_gap() -> None:
    told = letter(GAP)
    assert gap_of(read(told)) == GAP
    without = tuple(pair for pair in told.headers if pair[0] != GONE_LAST)
    assert gap_of(read(replace(told, headers=without))) is None
    assert gap_of(read(replace(told, headers=told.headers[1:]))) is None
    assert gap_of(read(Record("ai.dead-letters", b"k", b"v"))) is None


def test_each_gap_is_a_finding_with_its_place_and_range() -> None:
    judge = Judge(scope())
    judge.gone([GAP])
    findings = judge.verdict.findings
    assert not findings.clean
    [example] = findings.examples[Kind.RECORDS_GONE]
    assert example.name == "ai.requests[3]"
    assert example.detail == "offsets 10 to 109 (100) were deleted before spillway had read them"
    assert judge.verdict.figures.counts["records_gone"] == 100

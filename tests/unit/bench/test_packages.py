"""Coverage, a line for each package."""

from __future__ import annotations

from bench.proving.packages import by_package, shown


def file(statements: int, missed: int) -> dict[str, dict[str, int]]:
    return {"summary": {"num_statements": statements, "missing_lines": missed}}


REPORT = {
    "files": {
        "streams/dispatch/lane.py": file(90, 9),
        "streams/dispatch/deeper/still.py": file(10, 1),
        "app/kafka.py": file(8, 2),
        "app/cli/__init__.py": file(0, 0),
    }
}


def test_files_add_up_by_package_whatever_is_below_it() -> None:
    assert by_package(REPORT) == [
        ("app", 8, 2, 75.0),
        ("app/cli", 0, 0, 100.0),
        ("streams/dispatch", 100, 10, 90.0),
        ("all", 108, 12, 100 * 96 / 108),
    ]


def test_they_are_shown_as_a_table() -> None:
    assert shown(REPORT).splitlines()[0] == "package           statements  missed  percent"
    assert shown(REPORT).splitlines()[-1] == "all                      108      12     88.9"

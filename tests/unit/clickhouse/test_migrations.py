"""The numbered SQL files."""

from __future__ import annotations

import pytest

from app.clickhouse.migrate import Migration, MigrationError, known_migrations, missing_migrations

ONE, TWO = Migration("0001_one", "CREATE 1;\n"), Migration("0002_two", "CREATE 2;\n")


def test_no_two_files_have_the_same_number() -> None:
    numbers = [int(migration.name[:4]) for migration in known_migrations()]
    assert numbers == sorted(set(numbers))


def test_every_statement_can_be_repeated() -> None:
    statements = [statement for migration in known_migrations() for statement in migration.statements()]
    assert statements
    for statement in statements:
        code = " ".join(line for line in statement.splitlines() if not line.lstrip().startswith("--"))
        assert any(words in code for words in ("IF NOT EXISTS", "IF EXISTS", "CREATE OR REPLACE VIEW"))


def test_a_statement_ends_at_a_semicolon_at_the_end_of_a_line() -> None:
    assert Migration("x", "SELECT ';' ;  \n-- a; b\nSELECT 2;\n").statements() == ["SELECT ';'", "-- a; b\nSELECT 2"]


def test_only_what_has_not_run_is_missing() -> None:
    assert missing_migrations([ONE, TWO], {}) == [ONE, TWO]
    assert missing_migrations([ONE, TWO], {ONE.name: ONE.checksum}) == [TWO]


def test_migrations_of_a_newer_version_are_left_alone() -> None:
    assert missing_migrations([ONE], {ONE.name: ONE.checksum, TWO.name: TWO.checksum}) == []


def test_a_migration_that_was_changed_is_refused_by_name() -> None:
    with pytest.raises(MigrationError, match="0001_one was changed"):
        missing_migrations([ONE], {ONE.name: TWO.checksum})

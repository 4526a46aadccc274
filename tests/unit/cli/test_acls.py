"""`spillway acls`."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from app.cli.acls import as_commands
from app.cli.main import app
from streams.access import Grant


def test_equal_grants_are_one_command() -> None:
    given = [
        Grant("topic", "a", ("Read",)),
        Grant("group", "g", ("Read",)),
        Grant("topic", "b", ("Read",)),
        Grant("transactional-id", "own-owner-", ("Write", "Describe"), prefixed=True),
        Grant("topic", "shop.", ("Read", "Write"), prefixed=True),
    ]
    assert as_commands("User:x", given) == [
        "--add --allow-principal User:x --operation Read --group g",
        "--add --allow-principal User:x --operation Read --topic a --topic b",
        "--add --allow-principal User:x --operation Read --operation Write --topic shop. "
        "--resource-pattern-type prefixed",
        "--add --allow-principal User:x --operation Write --operation Describe --transactional-id own-owner- "
        "--resource-pattern-type prefixed",
    ]


def test_the_list_is_for_programs_as_well() -> None:
    done = CliRunner().invoke(app, ["acls", "producer", "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)[0] == {
        "role": "producer",
        "resource": "topic",
        "name": "ai.requests",
        "pattern": "literal",
        "operations": ["Write"],
    }


def test_an_unknown_role_and_commands_for_nobody_are_refused() -> None:
    for arguments in (["acls", "boss"], ["acls", "--commands"], ["acls", "worker", "--commands"]):
        assert CliRunner().invoke(app, arguments).exit_code == 2

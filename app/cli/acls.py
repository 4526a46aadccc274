"""`spillway acls`: what each role needs to be allowed in Kafka."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from streams.access import Grant, Role


def acls(
    role: Annotated[
        str | None, typer.Argument(help="worker, producer, client, door, page or operator; without one: all.")
    ] = None,
    principal: Annotated[
        str | None, typer.Option(help="With --commands: who has the role, like User:spillway.")
    ] = None,
    reply_topics: Annotated[
        list[str] | None,
        typer.Option("--reply-topic", help="A topic of the applications' own for replies; shop.* for all of shop."),
    ] = None,
    commands: Annotated[
        bool, typer.Option("--commands", help="Print the arguments of kafka-acls.sh, a line a command.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List which operations on which topics and groups each role needs in Kafka, and nothing more.

    The list is made from the topology of these settings (AI_KAFKA_APPLICATION_ID, the providers); Kafka is not asked.
    Examples:

      spillway acls worker --reply-topic 'shop.*'
      spillway acls client --principal User:shop --commands | while read -r line; do
          echo "$line" | xargs kafka-acls.sh --bootstrap-server kafka:9093 --command-config admin.properties
      done
    """
    from app.cli.context import command_settings  # noqa: PLC0415 - start-up time of the other commands
    from app.topics import build_topology  # noqa: PLC0415
    from streams.access import ROLES, grants  # noqa: PLC0415

    if role is not None and role not in ROLES:
        raise typer.BadParameter(f"{role!r} is no role: {', '.join(ROLES)}.")
    if commands and (role is None or principal is None):
        raise typer.BadParameter("--commands is for one role, and needs its --principal.")
    topology = build_topology(command_settings())
    wanted: Sequence[Role] = [name for name in ROLES if role in (None, name)]
    found = {name: grants(topology, name, reply_topics=reply_topics or ()) for name in wanted}
    if as_json:
        from app.cli.output import print_json  # noqa: PLC0415

        return print_json([line for name, given in found.items() for line in as_data(name, given)])
    if commands and principal is not None:
        return typer.echo("\n".join(as_commands(principal, found[wanted[0]])))
    return _show(found)


def as_data(role: Role, given: Iterable[Grant]) -> list[dict[str, Any]]:
    """Grants for programs."""
    return [
        {
            "role": role,
            "resource": grant.resource,
            "name": grant.name,
            "pattern": "prefixed" if grant.prefixed else "literal",
            "operations": list(grant.operations),
        }
        for grant in given
    ]


def as_commands(principal: str, given: Iterable[Grant]) -> list[str]:
    """The arguments of kafka-acls.sh that make the grants: one line for all names with the same operations."""
    return [
        " ".join(
            (
                f"--add --allow-principal {principal}",
                *(f"--operation {operation}" for operation in operations),
                *(f"--{resource} {name}" for name in names),
                *(("--resource-pattern-type prefixed",) if prefixed else ()),
            )
        )
        for (resource, operations, prefixed), names in _together(given)
    ]


def _together(given: Iterable[Grant]) -> list[tuple[tuple[str, tuple[str, ...], bool], list[str]]]:
    """The names of the grants that are otherwise equal."""

    def kind(grant: Grant) -> tuple[str, tuple[str, ...], bool]:
        return grant.resource, grant.operations, grant.prefixed

    return [(key, [grant.name for grant in same]) for key, same in groupby(sorted(given, key=kind), kind)]


def _show(found: dict[Role, tuple[Grant, ...]]) -> None:
    from app.cli.output import print_table  # noqa: PLC0415

    print_table(
        ("ROLE", "ON", "NAME", "OPERATIONS"),
        [
            (role, grant.resource, grant.name + ("*" if grant.prefixed else ""), ", ".join(grant.operations))
            for role, given in found.items()
            for grant in given
        ],
    )

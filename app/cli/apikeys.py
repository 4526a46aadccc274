"""`spillway keys`: who may come in through the HTTP door."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from app.http.keys import KeyBook
    from app.settings import Settings
    from schemas.api_key import ApiKey

keys = typer.Typer(
    no_args_is_help=True,
    help="Create, list and revoke the API keys of the HTTP door.\n\nExample: spillway keys create --workspace acme",
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@keys.command()
def create(
    workspace: Annotated[
        list[str], typer.Option("--workspace", "-w", help="Who pays; again for more. The first is the default.")
    ],
    name: Annotated[str, typer.Option(help="What the key is for, for people.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a key and show it, once: only its digest is kept.

    The workspace '*' stands for every workspace. Examples:

      spillway keys create --workspace acme --name "the web shop"
      spillway keys create --workspace acme --workspace acme-batch
    """
    from datetime import UTC, datetime  # noqa: PLC0415 - start-up time of the other commands

    from pydantic import ValidationError  # noqa: PLC0415

    from app.cli.context import command_settings, run  # noqa: PLC0415
    from app.cli.errors import CommandError  # noqa: PLC0415
    from app.cli.output import print_json, remark  # noqa: PLC0415
    from app.http.keys import new_key  # noqa: PLC0415

    try:
        key, secret = new_key(workspace, name, datetime.now(UTC))
    except ValidationError as error:
        raise CommandError(f"{error.errors()[0]['input']!r} cannot be a workspace or a name.") from None
    run(_publish(command_settings(), key))
    if as_json:
        return print_json({**_data(key), "key": secret})
    typer.echo(secret)
    return remark(f"Key {key.key_id} for {', '.join(key.workspaces)}. It is not shown again.")


@keys.command("list")
def show(as_json: AsJson = False) -> None:
    """List the keys that are valid, without their secrets.

    Example: spillway keys list
    """
    from app.cli.context import command_settings, run  # noqa: PLC0415
    from app.cli.output import print_json, print_table  # noqa: PLC0415

    found = run(_book(command_settings())).all()
    if as_json:
        return print_json({"keys": [_data(key) for key in found]})
    if not found:
        return typer.echo("There is no key. `spillway keys create --workspace NAME` makes one.")
    rows = [(key.key_id, ", ".join(key.workspaces), f"{key.created_at:%Y-%m-%d %H:%M} UTC", key.name) for key in found]
    return print_table(("KEY", "WORKSPACES", "CREATED", "NAME"), rows)


@keys.command()
def revoke(
    key_ids: Annotated[
        list[str], typer.Argument(metavar="KEY...", help="The keys' ids, as `spillway keys list` has them.")
    ],
) -> None:
    """Revoke keys: every door refuses them within moments.

    Example: spillway keys revoke 5f0c2b9a17de
    """
    from app.cli.context import command_settings, run  # noqa: PLC0415
    from app.cli.output import count  # noqa: PLC0415

    run(_revoke(command_settings(), key_ids))
    typer.echo(f"{count(len(key_ids), 'key')} revoked.")


def _data(key: ApiKey) -> dict[str, object]:
    return key.model_dump(mode="json", exclude={"sha256", "schema_version"})


async def _book(settings: Settings) -> KeyBook:
    from app.cli.control import newest  # noqa: PLC0415
    from app.http.keys import KeyBook  # noqa: PLC0415
    from streams.topology import API_KEYS  # noqa: PLC0415

    book = KeyBook()
    for key, value in (await newest(settings, API_KEYS)).items():
        book.apply(key.encode(), value)
    return book


async def _publish(settings: Settings, key: ApiKey) -> None:
    from app.cli.wire import producing  # noqa: PLC0415
    from app.kafka import cluster_of  # noqa: PLC0415
    from schemas.codec import encode, event_headers  # noqa: PLC0415
    from streams.topology import API_KEYS  # noqa: PLC0415

    headers = event_headers(event_id=key.key_id, event_type=key.ce_type, workspace_id="operator", time=key.created_at)
    async with producing(cluster_of(settings)) as producer:
        await producer.send_and_wait(API_KEYS, encode(key), key=key.key_id.encode(), headers=list(headers))


async def _revoke(settings: Settings, key_ids: list[str]) -> None:
    from app.cli.errors import CommandError  # noqa: PLC0415
    from app.cli.wire import producing  # noqa: PLC0415
    from app.kafka import cluster_of  # noqa: PLC0415
    from streams.topology import API_KEYS  # noqa: PLC0415

    known = {key.key_id for key in (await _book(settings)).all()}
    for unknown in (key for key in key_ids if key not in known):
        raise CommandError(f"There is no key {unknown}; `spillway keys list` shows those that there are.")
    async with producing(cluster_of(settings)) as producer:
        for key_id in key_ids:
            await producer.send_and_wait(API_KEYS, None, key=key_id.encode())

"""`spillway limits`: the limits in force, and how an operator changes them while everything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.lanes import Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from app.settings import Settings
    from schemas.control import LimitChange
    from streams.dispatch.quota import Limits

#: Requests and tokens per minute and hour, with the names of their columns.
NAMES = {"rpm": "REQUESTS/MIN", "rph": "REQUESTS/H", "tpm": "TOKENS/MIN", "tph": "TOKENS/H"}
#: After a limit that does not come from the settings.
MARK = " *"

limits = typer.Typer()


@limits.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the limits of each provider and group: those of the settings, and those that were set instead.

    A limit is for all lanes of its target together. Examples:

      spillway limits
      spillway limits set claude --rpm 200 --tpm 400000
      spillway limits reset claude
    """
    if context.invoked_subcommand is not None:
        return
    from app.cli.context import command_settings, run  # noqa: PLC0415 - start-up time of the other commands
    from app.cli.control import newest  # noqa: PLC0415
    from streams.topology import CONTROL  # noqa: PLC0415

    settings = command_settings()
    _show(settings.quota_limits(), changes(run(newest(settings, CONTROL))), as_json=as_json)


@limits.command("set")
def set_(
    target: Target,
    rpm: Annotated[int | None, typer.Option(min=1, help="Requests per minute.")] = None,
    rph: Annotated[int | None, typer.Option(min=1, help="Requests per hour.")] = None,
    tpm: Annotated[int | None, typer.Option(min=1, help="Tokens per minute.")] = None,
    tph: Annotated[int | None, typer.Option(min=1, help="Tokens per hour.")] = None,
) -> None:
    """Set limits instead of those of the settings; what is not given stays as it is.

    Example: spillway limits set claude --rpm 200
    """
    given = {"rpm": rpm, "rph": rph, "tpm": tpm, "tph": tph}
    new = {name: limit for name, limit in given.items() if limit is not None}
    if not new:
        raise typer.BadParameter("Give at least one of --rpm, --rph, --tpm and --tph.")
    from app.cli.context import command_settings, run  # noqa: PLC0415
    from app.cli.control import check_target  # noqa: PLC0415
    from streams.dispatch.quota import Limits  # noqa: PLC0415

    settings = command_settings()
    known = settings.quota_limits()
    check_target(target, known)
    if reason := Limits(**new).too_small_for(shards_of(settings, target)):
        raise typer.BadParameter(f"{target}: {reason}")
    change = run(_set(settings, target, new))
    typer.echo(f"{target} now has {told(in_force(known[target], change))}.")


async def _set(settings: Settings, target: str, new: Mapping[str, int]) -> LimitChange:
    from app.cli.control import announce, newest  # noqa: PLC0415
    from schemas.control import LimitChange  # noqa: PLC0415
    from streams.topology import CONTROL  # noqa: PLC0415

    earlier = changes(await newest(settings, CONTROL)).get(target) or LimitChange(target=target)
    change = earlier.model_copy(update=new)
    await announce(settings, change)
    return change


@limits.command()
def reset(target: Target) -> None:
    """Go back to the limits of the settings.

    Example: spillway limits reset claude
    """
    from app.cli.context import command_settings, run  # noqa: PLC0415
    from app.cli.control import check_target, withdraw  # noqa: PLC0415
    from schemas.control import LIMITS_KEY  # noqa: PLC0415

    settings = command_settings()
    known = settings.quota_limits()
    check_target(target, known)
    run(withdraw(settings, LIMITS_KEY + target))
    typer.echo(f"{target} has the limits of the settings again: {told(known[target])}.")


def shards_of(settings: Settings, target: str) -> int:
    """How many lanes share a target's limits."""
    provider, _, name = target.partition(":")
    return next(group.shards for group in settings.lane_groups()[provider] if group.name == name)


def changes(records: Mapping[str, bytes]) -> dict[str, LimitChange]:
    """The limits that were set, by target. What the workers do not understand is left out, as they do."""
    from schemas.codec import UndecodableError, decode  # noqa: PLC0415
    from schemas.control import LIMITS_KEY, LimitChange  # noqa: PLC0415

    found = {}
    for key, value in records.items():
        if not key.startswith(LIMITS_KEY):
            continue
        try:
            change = decode(LimitChange, value)
        except UndecodableError:
            continue
        if change.key == key:
            found[change.target] = change
    return found


def own(change: LimitChange | None) -> dict[str, int]:
    """What a change itself sets."""
    given = {name: getattr(change, name, None) for name in NAMES}
    return {name: limit for name, limit in given.items() if limit is not None}


def in_force(stated: Limits, change: LimitChange | None) -> Limits:
    """The limits of the settings, with those that were set in their place."""
    from dataclasses import replace  # noqa: PLC0415

    return replace(stated, **own(change))


def told(found: Limits) -> str:
    """`50 requests per minute and 1,000 per hour, 100,000 tokens per minute`."""
    words = []
    for noun, minute, hour in (("requests", found.rpm, found.rph), ("tokens", found.tpm, found.tph)):
        parts = [f"{limit:,} {{}}per {span}" for limit, span in ((minute, "minute"), (hour, "hour")) if limit]
        if parts:
            words.append(" and ".join([parts[0].format(f"{noun} "), *(part.format("") for part in parts[1:])]))
    return ", ".join(words) or "no limits"


def as_data(stated: Mapping[str, Limits], changed: Mapping[str, LimitChange]) -> dict[str, Any]:
    """The limits for programs; None: unlimited. `set` names those that do not come from the settings."""
    return {
        "limits": [
            {"target": target, **_values(in_force(found, changed.get(target))), "set": list(own(changed.get(target)))}
            for target, found in stated.items()
        ]
    }


def _values(found: Limits) -> dict[str, int | None]:
    return {name: getattr(found, name) for name in NAMES}


def _cells(found: Limits, set_here: Iterable[str]) -> list[str]:
    marked = set(set_here)
    # An unmarked cell is as wide as a marked one, so that the digits stand below each other.
    return [
        ("–" if limit is None else f"{limit:,}") + (MARK if name in marked else " " * len(MARK))
        for name, limit in _values(found).items()
    ]


def _show(stated: Mapping[str, Limits], changed: Mapping[str, LimitChange], *, as_json: bool) -> None:
    from app.cli.output import print_json, print_table, remark  # noqa: PLC0415

    if as_json:
        return print_json(as_data(stated, changed))
    print_table(
        ("TARGET", *NAMES.values()),
        [
            (target, *_cells(in_force(found, changed.get(target)), own(changed.get(target))))
            for target, found in stated.items()
        ],
        right=NAMES.values(),
    )
    if changed.keys() & stated.keys():
        remark("* set with `spillway limits set`; `spillway limits reset` goes back to the settings.")
    if strange := sorted(changed.keys() - stated.keys()):
        remark(f"Limits are also set for {', '.join(strange)}, which the settings do not know.")
    return None

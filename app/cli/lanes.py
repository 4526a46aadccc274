"""`spillway lanes`: how each lane stands, and what an operator can ask of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from app.settings import Settings
    from schemas.control import LaneState, LimitState, Mode

#: Seconds after which a state counts as old: a lane that somebody owns says how it stands more often.
SILENT_AFTER = 15.0

lanes = typer.Typer()

Target = Annotated[str, typer.Argument(help="A provider (claude) or one of its groups (claude:opus).")]


@lanes.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how each lane stands: its state, what waits and is called, and what it spent of its limits.

    Steer lanes with the commands below; what they set lasts until it is set anew. Examples:

      spillway lanes
      spillway lanes pause openai
      spillway lanes resume openai
    """
    if context.invoked_subcommand is not None:
        return
    from datetime import UTC, datetime  # noqa: PLC0415 - start-up time of the other commands

    from app.cli.context import command_settings, run  # noqa: PLC0415
    from app.cli.control import newest  # noqa: PLC0415
    from streams.topology import LANES  # noqa: PLC0415

    _show(decoded(run(newest(command_settings(), LANES)).values()), datetime.now(UTC), as_json=as_json)


@lanes.command()
def pause(target: Target) -> None:
    """Call nothing; what waits goes on waiting.

    Example: spillway lanes pause claude:opus
    """
    from schemas.control import Mode  # noqa: PLC0415

    _set(target, Mode.PAUSED)


@lanes.command()
def resume(target: Target) -> None:
    """Call again, after `pause` or `drain`, and forget what the provider has said of its limits and waits.

    Example: spillway lanes resume claude:opus
    """
    from schemas.control import Mode  # noqa: PLC0415

    _set(target, Mode.OPEN)


@lanes.command()
def drain(target: Target) -> None:
    """Call nothing, and send what waits to its next provider.

    Example: spillway lanes drain openai
    """
    from schemas.control import Mode  # noqa: PLC0415

    _set(target, Mode.DRAINING)


def _set(target: str, mode: Mode) -> None:
    from app.cli.context import command_settings, run  # noqa: PLC0415
    from app.cli.control import check_target  # noqa: PLC0415

    settings = command_settings()
    check_target(target, settings.quota_limits())
    typer.echo(outlook(target, mode, run(change(settings, target, mode))))


async def change(settings: Settings, target: str, mode: Mode) -> dict[str, Mode]:
    """Publish the mode; returns the lanes' modes by quota, as they then are."""
    from datetime import UTC, datetime  # noqa: PLC0415

    from app.cli.control import announce, newest  # noqa: PLC0415
    from app.topics import build_topology  # noqa: PLC0415
    from schemas.control import Mode, ModeChange  # noqa: PLC0415
    from streams.dispatch.control import ControlBoard  # noqa: PLC0415
    from streams.topology import CONTROL  # noqa: PLC0415

    at = datetime.now(UTC) if mode is Mode.OPEN else None
    await announce(settings, ModeChange(target=target, mode=mode, at=at))
    board = ControlBoard(settings.quota_limits())
    for key, value in (await newest(settings, CONTROL)).items():
        board.apply(key.encode(), value)
    topology = build_topology(settings)
    every = (lane for provider in topology.all_providers for lane in topology.lanes_of(provider))
    return {lane.quota: board.mode_for(lane) for lane in every}


def outlook(target: str, mode: Mode, modes: Mapping[str, Mode]) -> str:
    """What will happen, in a sentence. `modes` are those of all quotas, after the change."""
    from schemas.control import Mode  # noqa: PLC0415

    if mode is Mode.PAUSED:
        return (
            f"{target} is paused: nothing is called, what waits goes on waiting, "
            "and what comes goes to its next provider if it has one."
        )
    if mode is Mode.DRAINING:
        return f"{target} is draining: nothing is called, and what waits or comes goes to its next provider if any."
    provider = target.partition(":")[0]
    closed = [
        f"{quota} is still {still}"
        for quota, still in modes.items()
        if still is not Mode.OPEN and (quota == target or quota.partition(":")[0] == target)
    ]
    if not closed:
        return f"{target} is open: what waits is called, as its limits allow."
    if modes.get(target, Mode.OPEN) is not Mode.OPEN:
        return f"{target} is open by itself, but {closed[0]}, because {provider} is."
    return f"{target} is open: what waits is called, as its limits allow; but {', '.join(closed)}."


def decoded(values: Iterable[bytes]) -> list[LaneState]:
    """The states among the values, by lane; what is none is left out."""
    from schemas.codec import UndecodableError, decode  # noqa: PLC0415
    from schemas.control import LaneState  # noqa: PLC0415

    found = []
    for value in values:
        try:
            found.append(decode(LaneState, value))
        except UndecodableError:
            continue
    return sorted(found, key=_place)


def _place(state: LaneState) -> tuple[str, int]:
    quota, _, shard = state.lane.rpartition("/")
    return quota, int(shard) if shard.isdecimal() else 0


def standing(state: LaneState, now: datetime) -> tuple[str, str]:
    """How a lane stands: in one word for programs, and for people."""
    from schemas.control import Mode  # noqa: PLC0415

    if (now - state.at).total_seconds() > SILENT_AFTER:
        return "silent", f"silent since {state.at:%Y-%m-%d %H:%M:%S} UTC"
    if state.mode is not Mode.OPEN:
        return str(state.mode), str(state.mode)
    if state.circuit == "half_open":
        return "circuit_half_open", "circuit half open, one call is probing"
    if state.circuit == "open":
        left = _left(state.reopens_at, now)
        return "circuit_open", f"circuit open, reopens in {left} s" if left else "circuit open"
    if left := _left(state.paused_until, now):
        return "waits", f"waits {left} s (the provider asked)"
    return "open", "open"


def _left(until: datetime | None, now: datetime) -> int:
    """Whole seconds until a moment, rounded up; 0 when it is over."""
    from math import ceil  # noqa: PLC0415

    return max(ceil((until - now).total_seconds()), 0) if until else 0


def spent(limit: LimitState) -> str:
    return "–" if limit.limit is None else f"{limit.used:,}/{limit.limit:,}"


def as_data(states: Iterable[LaneState], now: datetime) -> dict[str, Any]:
    """The states for programs."""
    return {"lanes": [{**state.model_dump(mode="json"), "state": standing(state, now)[0]} for state in states]}


def _show(states: list[LaneState], now: datetime, *, as_json: bool) -> None:
    from app.cli.output import print_json, print_table, seconds  # noqa: PLC0415

    if as_json:
        return print_json(as_data(states, now))
    if not states:
        return typer.echo("No lane has had work yet.")
    numbers = ("WAITING", "IN FLIGHT", "WAIT (ABOUT)", "REQUESTS/MIN", "REQUESTS/H", "TOKENS/MIN", "TOKENS/H")
    return print_table(
        ("LANE", "STATE", *numbers),
        [
            (
                state.lane,
                standing(state, now)[1],
                f"{state.waiting:,}",
                f"{state.in_flight:,}",
                seconds(state.wait),
                *map(spent, (state.rpm, state.rph, state.tpm, state.tph)),
            )
            for state in states
        ],
        right=numbers,
    )

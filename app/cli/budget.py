"""`spillway budget`: what a workspace may spend in a month, and how it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from app.cli.standing import Standing
    from app.settings import Settings
    from schemas.budget import BudgetChange, BudgetState
    from streams.budgets import BudgetBook

budget = typer.Typer(
    no_args_is_help=True,
    help="Budgets of workspaces: set them, and see what is spent, reserved and left.",
    epilog="Example: spillway budget set acme --amount 250 --action refuse",
)

FIRST_MONTH, LAST_MONTH = "1970-01", "9999-12"

Workspace = Annotated[str, typer.Argument(help="The workspace.")]
Month = Annotated[
    str | None,
    typer.Option(metavar="YYYY-MM", help="Of this month, instead of the one that the workspace's clock shows."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@budget.command("set")
def set_(
    workspace: Workspace,
    amount: Annotated[str | None, typer.Option(help="US dollars for a month, like 250 or 99.50.")] = None,
    thresholds: Annotated[
        str | None, typer.Option(help="Percentages that are announced, like 50,80,100; an empty text: none.")
    ] = None,
    action: Annotated[
        str | None, typer.Option(help="At the limit: alert (requests go on) or refuse (they are rejected).")
    ] = None,
    time_zone: Annotated[str | None, typer.Option(help="Whose months they are, like Europe/Vienna.")] = None,
) -> None:
    """Set a workspace's budget. What is not given stays as it was set before, or else as in the settings.

    The workers know within a second. Examples:

      spillway budget set acme --amount 250 --action refuse
      spillway budget set acme --thresholds 50,80,100 --time-zone Europe/Vienna
    """
    given = {"amount": amount, "thresholds": _percents(thresholds), "action": action, "time_zone": time_zone}
    new = {name: value for name, value in given.items() if value is not None}
    if not new:
        raise typer.BadParameter("Give at least one of --amount, --thresholds, --action and --time-zone.")
    from app.cli.context import command_settings, run  # noqa: PLC0415 - start-up time of the other commands
    from app.cli.output import money  # noqa: PLC0415
    from app.cli.standing import told  # noqa: PLC0415

    check_workspace(workspace)
    change_of(workspace, new)
    settings = command_settings()
    found = settings.default_budget().changed(run(_set(settings, workspace, new)))
    typer.echo(f"{workspace} now has {told(found, money(found.amount))}.")


async def _set(settings: Settings, workspace: str, new: Mapping[str, Any]) -> BudgetChange:
    """Publish the earlier change with the new values in it: the newest event of a workspace counts as a whole."""
    from app.cli.control import announce, newest  # noqa: PLC0415
    from app.cli.standing import book_of  # noqa: PLC0415
    from streams.topology import BUDGETS  # noqa: PLC0415

    earlier = book_of(settings.default_budget(), await newest(settings, BUDGETS)).own().get(workspace)
    change = change_of(workspace, {**(earlier.model_dump(exclude_none=True) if earlier else {}), **new})
    await announce(settings, change, BUDGETS)
    return change


@budget.command()
def show(workspace: Workspace, month: Month = None, as_json: Json = False) -> None:
    """Show a workspace's budget and how its month stands: spent, reserved, left, and where the month leads.

    Example: spillway budget show acme
    """
    from app.cli.output import print_json  # noqa: PLC0415
    from app.cli.standing import as_data, standing  # noqa: PLC0415

    check_workspace(workspace)
    check_month(month)
    book, states, now = _read()
    found = standing(book, states, workspace, month, now)
    return print_json(as_data(found)) if as_json else _show(found)


@budget.command("list")
def list_(month: Month = None, as_json: Json = False) -> None:
    """List all workspaces that have a budget of their own, or have spent anything.

    Example: spillway budget list --json | jq '.budgets[] | select(.percent > 80)'
    """
    from app.cli.output import print_json  # noqa: PLC0415
    from app.cli.standing import all_standings, as_data  # noqa: PLC0415

    check_month(month)
    book, states, now = _read()
    found = all_standings(book, states, month, now)
    return print_json({"budgets": [as_data(each) for each in found]}) if as_json else _list(found)


@budget.command()
def reset(workspace: Workspace) -> None:
    """Go back to the budget of the settings, in all that was set.

    Example: spillway budget reset acme
    """
    from app.cli.context import command_settings, run  # noqa: PLC0415
    from app.cli.control import withdraw  # noqa: PLC0415
    from app.cli.output import money  # noqa: PLC0415
    from app.cli.standing import told  # noqa: PLC0415
    from streams.topology import BUDGETS  # noqa: PLC0415

    check_workspace(workspace)
    settings = command_settings()
    run(withdraw(settings, workspace, BUDGETS))
    default = settings.default_budget()
    typer.echo(f"{workspace} has the budget of the settings again: {told(default, money(default.amount))}.")


@budget.command()
def restore(
    month: Month = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Compare; change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Set what a month's budgets have counted to what the ledger says, for a Kafka that has lost it.

    Stop all workers first. An account that knows more than the ledger stays as it is. Examples:

      spillway budget restore --dry-run
      spillway budget restore --month 2026-11
    """
    from app.cli.restore import restore_month  # noqa: PLC0415 - start-up time of the other commands

    check_month(month)
    restore_month(month, dry_run=dry_run, as_json=as_json)


def check_workspace(name: str) -> None:
    """Raises CommandError for what no workspace can be called."""
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415

    from app.cli.errors import CommandError  # noqa: PLC0415
    from schemas.base import WorkspaceId  # noqa: PLC0415

    try:
        TypeAdapter(WorkspaceId).validate_python(name)
    except ValidationError:
        raise CommandError(
            f"{name!r} cannot be a workspace: letters, digits and ._:@- are, 128 at most, the first a letter or digit."
        ) from None


def check_month(month: str | None) -> None:
    """Raises BadParameter for what is no month, or at an end of the calendar, where not every clock has one."""
    from app.clickhouse.months import checked  # noqa: PLC0415

    if month is None:
        return
    try:
        known = FIRST_MONTH <= checked(month) < LAST_MONTH
    except ValueError:
        known = False
    if not known:
        raise typer.BadParameter(f"{month!r} is no month like 2026-11.", param_hint="--month")


def change_of(workspace: str, values: Mapping[str, Any]) -> BudgetChange:
    """The event that sets these values. Raises BadParameter, which names the option that is wrong."""
    from pydantic import ValidationError  # noqa: PLC0415

    from schemas.budget import BudgetChange  # noqa: PLC0415

    try:
        return BudgetChange.model_validate({**values, "workspace_id": workspace})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise typer.BadParameter(first["msg"].removeprefix("Value error, "), param_hint=option) from None


def _percents(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    return tuple(part.strip() for part in text.replace("%", "").split(",") if part.strip())


def _read() -> tuple[BudgetBook, dict[str, BudgetState], datetime]:
    """The budgets, how the months stand, and now."""
    from datetime import UTC, datetime  # noqa: PLC0415

    from app.cli.context import command_settings, run  # noqa: PLC0415
    from app.cli.standing import book_of, states_of  # noqa: PLC0415

    settings = command_settings()
    budgets, states = run(_records(settings))
    return book_of(settings.default_budget(), budgets), states_of(states), datetime.now(UTC)


async def _records(settings: Settings) -> tuple[dict[str, bytes], dict[str, bytes]]:
    from app.cli.control import newest  # noqa: PLC0415
    from streams.topology import BUDGET_STATE, BUDGETS  # noqa: PLC0415

    return await newest(settings, BUDGETS), await newest(settings, BUDGET_STATE)


def _show(found: Standing) -> None:
    from app.cli.output import count, money, print_table, remark  # noqa: PLC0415
    from app.cli.standing import in_words  # noqa: PLC0415

    own, known = found.budget, found.state
    marks = in_words(str(each) for each in sorted(set(own.thresholds))) + " %" if own.thresholds else "none"
    print_table(
        (found.workspace_id, found.month, ""),
        [
            ("budget", money(own.amount), _from(found, "amount")),
            ("thresholds", marks, _from(found, "thresholds")),
            ("at the limit", str(own.action), _from(found, "action")),
            ("months of", own.time_zone, _from(found, "time_zone")),
            ("spent", money(found.spent), f"{found.percent:g} %"),
            ("reserved", money(found.reserved), count(known.open_requests if known else 0, "open request")),
            ("left", left(found), ""),
            ("forecast", money(found.forecast), "at the end of the month"),
        ],
    )
    if known is None:
        remark(f"No worker has said anything of {found.month}: nothing was spent or reserved.")


def _from(found: Standing, name: str) -> str:
    return "set" if name in found.set_fields else "from the settings"


def left(found: Standing) -> str:
    from app.cli.output import money  # noqa: PLC0415

    return money(found.left) if found.left >= 0 else f"$0, over by {money(-found.left)}"


def _list(found: list[Standing]) -> None:
    from app.cli.output import money, print_table, remark  # noqa: PLC0415

    if not found:
        return typer.echo("No workspace has a budget of its own, and none has spent anything.")
    numbers = ("BUDGET", "SPENT", "RESERVED", "LEFT", "USED", "FORECAST")
    print_table(
        ("WORKSPACE", "MONTH", *numbers, "AT THE LIMIT", "SOURCE"),
        [
            (
                each.workspace_id,
                each.month,
                *map(money, (each.budget.amount, each.spent, each.reserved)),
                left(each),
                f"{each.percent:g} %",
                money(each.forecast),
                str(each.budget.action),
                each.source,
            )
            for each in found
        ],
        right=numbers,
    )
    return remark("SOURCE event: set with `spillway budget set` or by an event; default: all as in the settings.")

"""`spillway budget restore`: what budgets have counted, out of the ledger."""

from __future__ import annotations

from datetime import UTC, datetime

import typer

from app.cli.context import command_settings, run
from app.cli.errors import CommandError
from app.cli.output import money, print_json, print_table
from app.recovery.accounts import restore_accounts
from app.recovery.groups import GroupAtWorkError


def restore_month(month: str | None, *, dry_run: bool, as_json: bool) -> None:
    """Bring the month's accounts back, the current one in UTC unless named, and say what was done."""
    now = datetime.now(UTC)
    wanted = month or f"{now:%Y-%m}"
    try:
        found = run(restore_accounts(command_settings(), wanted, now, dry_run=dry_run))
    except GroupAtWorkError as error:
        raise CommandError(str(error)) from None
    if as_json:
        told = [
            {
                "workspace_id": one.workspace_id,
                "account": f"{one.account:f}",
                "ledger": f"{one.ledger:f}",
                "left": one.left or None,
            }
            for one in found
        ]
        return print_json({"month": wanted, "done": not dry_run, "accounts": told})
    if not found:
        return typer.echo(f"All accounts of {wanted} are as the ledger says.")
    rows = [(one.workspace_id, money(one.account), money(one.ledger), one.left) for one in found]
    print_table(("WORKSPACE", "COUNTED", "LEDGER", "STAYS, BECAUSE"), rows, right=("COUNTED", "LEDGER"))
    count = sum(not one.left for one in found)
    return typer.echo(f"{count} accounts {'would be' if dry_run else 'are'} set to the ledger's sum.")

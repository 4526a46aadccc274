"""`spillway sql`: a question to the ledger, read-only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from app.settings import Settings


def sql(
    query: Annotated[str, typer.Argument(help="A statement that reads; - reads it from the standard input.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array of rows.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV with the columns' names.")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that the statement may take.")] = 60.0,
) -> None:
    """Ask ClickHouse; the views `ledger` (attempts) and `requests` are made for this.

    Runs as the reading user where its password is known, else read-only as the application's. Examples:

      spillway sql "SELECT provider, sum(cost) FROM ledger GROUP BY provider"
      spillway sql --csv "SELECT * FROM requests WHERE outcome != 'succeeded'" > failed.csv
    """
    if as_json and as_csv:
        raise typer.BadParameter("Give one of --json and --csv.")
    import sys  # noqa: PLC0415 - start-up time of the other commands

    from app.cli.context import command_settings, run  # noqa: PLC0415

    text = sys.stdin.read() if query == "-" else query
    output = "JSONEachRow" if as_json else "CSVWithNames" if as_csv else "JSONCompactStringsEachRowWithNames"
    found = run(_ask(command_settings(), text.strip().rstrip(";"), output, timeout))
    if as_json:
        typer.echo(b"[" + b",\n".join(found.splitlines()) + b"]")
    elif as_csv:
        typer.echo(found, nl=False)
    else:
        _show(found)


async def _ask(settings: Settings, query: str, output: str, seconds: float) -> bytes:
    from app.cli.errors import CommandError  # noqa: PLC0415
    from app.clickhouse.client import ClickHouse  # noqa: PLC0415
    from app.clickhouse.errors import ClickHouseError  # noqa: PLC0415

    reader = settings.clickhouse_reader_password is not None
    # The reading user is held to reading by the server, and may not change that setting either.
    held = {} if reader else {"readonly": 1}
    async with ClickHouse(settings, reader=reader, timeout=seconds) as database:
        try:
            return await database.raw(query, output, **held)
        except ClickHouseError as error:
            raise CommandError(error.detail or str(error)) from None


def _show(found: bytes) -> None:
    import orjson  # noqa: PLC0415

    from app.cli.output import print_table  # noqa: PLC0415

    if not found:
        return
    names, *rows = (orjson.loads(line) for line in found.splitlines())
    print_table(names, rows)

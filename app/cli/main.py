"""The program `spillway`. Each command lives in a module of its own, which imports what it needs when it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from app.cli import stack
from app.cli.acls import acls
from app.cli.apikeys import keys
from app.cli.ask import ask
from app.cli.audit import audit
from app.cli.budget import budget
from app.cli.cancel import cancel
from app.cli.demo import demo
from app.cli.dlq import dlq
from app.cli.embed import embed
from app.cli.errors import Commands
from app.cli.lanes import lanes
from app.cli.limits import limits
from app.cli.migrate import migrate
from app.cli.providers import providers
from app.cli.publish import publish
from app.cli.refill import refill
from app.cli.repartition import repartition
from app.cli.replay import replay
from app.cli.report import report
from app.cli.reprice import reprice
from app.cli.saved import load, save
from app.cli.search import search
from app.cli.serve import serve
from app.cli.simulate import simulate
from app.cli.sql import sql
from app.cli.tables import tables
from app.cli.tail import tail
from app.cli.topics import topics
from app.cli.web import web
from app.cli.worker import worker

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    # What is expected is told in one sentence; the rest is a fault, and its plain traceback is wanted.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Spillway, an event-driven AI-request processor on Kafka: nothing lost, each attempt counted once.",
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version  # noqa: PLC0415 - start-up time

        typer.echo(f"spillway {version('spillway')}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None: ...


_PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Requests and answers": (demo, ask, embed, search, publish, cancel, tail, report, sql),
    "Operation": (
        worker,
        serve,
        web,
        topics,
        acls,
        repartition,
        migrate,
        refill,
        tables,
        save,
        load,
        providers,
        audit,
        reprice,
        replay,
        simulate,
    ),
}
for _panel, _commands in _PANELS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)
for _name, _group in (("lanes", lanes), ("limits", limits), ("budget", budget), ("keys", keys), ("dlq", dlq)):
    app.add_typer(_group, name=_name, rich_help_panel="Operation")
stack.register(app)


def main() -> None:
    app()


if __name__ == "__main__":
    main()

"""The commands of the embedded stack: up, down, status, logs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from app.devstack.settings import StackSettings
    from app.devstack.state import StackState

Dir = Annotated[Path | None, typer.Option("--dir", help="The stack's folder (AI_STACK_DIR, or .spillway).")]
Port = typer.Option(show_default=False, min=0, max=65_535)

#: Seconds that a first start in the background may take: it may have to fetch the broker.
DETACHED_DEADLINE = 900.0
#: Seconds that `down` waits: a worker may finish its calls, Kafka closes its logs.
DOWN_DEADLINE = 120.0
POLL = 0.1


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    panel = "The embedded stack"
    app.command(rich_help_panel=panel)(up)
    app.command(rich_help_panel=panel)(down)
    app.command(rich_help_panel=panel)(status)
    app.command(rich_help_panel=panel)(logs)


def up(
    workers: Annotated[int | None, typer.Option(min=0, max=32, help="Worker processes [default: 1].")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget all data of the stack first.")] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when ready; stop with `down`.")] = False,
    directory: Dir = None,
    kafka_port: Annotated[int | None, Port] = None,
    clickhouse_port: Annotated[int | None, Port] = None,
    simulator_port: Annotated[int | None, Port] = None,
) -> None:
    """Start Kafka, ClickHouse, a simulator for providers without a key, and workers; Ctrl-C stops them in order.

    Data stays in one folder, a restart continues with it. Examples:

      spillway up
      spillway up --detach --workers 2
      spillway up --fresh --kafka-port 19092
    """
    from app.devstack.settings import load_stack_settings  # noqa: PLC0415 - start-up time of the other commands

    settings = load_stack_settings(
        dir=directory,
        workers=workers,
        kafka_port=kafka_port,
        clickhouse_port=clickhouse_port,
        simulator_port=simulator_port,
    )
    if detach:
        _up_detached(settings, fresh=fresh)
    else:
        _up(settings, fresh=fresh)


def down(directory: Dir = None) -> None:
    """Stop the stack in order: workers finish what is in flight, then the services. Data stays."""
    from app.devstack import state  # noqa: PLC0415
    from app.devstack.child import find  # noqa: PLC0415

    folder = _folder(directory)
    known = state.read(folder) if folder.exists() else None
    supervisor = find(known.supervisor) if known else None
    if known is None or supervisor is None:
        left = state.end_orphans(known) if known else 0
        typer.echo(f"Ended {left} processes that a stack had left." if left else f"No stack is running in {folder}.")
        return
    supervisor.send_signal(signal.SIGTERM)
    until = time.monotonic() + DOWN_DEADLINE
    while find(known.supervisor) is not None and time.monotonic() < until:
        time.sleep(POLL)
    if find(known.supervisor) is not None:
        from app.devstack.errors import StackError  # noqa: PLC0415

        raise StackError(f"The stack in {folder} has not stopped after {DOWN_DEADLINE:.0f} s; see `spillway logs`.")
    state.end_orphans(known)
    typer.echo("The stack has stopped.")


def status(
    directory: Dir = None, as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False
) -> None:
    """Show what runs where, and how old the oldest record is that waits in each topic, against the topic's retention.

    Without a stack, but with AI_KAFKA_BOOTSTRAP_SERVERS, only the latter. Exit status 3 when no stack is running.
    """
    from app.cli.waiting import as_data, look, show  # noqa: PLC0415
    from app.devstack import state  # noqa: PLC0415

    folder = _folder(directory)
    known = state.read(folder) if folder.exists() else None
    rows = _rows(known, folder) if known else []
    running = any(row["state"] == "running" for row in rows)
    waiting = look(folder)
    if as_json:
        backlog = as_data(waiting) if waiting is not None else None
        typer.echo(json.dumps({"running": running, "folder": str(folder), "parts": rows, "backlog": backlog}))
    elif running and known is not None:
        _show(rows, known, folder)
    else:
        typer.echo(f"No stack is running in {folder}.")
    if waiting is not None and not as_json:
        show(waiting)
    if not running:
        raise typer.Exit(3)


def logs(
    name: Annotated[str | None, typer.Argument(help="kafka, clickhouse, simulator, worker-1, … or supervisor.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 20,
    directory: Dir = None,
) -> None:
    """Print the logs of one part, or of all."""
    folder = _folder(directory) / "logs"
    files = sorted(folder.glob("*.log")) if name is None else [folder / f"{name}.log"]
    missing = [file for file in files if not file.exists()]
    if missing or not files:
        known = ", ".join(sorted(file.stem for file in folder.glob("*.log"))) or "none yet"
        raise typer.BadParameter(f"there is no log of {name or 'a stack'} in {folder}; there are: {known}")
    tails = {file: _last_lines(file, lines, label=len(files) > 1) for file in files}
    while follow:
        time.sleep(POLL)
        for file, position in tails.items():
            tails[file] = _lines_from(file, position, label=len(files) > 1)


def _up(settings: StackSettings, *, fresh: bool) -> None:
    from app.devstack import state  # noqa: PLC0415
    from app.devstack.stack import DevStack  # noqa: PLC0415

    stopping = threading.Event()

    def stop(*_: Any) -> None:
        if stopping.is_set():
            return
        stopping.set()
        # Also ends a start that is still waiting for something.
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with _Progress() as progress:
        stack = DevStack(settings, tell=progress.tell)
        try:
            stack.start(fresh=fresh)
            progress.done()
            known = state.read(stack.folder)
            if known is not None:
                _show(_rows(known, stack.folder), known, stack.folder)
            typer.echo("Ready. Ctrl-C stops it in order." if sys.stdin.isatty() else "Ready.")
            stack.watch(stopping)
        except KeyboardInterrupt:
            progress.tell("stopping")
        finally:
            stack.stop()
    typer.echo("The stack has stopped.")


def _up_detached(settings: StackSettings, *, fresh: bool) -> None:
    """Start a supervisor in the background, and wait until it says that all is ready."""
    from app.devstack import state  # noqa: PLC0415
    from app.devstack.errors import StackError  # noqa: PLC0415

    folder = settings.dir.resolve()
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    log = folder / "logs" / "supervisor.log"
    command = [sys.executable, "-m", "app.cli.main", "up", "--dir", str(folder), "--workers", str(settings.workers)]
    for option in ("kafka_port", "clickhouse_port", "simulator_port"):
        command += [f"--{option.replace('_', '-')}", str(getattr(settings, option))]
    start = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        supervisor = subprocess.Popen(  # noqa: S603 - ourselves
            [*command, *(["--fresh"] if fresh else [])],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=os.environ | {"AI_STACK_KAFKA_CONTROLLER_PORT": str(settings.kafka_controller_port)},
        )
    until = time.monotonic() + DETACHED_DEADLINE
    position = start
    while time.monotonic() < until:
        position = _lines_from(log, position) if log.exists() else position
        if supervisor.poll() is not None:
            _lines_from(log, position)
            raise typer.Exit(1)
        known = state.read(folder)
        if known and known.ready and known.supervisor and int(known.supervisor["pid"]) == supervisor.pid:
            time.sleep(POLL)
            _lines_from(log, position)
            typer.echo("It runs in the background; `spillway down` stops it.")
            return
        time.sleep(POLL)
    supervisor.terminate()
    raise StackError(f"The stack was not ready after {DETACHED_DEADLINE:.0f} s; see {log}.")


def _folder(directory: Path | None) -> Path:
    from app.devstack.settings import load_stack_settings  # noqa: PLC0415

    return load_stack_settings(dir=directory).dir.resolve()


def _rows(known: StackState, folder: Path) -> list[dict[str, Any]]:
    """One row a part: name, state, pid, uptime in seconds, resident memory in bytes, address, restarts."""
    from app.devstack.child import find  # noqa: PLC0415
    from app.devstack.ports import HOST  # noqa: PLC0415

    rows = []
    for name, part in known.parts.items():
        process = find(part["identity"])
        note = folder / name / "ops"
        told = note.read_text().strip() if process and note.exists() else ""
        address = f"{HOST}:{known.ports[name]}" if name in known.ports else told
        rows.append(
            {
                "name": name,
                "state": "running" if process else "stopped",
                "pid": process.pid if process else None,
                "uptime": round(time.time() - process.create_time()) if process else None,
                "rss": process.memory_info().rss if process else None,
                "address": address,
                "restarts": part["restarts"],
            }
        )
    return rows


def _show(rows: list[dict[str, Any]], known: StackState, folder: Path) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    console = Console()
    table = Table("part", "state", "process", "up", "memory", "address", "restarts", box=None, pad_edge=False)
    for row in rows:
        table.add_row(
            row["name"],
            row["state"],
            str(row["pid"] or ""),
            f"{row['uptime']} s" if row["uptime"] is not None else "",
            f"{row['rss'] // 2**20} MB" if row["rss"] else "",
            row["address"],
            str(row["restarts"]),
        )
    console.print(table)
    if known.simulated:
        console.print(f"Simulated, because no key is set: {', '.join(known.simulated)}.")
    console.print(f"Logs: {folder / 'logs'}", soft_wrap=True)


class _Progress:
    """A spinner on a terminal, plain lines elsewhere."""

    def __enter__(self) -> _Progress:
        from rich.console import Console  # noqa: PLC0415

        console = Console()
        self._status = console.status("starting") if console.is_terminal else None
        if self._status:
            self._status.start()
        return self

    def tell(self, text: str) -> None:
        if self._status:
            self._status.update(text)
        if not self._status or "restart" in text or text.startswith("ended"):
            typer.echo(text)

    def done(self) -> None:
        if self._status:
            self._status.stop()
            self._status = None

    def __exit__(self, *_: object) -> None:
        self.done()


def _last_lines(file: Path, count: int, *, label: bool) -> int:
    text = file.read_bytes()
    for line in text.decode(errors="replace").splitlines()[-count:] if count else []:
        typer.echo(f"{file.stem}: {line}" if label else line)
    return len(text)


def _lines_from(file: Path, position: int, *, label: bool = False) -> int:
    """Print whole lines from a position on; returns where the next look begins."""
    with file.open("rb") as opened:
        opened.seek(position)
        text = opened.read()
    end = text.rfind(b"\n") + 1
    for line in text[:end].decode(errors="replace").splitlines():
        typer.echo(f"{file.stem}: {line}" if label else line)
    return position + end

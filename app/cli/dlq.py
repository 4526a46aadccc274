"""`spillway dlq`: dead letters, found, looked at, sent again and removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.dlq.desk import LetterDesk, Redriven, Removal
    from app.dlq.letters import Letter, Place, Wanted
    from app.dlq.notes import Notes

#: Characters of a reason in the list, and reasons for which letters are left that are told one by one.
REASON_SHOWN = 70
LEFT_SHOWN = 20

dlq = typer.Typer(
    no_args_is_help=True,
    help="Dead letters: what could not be processed, byte for byte, on ai.dead-letters.",
    epilog="Example: spillway dlq list --since 2026-11-01",
)

Code = Annotated[str | None, typer.Option(help="Only of this reason, like not_json or internal_error.")]
Topic = Annotated[str | None, typer.Option(help="Only from this topic, or its short name.")]
Since = Annotated[str | None, typer.Option(help="Only from this day, or moment with a zone, on.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@dlq.command("list")
def list_(
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="At most so many.")] = 20,
    code: Code = None,
    topic: Topic = None,
    since: Since = None,
    as_json: Json = False,
) -> None:
    """List dead letters, the newest first; never what is in them. Examples:

    spillway dlq list
    spillway dlq list --code internal_error --since 2026-11-01
    spillway dlq list --topic requests --json | jq -r '.letters[].place'
    """
    from app.cli.context import run  # noqa: PLC0415 - start-up time of the other commands
    from app.cli.output import print_json  # noqa: PLC0415

    desk, wanted = _desk(), _wanted(None, code, topic, since)
    letters, notes = run(desk.newest(wanted, number))
    if as_json:
        return print_json({"letters": [_as_data(letter, notes) for letter in letters]})
    return _show(letters, notes)


@dlq.command()
def show(
    place: Annotated[str, typer.Argument(metavar="PLACE", help="Where it lies, as the list says: 3@17.")],
    body: Annotated[bool, typer.Option("--body", help="Its value as well. It may hold a prompt.")] = False,
) -> None:
    """Show one dead letter: where it came from, why it is one, its key and headers. Examples:

    spillway dlq show 3@17
    spillway dlq show 3@17 --body
    """
    from dataclasses import replace  # noqa: PLC0415

    from app.cli.context import run  # noqa: PLC0415
    from app.cli.output import print_text  # noqa: PLC0415
    from app.cli.records import as_text  # noqa: PLC0415
    from app.dlq.letters import letter_of  # noqa: PLC0415

    record = run(_desk().one(_place(place)))
    letter = letter_of(record)
    lines = as_text(record if body else replace(record, value=b"")).rstrip("\n")
    if not body:
        lines = lines.removesuffix("(empty)").rstrip()
    origin = letter.origin
    came = f"{origin.topic}[{origin.partition}]@{origin.offset}" if origin else "–"
    print_text(f"{letter.code}: {letter.message}\nfrom {came}, {letter.size:,} bytes, {_times(letter.redrives)}")
    print_text(lines)
    if not body and letter.size:
        print_text("  (the value is not shown; --body shows it)")


@dlq.command()
def redrive(
    places: Annotated[list[str] | None, typer.Argument(metavar="PLACE", help="Letters, as the list says.")] = None,
    code: Code = None,
    topic: Topic = None,
    since: Since = None,
    everything: Annotated[bool, typer.Option("--all", help="All letters there are.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also those that were sent again before.")] = False,
    yes: Yes = False,
) -> None:
    """Send letters to where they came from, as they were: bytes, key, headers, partition.

    A letter is sent once, whoever asks, unless --again says so. What fails again is a new letter, which says how often
    it has been one. Examples:

      spillway dlq redrive 3@17
      spillway dlq redrive --code internal_error --since 2026-11-25T09:00:00Z
    """
    if not (places or code or topic or since or everything):
        raise typer.BadParameter("Say which letters: places, --code, --topic, --since, or --all.")
    from app.cli.context import run  # noqa: PLC0415
    from app.cli.output import count, remark  # noqa: PLC0415

    desk, wanted = _desk(), _wanted(places, code, topic, since)
    letters, notes = run(desk.newest(wanted))
    _check_all_found(wanted, letters)
    reasons = [(letter, desk.refusal(letter, notes, again=again)) for letter in letters]
    meant = [letter for letter, reason in reasons if reason is None]
    _tell_left([(letter, reason) for letter, reason in reasons if reason])
    if not meant:
        return typer.echo("No letter to send.")
    typer.echo(f"{count(len(meant), 'letter')}: {_summary(meant)}.")
    if not yes:
        typer.confirm("Send them again?", abort=True)
    done: Redriven = run(desk.redrive(meant, again=again, tell=lambda sent: remark(f"{sent:,} sent")))
    _tell_left(done.left)
    return typer.echo(f"{count(len(done.sent), 'letter')} sent again.")


@dlq.command()
def purge(
    places: Annotated[
        list[str] | None, typer.Argument(metavar="PLACE", help="The last letter to go, for each partition.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All letters there are.")] = False,
    yes: Yes = False,
) -> None:
    """Remove letters for good: in the partition of each place all up to it, itself included. Examples:

    spillway dlq purge 3@17
    spillway dlq purge --all
    """
    if bool(places) == everything:
        raise typer.BadParameter("Say up to which places, or --all.")
    from app.cli.context import run  # noqa: PLC0415
    from app.cli.output import count  # noqa: PLC0415

    desk = _desk()
    removals: list[Removal] = run(desk.up_to([_place(text) for text in places]) if places else desk.all_there_is())
    total = sum(removal.count for removal in removals)
    if not total:
        return typer.echo("No letter to remove.")
    typer.echo(f"{count(total, 'letter')} in {count(len(removals), 'partition')}; this cannot be undone.")
    if not yes:
        typer.confirm("Remove them?", abort=True)
    run(desk.remove(removals))
    return typer.echo(f"{count(total, 'letter')} removed.")


# What the commands share ---------------------------------------------------------------------------------------------


def _desk() -> LetterDesk:
    from app.cli.context import command_settings  # noqa: PLC0415
    from app.dlq.desk import LetterDesk  # noqa: PLC0415

    return LetterDesk(command_settings())


def _place(text: str) -> Place:
    from app.dlq.letters import Place  # noqa: PLC0415

    try:
        return Place.read(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _wanted(places: Sequence[str] | None, code: str | None, topic: str | None, since: str | None) -> Wanted:
    from app.cli.context import command_settings  # noqa: PLC0415
    from app.cli.period import moment  # noqa: PLC0415
    from app.cli.records import full_name  # noqa: PLC0415
    from app.dlq.letters import Wanted  # noqa: PLC0415
    from app.topics import build_topology  # noqa: PLC0415

    return Wanted(
        places=frozenset(map(_place, places)) if places else None,
        code=code,
        topic=full_name(topic, build_topology(command_settings())) if topic else None,
        since=round(moment(since, "--since").timestamp() * 1000) if since else 0,
    )


def _check_all_found(wanted: Wanted, letters: Sequence[Letter]) -> None:
    from app.cli.errors import CommandError  # noqa: PLC0415

    missing = sorted((wanted.places or frozenset()) - {letter.place for letter in letters})
    if missing:
        raise CommandError(f"There is no dead letter at {', '.join(map(str, missing))}; nothing was sent.")


def _as_data(letter: Letter, notes: Notes) -> dict[str, Any]:
    note = notes.newest(letter)
    return {**letter.as_data(), "sent_again": {"state": note.state, "at": note.at} if note else None}


def _times(redrives: int) -> str:
    return {0: "never sent again before", 1: "sent again once before"}.get(
        redrives, f"sent again {redrives} times before"
    )


def _summary(letters: Sequence[Letter]) -> str:
    from collections import Counter  # noqa: PLC0415

    groups = Counter((letter.origin.topic if letter.origin else "–", letter.code) for letter in letters)
    return ", ".join(f"{number:,} {code} to {topic}" for (topic, code), number in groups.most_common())


def _tell_left(left: Sequence[tuple[Letter, str]]) -> None:
    from app.cli.output import remark  # noqa: PLC0415

    for letter, reason in left[:LEFT_SHOWN]:
        remark(f"left: {letter.place}: {reason}")
    if len(left) > LEFT_SHOWN:
        remark(f"left: {len(left) - LEFT_SHOWN:,} more")


def _show(letters: Sequence[Letter], notes: Notes) -> None:
    from app.cli.output import print_table  # noqa: PLC0415

    if not letters:
        return typer.echo("No dead letters.")
    return print_table(
        ("PLACE", "TIME (UTC)", "FROM", "CODE", "BYTES", "BEFORE", "SENT AGAIN", "REASON"),
        [
            (
                str(letter.place),
                f"{letter.time:%Y-%m-%d %H:%M:%S}",
                letter.origin.topic if letter.origin else "–",
                letter.code,
                f"{letter.size:,}",
                f"{letter.redrives}×" if letter.redrives else "",
                _sent(letter, notes),
                _short(letter.message),
            )
            for letter in letters
        ],
        right=("BYTES", "BEFORE"),
    )


def _sent(letter: Letter, notes: Notes) -> str:
    note = notes.newest(letter)
    if note is None:
        return ""
    return note.at[:16].replace("T", " ") if note.state == "done" else "in doubt"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= REASON_SHOWN else f"{line[: REASON_SHOWN - 1]}…"

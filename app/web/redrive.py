"""A dead letter sent again by its button: once, whoever presses, as `spillway dlq redrive` does."""

from __future__ import annotations

from app.cli.errors import CommandError
from app.dlq.desk import LetterDesk, NoSuchLetterError
from app.dlq.letters import Place, letter_of
from app.settings import Settings


async def redrive(settings: Settings, place: str) -> str:
    """Send the letter at a place like 3@17 to where it came from. Returns what was done, in a sentence.

    Raises CommandError where there is no such letter, or it is not to be sent; KafkaUnavailableError.
    """
    desk = LetterDesk(settings)
    try:
        letter = letter_of(await desk.one(Place.read(place)))
    except (ValueError, NoSuchLetterError) as error:
        raise CommandError(str(error)) from None
    done = await desk.redrive([letter], again=False, tell=lambda _: None)
    for _, reason in done.left:
        raise CommandError(f"The dead letter {letter.place} was not sent: {reason}.")
    where = f" to {letter.origin.topic}" if letter.origin else ""
    return f"The dead letter {letter.place} was sent again{where}."

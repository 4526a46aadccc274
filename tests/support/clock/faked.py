"""A process whose machine's clock is wrong, by libfaketime. What it sees of the steady clocks stays true."""

from __future__ import annotations

from pathlib import Path

#: Debian's places: package faketime.
_PLACES = ("*/faketime/libfaketime.so.1", "faketime/libfaketime.so.1")


def library() -> str | None:
    """Where libfaketime is; None where it is not installed."""
    return next((str(found) for place in _PLACES for found in sorted(Path("/usr/lib").glob(place))), None)


class FakedClock:
    """The clock of the processes that are started with its environment: `ahead` seconds ahead, from now on."""

    def __init__(self, folder: Path, ahead: float = 0.0) -> None:
        self._file = folder / "faketime"
        self.set(ahead)

    def set(self, ahead: float) -> None:
        """All at once: a half-written file would be another time."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead:+.3f}\n")
        new.replace(self._file)

    def environment(self) -> dict[str, str]:
        found = library()
        assert found is not None, "faketime is not installed"
        return {
            "LD_PRELOAD": found,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

"""What one run of a process has written into its log."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from app.devstack.child import rotate


@dataclass(frozen=True)
class LogPart:
    """A log from a place on: the file goes on over all runs of a stack, and those before are other tests' affair."""

    file: Path
    begin: int

    @classmethod
    def from_now_on(cls, file: Path) -> LogPart:
        """Before the process is started. What is too long would be put aside then: it is now."""
        rotate(file)
        return cls(file, file.stat().st_size if file.exists() else 0)

    def text(self) -> str:
        with self.file.open("rb") as log:
            log.seek(self.begin)
            return log.read().decode(errors="replace")

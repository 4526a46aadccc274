"""What the runtime raises."""

from __future__ import annotations


class AbandonedError(Exception):
    """The event goes back to its partition: waiting any longer would hold up a drain, or the partition is gone."""

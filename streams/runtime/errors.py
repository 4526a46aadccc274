"""What the runtime raises."""

from __future__ import annotations


class MissingTopicError(Exception):
    """A topic that Spillway needs does not exist. The message is its name."""


class ReaderDiedError(Exception):
    """A consumer has stopped reading, and would never say so."""


class StoreError(Exception):
    """The local store of a table cannot be read or written. The message names the table."""


class StagePausedError(Exception):
    """A stage has stopped for now: what it has read is not acknowledged, and read again. The message says why."""


class AbandonedError(Exception):
    """The event goes back to its partition: waiting any longer would hold up a drain, or the partition is gone."""


class LostError(Exception):
    """The partitions may be another worker's by now. The message says why."""

"""What the runtime raises."""

from __future__ import annotations


class MissingTopicError(Exception):
    """A topic that Spillway needs does not exist. The message is its name."""


class AbandonedError(Exception):
    """The event goes back to its partition: waiting any longer would hold up a drain, or the partition is gone."""

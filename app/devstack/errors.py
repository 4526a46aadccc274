"""What can be wrong with the embedded stack."""

from __future__ import annotations


class StackError(Exception):
    """The stack cannot start or go on. The message is one sentence for the person at the keyboard."""

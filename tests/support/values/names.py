"""Names that no other test uses, so that tests can share a broker and a database."""

from __future__ import annotations

import uuid


def unique(prefix: str) -> str:
    """A name that is valid for a topic, a workspace, a request and (with underscores) a database."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"

"""What a log line is about, in fields of its own: which request, of whom, and which attempt."""

from __future__ import annotations

#: Fields of a log record that are shown; others that a library may add are not.
FIELDS = ("request_id", "workspace_id", "attempt")


def about(request_id: str, workspace_id: str = "", attempt: int | None = None) -> dict[str, str | int]:
    """For `extra` of a log call, so that all that was logged of a request is found by its id."""
    fields: dict[str, str | int] = {"request_id": request_id}
    if workspace_id:
        fields["workspace_id"] = workspace_id
    if attempt is not None:
        fields["attempt"] = attempt
    return fields

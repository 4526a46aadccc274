"""What a client raises. Each error carries the request's id and, where the stream has answered, the response."""

from __future__ import annotations

from schemas.response import Response, Status


class SpillwayError(Exception):
    """A request has no answer. `code` is for programs, the message for people; no message holds a prompt."""

    def __init__(self, message: str, *, request_id: str | None = None, response: Response | None = None) -> None:
        super().__init__(message)
        self.request_id = request_id
        self.response = response

    @property
    def code(self) -> str | None:
        """The response's error code (docs/contract.md); None where there is no response."""
        return self.response.error.code if self.response is not None and self.response.error is not None else None

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later, as the response says."""
        return self.response is not None and self.response.error is not None and self.response.error.retryable


class InvalidRequestError(SpillwayError, ValueError):
    """What was asked for is no request; nothing was published."""


class ConnectionLostError(SpillwayError):
    """Kafka cannot be reached, or did not take the request.

    A request that has an id may be there all the same: asking again under the same `request_id` pays nothing twice.
    """


class ClientClosedError(SpillwayError):
    """The client is not open, or was closed while the answer was awaited."""


class RequestRejected(SpillwayError):  # noqa: N818 - named after the status of the response
    """Admission has refused it, and nothing was paid: a field, the model, the budget."""


class RequestFailed(SpillwayError):  # noqa: N818
    """No provider has answered it, or it was cancelled. `response.attempts` says what each of them said."""


class RequestExpired(SpillwayError):  # noqa: N818
    """Its deadline has passed, and the stream says so; `response` has what was used until then."""


class RequestTimedOut(SpillwayError, TimeoutError):  # noqa: N818
    """No word came in time. The request was cancelled; `result()` may find its response later."""


class ResultNotFound(SpillwayError, LookupError):  # noqa: N818
    """No response with this id is on `ai.responses`, as far back as was looked."""


_BY_STATUS: dict[Status, type[SpillwayError]] = {
    Status.REJECTED: RequestRejected,
    Status.FAILED: RequestFailed,
    Status.EXPIRED: RequestExpired,
}


def checked(response: Response) -> Response:
    """The response, if it is a success. Raises RequestRejected, RequestFailed or RequestExpired."""
    if response.status is Status.SUCCEEDED:
        return response
    reason = response.error.message if response.error is not None else "no reason was given"
    raise _BY_STATUS[response.status](reason, request_id=response.request_id, response=response)

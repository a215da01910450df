"""The errors of the client library, all of them ConversationError. `retryable`: the same request may succeed later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ConversationError(Exception):
    """Base of all errors of this library."""

    retryable = False


class ConfigurationError(ConversationError):
    """A setting is missing or has no valid value."""


class OutboxFullError(ConversationError):
    """The outbox has reached its limit and takes nothing more until something is delivered."""


class UnreachableError(ConversationError):
    """The server gave no answer: it is down, or the connection broke."""

    retryable = True


class TimedOutError(UnreachableError):
    """The server gave no complete answer in time."""


class GarbledError(ConversationError):
    """The answer is not one of this protocol; the address may be another server's."""

    retryable = True


class ApiError(ConversationError):
    """The server refused the request.

    code         the server's machine code
    details      what to correct, by field
    retry_after  seconds after which to try again; None if the server named none
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str = "",
        details: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.details = dict(details or {})
        self.retry_after = retry_after


class InvalidError(ApiError):
    """The request is invalid (400, 413, 415 and similar)."""


class NotAllowedError(ApiError):
    """The API key is wrong, or does not belong to the sub-domain (401, 403)."""


class NotFoundError(ApiError):
    """There is no such conversation (404)."""


class ConflictError(ApiError):
    """The conversation has ended (`ended`), or its state changed meanwhile (`version_conflict`) (409)."""


class RateLimitedError(ApiError):
    """There were too many requests (429)."""

    retryable = True


class ServerError(ApiError):
    """The server has a fault or is not ready (5xx)."""

    retryable = True


_BY_STATUS: dict[int, type[ApiError]] = {
    401: NotAllowedError,
    403: NotAllowedError,
    404: NotFoundError,
    409: ConflictError,
    429: RateLimitedError,
}


def error_for(status: int) -> type[ApiError]:
    """Return the error class for an HTTP status."""
    return _BY_STATUS.get(status, ServerError if status >= 500 else InvalidError)

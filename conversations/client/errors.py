"""What can go wrong, as a small tree. `retryable`: the same request may succeed later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ConversationError(Exception):
    """Any of them."""

    retryable = False


class ConfigurationError(ConversationError):
    """A setting is missing or makes no sense."""


class OutboxFullError(ConversationError):
    """The outbox has reached its bound, and takes nothing more until something is delivered."""


class UnreachableError(ConversationError):
    """No answer: the server is down, or the connection broke."""

    retryable = True


class TimedOutError(UnreachableError):
    """No whole answer in time."""


class GarbledError(ConversationError):
    """An answer, but not one of this protocol: something else than the server may be there."""

    retryable = True


class ApiError(ConversationError):
    """The server refused. `code` is its machine word, `details` what to mend; `retry_after` is in seconds."""

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
    """400, 413, 415 and the like: the request makes no sense."""


class NotAllowedError(ApiError):
    """401 or 403: the key, or the sub-domain that is named with it."""


class NotFoundError(ApiError):
    """404: there is no such conversation."""


class ConflictError(ApiError):
    """409: the conversation has ended (`ended`), or its state changed meanwhile (`version_conflict`)."""


class RateLimitedError(ApiError):
    """429."""

    retryable = True


class ServerError(ApiError):
    """5xx: the server's own fault, or it is not ready."""

    retryable = True


_BY_STATUS: dict[int, type[ApiError]] = {
    401: NotAllowedError,
    403: NotAllowedError,
    404: NotFoundError,
    409: ConflictError,
    429: RateLimitedError,
}


def error_for(status: int) -> type[ApiError]:
    """The class of an HTTP status."""
    return _BY_STATUS.get(status, ServerError if status >= 500 else InvalidError)

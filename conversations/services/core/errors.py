"""The errors of services, each with a sentence for people and a code for machines."""

from __future__ import annotations

from typing import Any


class DomainError(Exception):
    """Base of all errors of services. `details` are values that a caller can act on."""

    code = "error"

    def __init__(self, message: str, *, code: str = "", details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code or self.code
        self.details = details


class NotFoundError(DomainError):
    """The object does not exist, or is another client's."""

    code = "not_found"


class ConflictError(DomainError):
    """The object's state does not allow the action."""

    code = "conflict"


class InvalidError(DomainError):
    """The input is invalid."""

    code = "invalid"


class UnavailableError(DomainError):
    """The action is impossible at the moment. The same request may succeed later."""

    code = "unavailable"


class NotSignedError(DomainError):
    """The request has no valid signature or key."""

    code = "not_authenticated"


class ForbiddenError(DomainError):
    """The caller is known and may not do this."""

    code = "permission_denied"


class TooManyError(DomainError):
    """The caller exceeds a limit of requests. `retry_after` is in seconds."""

    code = "rate_limited"

    def __init__(
        self, message: str, *, retry_after: int, code: str = "", details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message, code=code, details=details)
        self.retry_after = retry_after

"""What services refuse, each with a sentence for people and a word for machines."""

from __future__ import annotations

from typing import Any


class DomainError(Exception):
    """Something that cannot be done. `code` is a machine word, `details` what a caller can act on."""

    code = "error"

    def __init__(self, message: str, *, code: str = "", details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code or self.code
        self.details = details


class NotFoundError(DomainError):
    """There is no such thing, or it is another client's."""

    code = "not_found"


class ConflictError(DomainError):
    """It exists, but not in a state that allows this."""

    code = "conflict"


class InvalidError(DomainError):
    """The words make no sense."""

    code = "invalid"


class UnavailableError(DomainError):
    """Not now: the same request may succeed in a moment."""

    code = "unavailable"


class NotSignedError(DomainError):
    """Nobody we know has sent this."""

    code = "not_authenticated"


class TooManyError(DomainError):
    """Too much at once, or too often. `retry_after` is in seconds."""

    code = "rate_limited"

    def __init__(
        self, message: str, *, retry_after: int, code: str = "", details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message, code=code, details=details)
        self.retry_after = retry_after

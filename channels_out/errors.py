"""One error class a direction. Callers look at the fields, never at the sentence."""

from __future__ import annotations

from typing import Literal

Throttled = Literal["", "account", "recipient"]


class InboundError(Exception):
    """A webhook that is not taken.

    `code` is a machine word: `invalid_signature` (answered 403) or `malformed` (400).
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class SendError(Exception):
    """A message that the provider did not take, or may not have taken.

    The sentence is ours and carries neither text, numbers nor secrets: it may be logged and shown to staff.

    code            the provider's own code as text ("131047"), else ours: `connect`, `timeout`, `connection_lost`,
                    `http_503`, `bad_answer`, `invalid_request`, `no_credentials`, `not_supported`
    retryable       trying again later can help; the message has certainly not been accepted
    retry_after     seconds the provider asked us to wait, if it said so
    throttled       what was sent too fast: this `account`, or this `recipient` from this account; '' if neither.
                    Always retryable, but later than other errors.
    ambiguous       the bytes left and no answer came back: the message may have been accepted. Never retryable.
    account_broken  the account's credentials or standing are refused: every other send will fail too
    outside_window  the person last wrote too long ago for free text; a template may go. Never retryable as it is.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        retryable: bool = False,
        retry_after: float | None = None,
        throttled: Throttled = "",
        ambiguous: bool = False,
        account_broken: bool = False,
        outside_window: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable
        self.retry_after = retry_after
        self.throttled = throttled
        self.ambiguous = ambiguous
        self.account_broken = account_broken
        self.outside_window = outside_window


class UnknownAdapterError(LookupError):
    """No adapter goes by this provider and channel."""

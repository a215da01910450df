"""One error class for each direction, and the vocabulary of the providers' error tables.

Callers look at the fields of an error, never at its sentence.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, NamedTuple

Throttled = Literal["", "account", "recipient"]


class SentenceError(ValueError):
    """A value that is refused. The message is a sentence in English; `words` and `values` can be said in another."""

    def __init__(self, words: str, **values: object) -> None:
        super().__init__(words % values if values else words)
        self.words, self.values = words, values


class InboundError(Exception):
    """A webhook that is refused.

    `code` is a machine word: `invalid_signature` (answered 403) or `malformed` (400).
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class SendError(Exception):
    """A message that the provider did not accept, or may not have accepted.

    The sentence is ours and contains neither text, numbers nor secrets: it may be logged and shown to staff.

    code            the provider's own code as text ("131047"), else ours: `connect`, `timeout`, `connection_lost`,
                    `http_503`, `bad_answer`, `invalid_request`, `no_credentials`, `not_supported`
    retryable       trying again later can help; the message has certainly not been accepted
    retry_after     seconds that the provider asked us to wait, if it said so
    throttled       what was sent too fast: this `account`, or this `recipient` from this account; '' if neither.
                    Always retryable, but later than other errors.
    ambiguous       the bytes left and no answer came back: the message may have been accepted. Never retryable.
    account_broken  the account's credentials or standing are refused: every other send will fail too
    outside_window  the person last wrote too long ago for free text; a template may be sent. Never retryable as it is.
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
    """No adapter is registered for this provider and channel."""


class ErrorMeaning(StrEnum):
    """The consequence of a provider's error."""

    TRANSIENT = "transient"  # try again
    THROTTLED = "throttled"  # the account sends too fast: try again later
    THROTTLED_RECIPIENT = "throttled recipient"  # the account sends too fast to this person: try again later
    BROKEN = "broken"  # the account is refused, and so will be every other message
    FINAL = "final"  # this message is refused for good
    OUTSIDE_WINDOW = "outside window"  # the person last wrote too long ago


class ErrorRule(NamedTuple):
    """One row of a provider's error table: the meaning of a code, and the sentence that staff read ('' if none)."""

    meaning: ErrorMeaning
    sentence: str = ""


_RETRYABLE = {ErrorMeaning.TRANSIENT, ErrorMeaning.THROTTLED, ErrorMeaning.THROTTLED_RECIPIENT}
_WORTH_WAITING = _RETRYABLE | {ErrorMeaning.BROKEN}  # a broken account is tried again when the provider says so
_THROTTLED: dict[ErrorMeaning, Throttled] = {
    ErrorMeaning.THROTTLED: "account",
    ErrorMeaning.THROTTLED_RECIPIENT: "recipient",
}


def send_error(meaning: ErrorMeaning, sentence: str, *, code: str, retry_after: float | None) -> SendError:
    """Return the SendError for an error answer of this meaning. The code is appended to the sentence."""
    return SendError(
        f"{sentence} ({code})",
        code=code,
        retryable=meaning in _RETRYABLE,
        retry_after=retry_after if meaning in _WORTH_WAITING else None,
        throttled=_THROTTLED.get(meaning, ""),
        account_broken=meaning is ErrorMeaning.BROKEN,
        outside_window=meaning is ErrorMeaning.OUTSIDE_WINDOW,
    )


def gateway_error(provider: str, *, code: str) -> SendError:
    """Return the SendError for a gateway's own error page: the provider may have accepted the message."""
    return SendError(f"A gateway in front of {provider} lost its answer. ({code})", code=code, ambiguous=True)

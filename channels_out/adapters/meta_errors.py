"""What the Graph API's error answers mean, for every product of Meta's that sends messages.

Errors are told apart by `error.code` (and its subcode) and not by the HTTP status: Meta answers throttling with a 403,
and some errors with a 200. Source: Meta, Graph API, "Handling errors".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from channels_out.errors import SendError, Throttled
from channels_out.http import HttpAnswer
from channels_out.shapes import record


class Meaning(StrEnum):
    """What follows from an error."""

    TRANSIENT = "transient"  # may pass: try again
    THROTTLED = "throttled"  # the account sends too fast: try again later
    THROTTLED_RECIPIENT = "throttled for this recipient"
    BROKEN = "broken"  # the account is refused, and so will be every other message
    FINAL = "final"  # this message is refused for good
    OUTSIDE_WINDOW = "outside window"  # the person last wrote too long ago


_RETRYABLE = {Meaning.TRANSIENT, Meaning.THROTTLED, Meaning.THROTTLED_RECIPIENT}
_THROTTLE_SCOPE: dict[Meaning, Throttled] = {
    Meaning.THROTTLED: "account",
    Meaning.THROTTLED_RECIPIENT: "recipient",
}
_GATEWAY = {502, 504}  # the request was passed on, and what became of it is not known (RFC 9110, 15.6.3 and 15.6.5)


@dataclass(frozen=True, slots=True)
class Errors:
    """The errors of one product: what its codes mean, and what staff read. Where a subcode is known, it counts.

    Meta's own sentences are not passed on: that of 190 quotes the token, others the number.
    """

    product: str
    meanings: Mapping[int, Meaning]
    sentences: Mapping[int, str]
    subcodes: Mapping[int, Meaning] = field(default_factory=dict)

    def refusal(self, answer: HttpAnswer, otherwise: str = "") -> SendError | None:
        """The error that the answer is, None if it is none. An answer with an error status is an answer: nothing was
        accepted. Only a gateway's own page, which heard nothing sensible behind it, leaves that open."""
        content = answer.json()
        if answer.ok and not (type(content) is dict and content.get("error")):
            return None
        error = record(content, "error")
        number, subcode = _number(error.get("code")), _number(error.get("error_subcode"))
        code = f"http_{answer.status}" if number is None else str(number)
        if number is None and answer.status in _GATEWAY:
            sentence = f"Something before {self.product} lost its answer. ({code})"
            return SendError(sentence, code=code, ambiguous=True)
        meaning = (
            (self.subcodes.get(subcode) if subcode else None)
            or (None if number is None else self.meanings.get(number))
            or _meaning_of_status(answer.status, is_transient=error.get("is_transient") is True)
        )
        return SendError(
            f"{self.sentence(number, subcode) or otherwise or f'{self.product} did not take the message.'} ({code})",
            code=code,
            retryable=meaning in _RETRYABLE,
            retry_after=answer.retry_after if meaning in _RETRYABLE or meaning == Meaning.BROKEN else None,
            throttled=_THROTTLE_SCOPE.get(meaning, ""),
            account_broken=meaning == Meaning.BROKEN,
            outside_window=meaning == Meaning.OUTSIDE_WINDOW,
        )

    def breaks_account(self, code: Any) -> bool:
        """Whether what failed with this code failed for the account, as every other message will."""
        number = _number(code)
        return number is not None and self.meanings.get(number) == Meaning.BROKEN

    def sentence(self, code: int | None, subcode: int | None = None) -> str:
        """What staff read of a code, '' if it is none that we know."""
        return self.sentences.get(subcode or 0, "") or self.sentences.get(code or 0, "")


def _meaning_of_status(status: int, *, is_transient: bool) -> Meaning:
    """Where the code is unknown or missing (360dialog's own errors, a proxy's page)."""
    if status == 429:
        return Meaning.THROTTLED
    if status >= 500 or status == 408 or is_transient:
        return Meaning.TRANSIENT
    return Meaning.BROKEN if status == 401 else Meaning.FINAL


def _number(code: Any) -> int | None:
    if type(code) is str and code.isascii() and code.isdigit():
        return int(code[:10])
    return code if type(code) is int else None

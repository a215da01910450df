"""Phone calls: what a provider tells of one, and what it is told to do next.

A provider of calls asks by webhook and does what the answer says: speak, listen, wait, hang up. Nothing is sent to it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from channels_out.contract import Adapter, InboundRequest, WebhookResponse
from channels_out.events import Sender


class CallEvent(StrEnum):
    """What a request about a call is about."""

    BEGAN = "began"
    HEARD = "heard"  # the caller said something, or pressed keys
    SILENT = "silent"  # the caller was asked and said nothing
    WAITING = "waiting"  # the caller was asked to wait for the answer
    ENDED = "ended"


class NextAction(StrEnum):
    """What the provider does after it has spoken."""

    LISTEN = "listen"
    WAIT = "wait"
    HANG_UP = "hang_up"


@dataclass(frozen=True, slots=True)
class CallRequest:
    """One request about a call.

    turn        the question that it is about, 1, 2 …; 0 where the call begins or ends
    again       how often that question was asked again
    waited      how often the caller was asked to wait for the answer to what they said
    words       what the caller said, or a readable stand-in; `confidence` from 0 to 1, if the provider says
    cause       the provider's word for why the call ended
    raw         the request, to be kept where it is not understood
    """

    account: str
    call_id: str
    caller: Sender
    event: CallEvent
    turn: int = 0
    again: int = 0
    waited: int = 0
    words: str = ""
    confidence: float | None = None
    cause: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Instruction:
    """What to do: say these, then listen, wait or hang up.

    The provider's next request carries `turn`, `again` and `waited` back. `language` is a tag such as "en-US";
    `voice` the provider's name of a voice.
    """

    then: NextAction
    say: tuple[str, ...] = ()
    turn: int = 0
    again: int = 0
    waited: int = 0
    language: str = "en-US"
    voice: str = ""


class VoiceAdapter(Adapter):
    """One provider of phone calls."""

    fetches_replies: ClassVar[bool] = True

    @abstractmethod
    def call(self, request: InboundRequest) -> CallRequest:
        """What the request tells. Raises InboundError (`malformed`)."""

    @abstractmethod
    def instruct(self, instruction: Instruction, public_url: str) -> WebhookResponse:
        """The instruction as the provider reads it; never raises, whatever is to be said."""

"""Phone calls: the requests of a provider about a call, and the instructions that we return.

A provider of calls posts a webhook and follows the response: speak, listen, wait, hang up. Nothing is sent to it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from channels_out.contract import Adapter, InboundRequest, WebhookResponse
from channels_out.events import Sender
from channels_out.formatting import Formatting


class CallEvent(StrEnum):
    """The subject of a request about a call."""

    BEGAN = "began"
    HEARD = "heard"  # the caller said something, or pressed keys
    SILENT = "silent"  # the caller was asked and said nothing
    WAITING = "waiting"  # the caller was asked to wait for the answer
    TRANSFER_ENDED = "transfer_ended"  # the caller was connected to a number, or could not be
    ENDED = "ended"


class NextAction(StrEnum):
    """The provider's action after it has spoken."""

    LISTEN = "listen"
    WAIT = "wait"
    TRANSFER = "transfer"
    HANG_UP = "hang_up"


@dataclass(frozen=True, slots=True)
class CallRequest:
    """One request about a call.

    turn        the number of the question, 1, 2 …; 0 when the call begins or ends
    again       the number of times that the question was repeated
    waited      the number of times that the caller was asked to wait for the reply
    words       the caller's words, or a readable stand-in
    confidence  the provider's confidence in the words, from 0 to 1; None if it gives none
    cause       the provider's word for the reason why the call ended, or for how the transfer ended
    connected   the caller talked to the number that they were transferred to
    is_ours     we placed the call
    raw         the request, to be kept if it is not understood
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
    connected: bool = False
    is_ours: bool = False
    raw: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Instruction:
    """Our instruction to the provider: say these texts, then listen, wait, transfer or hang up.

    The provider's next request returns `turn`, `again` and `waited`. `language` is a tag such as "en-US"; `voice` is
    the provider's name of a voice. `number` is where a call is transferred to, in E.164, and `ours` the number from
    which that is.
    """

    then: NextAction
    say: tuple[str, ...] = ()
    turn: int = 0
    again: int = 0
    waited: int = 0
    number: str = ""
    ours: str = ""
    language: str = "en-US"
    voice: str = ""


class VoiceAdapter(Adapter):
    """One provider of phone calls."""

    fetches_replies: ClassVar[bool] = True
    formatting = Formatting.SPEECH

    @abstractmethod
    def call(self, request: InboundRequest) -> CallRequest:
        """Return the request about a call. Raises InboundError (`malformed`)."""

    @abstractmethod
    def instruct(self, instruction: Instruction, public_url: str) -> WebhookResponse:
        """Return the response that instructs the provider. It never raises, whatever the text."""

"""Phone calls through Plivo: its forms in, its XML out.

The addresses that Plivo requests next contain the position in the call: `turn`, `again`, `waited`. Sources: Plivo,
"Voice API: XML request", "GetInput", "Speak", "Wait", "Redirect", "Dial".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree as ET

from channels_out import splitting
from channels_out.adapters import plivo
from channels_out.calls import CallEvent, CallRequest, Instruction, NextAction, VoiceAdapter
from channels_out.contract import Account, InboundRequest, OutboundMessage, SendResult, WebhookResponse
from channels_out.errors import InboundError, SendError
from channels_out.events import Event, Sender, Unhandled
from channels_out.kinds import AddressKind, Channel
from channels_out.shapes import identifier, text

TURN_PATH = "/webhooks/voice/inbound"
CONTENT_TYPE = "application/xml"
SPEAK_LIMIT = 3000  # characters of one Speak
MOST_SPOKEN = 60_000  # bytes of one answer, of which Plivo reads 100 kB
MOST_TURNS = 10_000
TRANSFER = "transfer"  # in the query of the address to which Plivo posts how a transfer ended
RING_SECONDS = "30"  # at the number that a call is transferred to
LISTEN_SECONDS = "15"  # until the caller begins
SILENCE_SECONDS = "2"  # until they have finished
VOICE = "WOMAN"

_ENDED = {"completed", "busy", "failed", "timeout", "no-answer", "cancel", "cancelled"}
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, 2.2
_SIP = re.compile(r"sips?:[^\s@]+@\S+")


class PlivoVoiceAdapter(plivo.PlivoAdapter, VoiceAdapter):
    """People call the account's number."""

    title = "Phone calls (Plivo)"
    channel = Channel.VOICE
    text_limit = SPEAK_LIMIT
    acknowledgement = WebhookResponse(content_type=CONTENT_TYPE, body="<Response/>")

    def addresses(self, request: InboundRequest) -> list[str]:
        """Return our number: the called one, or in a call that we placed the calling one."""
        ours, _ = _numbers(plivo.fields(request))
        return [ours] if ours else []

    def parse(self, request: InboundRequest) -> list[Event]:
        """Return the request as `Unhandled`: a call is answered while it lasts (see `call`), and never replayed."""
        posted = plivo.fields(request)
        ours, _ = _numbers(posted)
        kind = text(posted, "Event").strip()[:40] or "call"
        call_id = identifier(posted, "CallUUID")
        reason = "not_a_turn" if ours and call_id else "malformed"
        return [Unhandled(account=ours, kind=kind, reason=reason, raw=plivo.raw(posted), message_id=call_id)]

    def call(self, request: InboundRequest) -> CallRequest:
        """Return the request about a call. Its words are the caller's speech, else `[keys] 12`."""
        posted = plivo.fields(request)
        ours, theirs = _numbers(posted)
        call_id = identifier(posted, "CallUUID").strip()
        if not ours or not call_id:
            raise InboundError("The request names no call.", code="malformed")
        turn, again, waited = (_count(request.query, name) for name in ("turn", "again", "waited"))
        words = _words(posted)
        return CallRequest(
            account=ours,
            call_id=call_id[:200],
            caller=_caller(theirs, call_id),
            event=_event(request, posted, turn, waited, words),
            turn=turn,
            again=again,
            waited=waited,
            words=words,
            confidence=_confidence(text(posted, "SpeechConfidenceScore")) if text(posted, "Speech").strip() else None,
            cause=identifier(posted, "HangupCause") or identifier(posted, "DialHangupCause"),
            connected=text(posted, "DialStatus").strip().lower() == "completed",
            is_ours=_is_ours(posted),
            raw=plivo.raw(posted),
        )

    def instruct(self, instruction: Instruction, public_url: str) -> WebhookResponse:
        """Return the XML. It is built from elements, so that spoken text cannot become markup."""
        response = ET.Element("Response")
        address = _address(instruction, public_url)
        if instruction.then == NextAction.LISTEN:
            asked = ET.SubElement(
                response,
                "GetInput",
                action=address,
                method="POST",
                inputType="dtmf speech",
                executionTimeout=LISTEN_SECONDS,
                speechEndTimeout=SILENCE_SECONDS,
                language=instruction.language,
                redirect="true",
            )
            _speak(asked, instruction)
        else:
            _speak(response, instruction)
        if instruction.then == NextAction.HANG_UP:
            ET.SubElement(response, "Hangup")
        elif instruction.then == NextAction.TRANSFER:
            dial = ET.SubElement(
                response,
                "Dial",
                action=address,
                method="POST",
                redirect="true",
                timeout=RING_SECONDS,
                callerId=instruction.ours,
            )
            ET.SubElement(dial, "Number").text = instruction.number.removeprefix("+")
        else:
            if instruction.then == NextAction.WAIT:
                ET.SubElement(response, "Wait", length="1")
            ET.SubElement(response, "Redirect", method="POST").text = address  # followed if the caller said nothing
        return WebhookResponse(
            content_type=CONTENT_TYPE, body=ET.tostring(response, encoding="unicode", xml_declaration=False)
        )

    def send(self, account: Account, message: OutboundMessage) -> SendResult:
        """Raise SendError: Plivo requests what is to be said, and nothing is sent into a call."""
        plivo.require_credentials(account)
        raise SendError("Nothing can be sent into a call: Plivo requests what is to be said.", code="not_supported")


def _numbers(posted: Mapping[str, Any]) -> tuple[str, str]:
    """Return our number and the other one."""
    names = ("From", "To") if _is_ours(posted) else ("To", "From")
    ours, theirs = (plivo.number_at(posted, name) for name in names)
    return ours, theirs


def _is_ours(posted: Mapping[str, Any]) -> bool:
    """Return whether we placed the call."""
    return text(posted, "Direction").strip().lower() == "outbound"


def _caller(address: str, call_id: str) -> Sender:
    """Return the caller. One who hides their number is another person in each call."""
    if address.isdigit():
        return plivo.sender(address)
    known = address if _SIP.fullmatch(address) and len(address) <= 150 else f"hidden:{call_id[:150]}"
    return Sender(known, AddressKind.USER)


def _event(request: InboundRequest, posted: Mapping[str, Any], turn: int, waited: int, words: str) -> CallEvent:
    ended = text(posted, "CallStatus").strip().lower() in _ENDED
    if "HangupCause" in posted or (ended and not words):
        return CallEvent.ENDED
    if "DialStatus" in posted:
        return CallEvent.TRANSFER_ENDED
    if not turn:
        return CallEvent.BEGAN
    if waited:
        return CallEvent.WAITING
    return CallEvent.HEARD if words else CallEvent.SILENT


def _words(posted: Mapping[str, Any]) -> str:
    speech, digits = text(posted, "Speech").strip(), text(posted, "Digits").strip()
    return speech or (f"[keys] {digits[:32]}" if digits else "")


def _confidence(written: str) -> float | None:
    try:
        score = float(written)
    except ValueError:
        return None
    return score if 0 <= score <= 1 else None


def _count(query: Mapping[str, str], name: str) -> int:
    written = query.get(name, "")
    return min(int(written), MOST_TURNS) if re.fullmatch("[0-9]{1,6}", written) else 0


def _address(instruction: Instruction, public_url: str) -> str:
    transfers = int(instruction.then == NextAction.TRANSFER)
    position = {"turn": instruction.turn, "again": instruction.again, "waited": instruction.waited, TRANSFER: transfers}
    return f"{public_url}{TURN_PATH}?{urlencode({name: value for name, value in position.items() if value})}"


def _speak(parent: ET.Element, instruction: Instruction) -> None:
    room = MOST_SPOKEN
    how = {"voice": instruction.voice or VOICE, "language": instruction.language}
    for words in instruction.say:
        for part in splitting.split(_NO_XML.sub("", words).strip(), SPEAK_LIMIT):
            room -= len(part.encode())
            if room < 0:
                return
            ET.SubElement(parent, "Speak", how).text = part

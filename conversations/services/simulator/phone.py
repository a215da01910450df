"""The reads of the simulator's page: the person's phone, their conversation, and the exchanges between the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext

from channels_out.kinds import MediaKind
from channels_out.simulators.contract import Gesture
from channels_out.simulators.people import SimulatedPerson
from conversations.models import ChannelAccount, Conversation, Message, SimulatedExchange, SimulatedFault
from conversations.services.contacts import contacts
from conversations.services.simulator.accounts import SANDBOX, simulator_of
from conversations.services.simulator.phone_files import LIFETIME, is_ours

SHOWN_ON_PHONE = 100
SHOWN_ON_WIRE = 40
CALL_LOOKED_AT = 20  # exchanges

Kind = SimulatedExchange.Kind


@dataclass(frozen=True, slots=True)
class ShownFile:
    """The file of a message on the phone: by the exchange from which it is had, if it is still there."""

    exchange: int
    name: str
    is_picture: bool
    is_there: bool


@dataclass(slots=True)
class PhoneMessage:
    """One message on the person's phone.

    `mark` says how far it got, `reported` which receipts the provider sent, `can_report` which it could send.
    """

    text: str
    at: datetime
    is_ours: bool  # from the business, not from the person
    message_id: str = ""
    mark: str = ""
    is_grave: bool = False
    is_note: bool = False
    reported: list[str] = field(default_factory=list)
    can_report: Sequence[str] = ()
    choices: Sequence[str] = ()  # titles below a message of the business
    can_change: bool = False  # the person can edit or delete it
    can_react: bool = False
    file: ShownFile | None = None


@dataclass(frozen=True, slots=True)
class SimulatedCall:
    """The call that the person is in.

    Their next words are posted to `path`, their silence to `silence`. If the provider continues by itself, it does so
    `wait` seconds after the exchange with the id `goes_on`.
    """

    is_on: bool = False
    call_id: str = ""
    path: str = ""
    silence: str = ""
    goes_on: int = 0
    wait: float = 0.0


def phone_messages(account: ChannelAccount, person: SimulatedPerson) -> list[PhoneMessage]:
    """Return the messages on the person's phone, oldest first."""
    exchanges = _exchanges(account).filter(person=person.number).exclude(kind=Kind.QUESTION)[:SHOWN_ON_PHONE]
    gestures = simulator_of(account).gestures
    can_report = [status.value for status in simulator_of(account).receipts]
    found: dict[str, PhoneMessage] = {}
    reports: list[SimulatedExchange] = []
    for exchange in reversed(exchanges):
        key = f"{exchange.kind == Kind.SEND} {exchange.message_id or exchange.pk}"
        if exchange.kind == Kind.RECEIPT:
            reports.append(exchange)
        elif exchange.kind == Kind.MESSAGE:
            mine = PhoneMessage(exchange.text, exchange.created_at, is_ours=False, message_id=exchange.message_id)
            mine.can_change = Gesture.EDIT in gestures
            mine.file = _file_of(exchange)
            _mark(found.setdefault(key, mine), exchange)
        elif exchange.kind == Kind.SEND and exchange.message_id:
            found.setdefault(key, _of_business(exchange, can_report, can_react=Gesture.REACT in gestures))
        else:
            _show_rest(found, key, exchange)
        for message in _heard(exchange):
            found.setdefault(f"heard {exchange.message_id} {message.is_note}", message)
    for report in reports:
        reported = found.get(f"True {report.message_id}")
        if reported and report.status == 200:
            reported.reported.append(report.details.get("status", ""))
    if account.provider == SANDBOX:
        found |= _delivered_in_the_sandbox(account, person)
    return sorted(found.values(), key=lambda message: message.at)


def _of_business(exchange: SimulatedExchange, can_report: Sequence[str], *, can_react: bool) -> PhoneMessage:
    choices = [title for _, title in exchange.details.get("choices", ())]
    theirs = PhoneMessage(exchange.text, exchange.created_at, is_ours=True, message_id=exchange.message_id)
    theirs.can_report, theirs.choices, theirs.can_react = can_report, choices, can_react
    theirs.file = _file_of(exchange)
    if theirs.file:
        theirs.text = ""  # which would say again that it is a file
    return theirs


def _file_of(exchange: SimulatedExchange) -> ShownFile | None:
    sent, shown = exchange.details.get("file") or {}, exchange.details.get("shown") or {}
    if not (sent or shown):
        return None
    name = str(shown.get("name") or sent.get("name") or shown["kind"])
    link = str(shown.get("link", ""))
    is_young = timezone.now() - exchange.created_at < LIFETIME
    is_picture = (shown or sent).get("kind") == MediaKind.IMAGE
    return ShownFile(exchange.pk, name, is_picture, is_young and bool(sent or is_ours(link)))


def _show_rest(found: dict[str, PhoneMessage], key: str, exchange: SimulatedExchange) -> None:
    """Show gestures and what happened in a call."""
    if exchange.kind == Kind.GESTURE:
        _show_gesture(found, exchange)
    elif exchange.kind in (Kind.CALL, Kind.HANG_UP):
        text = gettext("You called.") if exchange.kind == Kind.CALL else gettext("You hung up.")
        note = PhoneMessage(text, exchange.created_at, is_ours=False, is_note=True)
        found.setdefault(f"{exchange.kind} {key}", note)


def _show_gesture(found: dict[str, PhoneMessage], exchange: SimulatedExchange) -> None:
    """Show what the person did: a press is a message, an edit or deletion changes theirs, the rest is a note."""
    gesture, about = exchange.details.get("gesture"), f"False {exchange.details.get('about')}"
    key = f"gesture {exchange.pk}"
    if gesture == Gesture.PRESS:
        found[key] = PhoneMessage(exchange.text, exchange.created_at, is_ours=False)
        _mark(found[key], exchange)
    elif gesture == Gesture.EDIT and about in found:
        found[about].text = exchange.text
    elif gesture == Gesture.DELETE and about in found:
        found[about].text, found[about].can_change = gettext("You deleted this message."), False
        found[about].file = None
    elif gesture == Gesture.ECHO:
        found[key] = PhoneMessage(exchange.text, exchange.created_at, is_ours=True)
    else:
        note = gettext("You reacted with %(emoji)s.") % {"emoji": exchange.text}
        found[key] = PhoneMessage(note, exchange.created_at, is_ours=False, is_note=True)


def _mark(message: PhoneMessage, exchange: SimulatedExchange) -> None:
    """Set how far the person's message got; of several deliveries the furthest counts."""
    if message.mark == gettext("taken"):
        return
    if exchange.is_held:
        message.mark, message.is_grave = gettext("held back"), False
    elif exchange.status == 200:
        message.mark, message.is_grave = gettext("taken"), False
    elif exchange.answered_at is None:
        message.mark, message.is_grave = gettext("on its way"), False
    else:
        message.mark, message.is_grave = (
            gettext("not taken (%(status)s)") % {"status": exchange.status or gettext("no answer")},
            True,
        )


def _heard(exchange: SimulatedExchange) -> list[PhoneMessage]:
    """Return what the caller heard in our answer to a webhook."""
    heard = exchange.details.get("heard") or {}
    at = exchange.answered_at or exchange.created_at
    spoken = [PhoneMessage(heard["text"], at, is_ours=True)] if heard.get("text") else []
    ended = [PhoneMessage(gettext("The call has ended."), at, is_ours=True, is_note=True)] if heard.get("over") else []
    return [*spoken, *ended]


def _delivered_in_the_sandbox(account: ChannelAccount, person: SimulatedPerson) -> dict[str, PhoneMessage]:
    conversation = newest_conversation(account, person)
    if conversation is None:
        return {}
    messages = Message.objects.filter(conversation=conversation, status=Message.Status.DELIVERED)
    newest = messages.order_by("-chunk_id", "-part")[:SHOWN_ON_PHONE]
    return {
        str(each.pk): PhoneMessage(each.text, each.sent_at or each.created_at, is_ours=True, reported=["delivered"])
        for each in newest
    }


def current_call(account: ChannelAccount, person: SimulatedPerson) -> SimulatedCall:
    """Return the person's call as our last answer left it; not `is_on` if there is none."""
    of_calls = _exchanges(account).filter(person=person.number, details__has_key="call")[:CALL_LOOKED_AT]
    under_way = False
    for exchange in of_calls:
        heard = exchange.details.get("heard")
        if exchange.kind == Kind.HANG_UP or (heard and heard["over"]):
            return SimulatedCall()
        if heard:
            goes_on = exchange.pk if heard["at_once"] and not under_way else 0
            words_to = "" if heard["at_once"] else heard["path"]
            return SimulatedCall(True, exchange.details["call"], words_to, heard["silence"], goes_on, heard["wait"])
        if exchange.answered_at is None:
            under_way = True
        elif exchange.kind == Kind.CALL:
            return SimulatedCall()
    return SimulatedCall(is_on=under_way)


def newest_conversation(account: ChannelAccount, person: SimulatedPerson) -> Conversation | None:
    """Return the person's newest conversation over the account, or None."""
    address = simulator_of(account).address_of(person)
    found = Conversation.objects.filter(client=account.client_id, channel=account.channel, channel_account=account)
    if account.provider == SANDBOX:
        found = found.filter(contact__in=contacts.ids_by_user_id(address, account.client))
    else:
        found = found.filter(
            contact__identities__client=account.client_id,
            contact__identities__channel=account.channel,
            contact__identities__address=address,
        )
    related = ("contact", "client", "assistant", "channel_account")
    return found.select_related(*related).order_by("-started_at", "-id").first()


def exchanges(account: ChannelAccount, person: SimulatedPerson) -> list[SimulatedExchange]:
    """Return the exchanges about the person and those about nobody, newest first, at most SHOWN_ON_WIRE."""
    return list(_exchanges(account).filter(person__in=[person.number, 0])[:SHOWN_ON_WIRE])


def planned_faults(account: ChannelAccount) -> list[str]:
    """Return the faults of the account's next sends, in order."""
    return list(SimulatedFault.objects.filter(account=account).values_list("misbehaviour", flat=True))


def _exchanges(account: ChannelAccount) -> QuerySet[SimulatedExchange]:
    return SimulatedExchange.objects.filter(account=account).order_by("-id")

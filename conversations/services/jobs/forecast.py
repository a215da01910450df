"""The forecast of a conversation: what happens to it next, when, by which rule, and what prevents it.

Where SQL decides when a job is due, the forecast asks by the same expressions (core/deadlines.py), so that forecast and
jobs cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.utils.translation import gettext as _

from conversations.models import (
    ChannelAccount,
    ClientHours,
    Conversation,
    EngineChat,
    Message,
    RollingSummary,
    SendPause,
    Turn,
)
from conversations.services.core import proposals
from conversations.services.core.durations import in_words
from conversations.services.delivery.claiming import UNKNOWN_DELAY
from conversations.services.jobs import ageing
from conversations.services.jobs.upcoming import DISPATCHER, HAND_OVER, SWEEP, UpcomingEvent, colleague, scheduled
from conversations.services.tenants import channel_accounts, client_hours
from conversations.services.transitions import pending_handovers

S = Message.Status


def upcoming_events(conversation: Conversation, now: datetime) -> list[UpcomingEvent]:
    """Return what will happen to the conversation as it is now, the earliest first; events that are held come last."""
    found = [
        *_reply(conversation),
        *_proposal(conversation),
        *_handover(conversation, now),
        *_sends(conversation, now),
        *_summary(conversation),
        *_chat(conversation),
        *ageing.life(conversation),
    ]
    return sorted(found, key=lambda each: (bool(each.held_by) or each.at is None, each.at or now))


def next_event(upcoming: Iterable[UpcomingEvent]) -> UpcomingEvent | None:
    """Return the first event that is held by nothing and needs no other event before; None if there is none."""
    return next((each for each in upcoming if each.at and not each.held_by and not each.after), None)


# --- replies and sends ------------------------------------------------------------------------------------------------
def _reply(conversation: Conversation) -> Iterator[UpcomingEvent]:
    turn = Turn.objects.filter(conversation=conversation, status=Turn.Status.RUNNING).first()
    if turn and turn.waiting_until:
        yield UpcomingEvent(
            "freed",
            _("The client's own agent answers later; if it does not call back, the reply is tried again or given up"),
            turn.waiting_until,
            _("the deadline of the agent"),
            _("The assistant's agent's deadline"),
            DISPATCHER,
        )
    elif turn:
        yield UpcomingEvent(
            "freed",
            _("A reply is being written; if its process dies, another process may write it"),
            turn.lease_until,
            _("the lease of the turn is renewed while it runs"),
            f"LEASE_SECONDS: {settings.LEASE_SECONDS:g} s",
            DISPATCHER if turn.streamed else scheduled(SWEEP),
        )
    if not conversation.is_open or not conversation.reply_owed:
        return
    held = (_("the agent answers later") if turn.waiting_until else _("a reply is being written")) if turn else ""
    if conversation.taken_over_at:
        held = _("%(colleague)s has the conversation and owes the answer") % {"colleague": colleague(conversation)}
    client, channel = conversation.client, conversation.channel
    quiet = client.quiet_window(channel).total_seconds()
    rule = _("the quiet window after the last message, at most the longest wait after the first")
    setting = _("Quiet window on %(channel)s: %(quiet)s s; longest wait: %(longest)s") % {
        "channel": conversation.get_channel_display(),
        "quiet": f"{quiet:g}",
        "longest": in_words(client.longest_wait),
    }
    if conversation.reply_attempts:
        rule = _("tried %(times)s times of %(most)s: longer each time") % {
            "times": conversation.reply_attempts,
            "most": settings.REPLY_ATTEMPTS,
        }
        setting = _("RETRY_BASE_SECONDS: %(least)s s, at most %(most)s s") % {
            "least": f"{settings.RETRY_BASE_SECONDS:g}",
            "most": f"{settings.RETRY_MOST_SECONDS:g}",
        }
    yield UpcomingEvent(
        "reply", _("The assistant writes a reply"), conversation.reply_due_at, rule, setting, DISPATCHER, held
    )


def _proposal(conversation: Conversation) -> Iterator[UpcomingEvent]:
    found = proposals.open_proposal(conversation) if conversation.is_open else None
    if found and proposals.is_current(conversation, found):
        says, rule = _("A colleague sends, edits or discards the proposal"), _("the assistant proposes, a person sends")
        by = _("a colleague in the inbox")
        yield UpcomingEvent("approved", says, None, rule, "", by, _("the proposal waits for a colleague"))


def _handover(conversation: Conversation, now: datetime) -> Iterator[UpcomingEvent]:
    pending = pending_handovers.of(conversation) if conversation.is_open else None
    if pending:
        terms = client_hours.terms(conversation.client_id)
        when = client_hours.when_in_words(terms, pending.due_at, now=now)
        says = _("The conversation is handed over to a person: %(when)s in %(zone)s") % {
            "when": when,
            "zone": terms.hours.zone,
        }
        rule = _("business hours: the next opening")
        setting = _("Outside the hours: %(label)s") % {"label": ClientHours.Outside(terms.outside).label}
        yield UpcomingEvent("handed_over", says, pending.due_at, rule, setting, scheduled(HAND_OVER))


def _sends(conversation: Conversation, now: datetime) -> Iterator[UpcomingEvent]:
    """Yield the sends, oldest first. One whose outcome is not known yet holds back those after it."""
    unsettled = [S.QUEUED, S.CLAIMED, S.SENDING, S.UNKNOWN]
    found = Message.objects.filter(conversation=conversation, status__in=unsettled).select_related("channel_account")
    before = ""
    for message in found.order_by("chunk_id", "part"):
        event = _send(message, before, now)
        if event:
            yield event
        if message.status != S.UNKNOWN or (message.sending_at and message.sending_at >= now - UNKNOWN_DELAY):
            before = before or _("the message before it")


def _send(message: Message, before: str, now: datetime) -> UpcomingEvent | None:
    part = _("message %(chunk_id)s, part %(part)s of %(parts)s") % {
        "chunk_id": message.chunk_id,
        "part": message.part,
        "parts": message.parts,
    }
    lease = f"LEASE_SECONDS: {settings.LEASE_SECONDS:g} s"
    if message.status == S.UNKNOWN:
        until = message.sending_at + UNKNOWN_DELAY if message.sending_at else None
        if until is None or until < now:
            return None
        says = _("It is unclear whether %(part)s arrived; the messages after it stop waiting") % {"part": part}
        rule = _("an unclear message holds back the messages after it for a minute")
        return UpcomingEvent("unheld", says, until, rule, "", DISPATCHER)
    if message.status in (S.CLAIMED, S.SENDING):
        says = (
            _("%(part)s is being sent; if its process dies, another process sends it")
            if message.status == S.CLAIMED
            else _("%(part)s is being sent; if its process dies, it is unclear whether it arrived")
        ) % {"part": part.capitalize()}
        return UpcomingEvent(
            "freed", says, message.lease_until, _("the lease of the send is over"), lease, scheduled(SWEEP)
        )
    pause = SendPause.objects.filter(
        client=message.client_id,
        channel_account=message.channel_account_id,
        to_address__in=["", message.to_address],
        until__gt=message.due_at,
    )
    paused = pause.order_by("-until").values_list("until", flat=True).first()
    rule = _("as soon as it is written")
    if message.attempts:
        rule = _("tried %(times)s times of %(most)s: longer each time") % {
            "times": message.attempts,
            "most": settings.SEND_ATTEMPTS,
        }
    if paused:
        rule = _("the provider throttles")
    setting = f"RETRY_BASE_SECONDS: {settings.RETRY_BASE_SECONDS:g} s" if message.attempts else ""
    held = before or _account_trouble(message.channel_account)
    return UpcomingEvent(
        "send",
        _("%(part)s is sent") % {"part": part.capitalize()},
        paused or message.due_at,
        rule,
        setting,
        DISPATCHER,
        held,
    )


def _account_trouble(account: ChannelAccount | None) -> str:
    if account is None:
        return _("there is no account")
    if not account.is_active:
        return _("the account is switched off")
    if account.health != ChannelAccount.Health.OK:
        return _("the account is refused by its provider")
    circuit = channel_accounts.open_circuit(account)
    return _("the account's provider cannot be reached, and is tried by one message at a time") if circuit else ""


# --- summaries, memory, chats -----------------------------------------------------------------------------------------
def _summary(conversation: Conversation) -> Iterator[UpcomingEvent]:
    rolling = RollingSummary.objects.filter(conversation=conversation, due_at__isnull=False).first()
    if rolling and conversation.is_open:
        rule = _("messages have left the prompt")
        if rolling.error:
            rule = _("tried %(times)s times, last: %(error)s") % {"times": rolling.attempts, "error": rolling.error}
        says = _("Messages that have left the prompt are summarised")
        yield UpcomingEvent("summarised", says, rolling.due_at, rule, "", _("summarise, asked for by the sweep"))
    if conversation.remember_due_at:
        rule = _("at the end of a conversation")
        if conversation.remember_error:
            rule = _("tried %(times)s times, last: %(error)s") % {
                "times": conversation.remember_attempts,
                "error": conversation.remember_error,
            }
        says = _("The conversation is remembered: its final summary and transcript go into memory")
        job = _("remember_ended, asked for by the sweep")
        yield UpcomingEvent("remembered", says, conversation.remember_due_at, rule, "", job)


def _chat(conversation: Conversation) -> Iterator[UpcomingEvent]:
    for chat in EngineChat.objects.filter(conversation=conversation, due_at__isnull=False):
        says = _("The chat at Retell is ended")
        if conversation.is_open:
            says = _("The conversation is closed because the Retell agent ended the chat")
        rule = _("the conversation and its chat end together")
        yield UpcomingEvent("chat_settled", says, chat.due_at, rule, "", "settle_chats")


# --- past events ------------------------------------------------------------------------------------------------------
def rule_of_event(data: dict[str, Any]) -> str:
    """Return the rule that the data of a ledger event names, with its length; '' if it names none."""
    if not (rule := data.get("rule")):
        return ""
    seconds, since = data.get("seconds"), str(data.get("since") or "")
    if seconds is not None:
        rule = f"{rule} = {in_words(timedelta(seconds=float(seconds)))}"
    if not since:
        return _("rule %(rule)s") % {"rule": rule}
    return _("rule %(rule)s, since %(since)s") % {"rule": rule, "since": since[:19].replace("T", " ")}

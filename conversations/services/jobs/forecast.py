"""The forecast of a conversation: what happens to it next, when, by which rule, and what prevents it.

Where SQL decides when a job is due, the forecast asks by the same expressions (core/deadlines.py), so that forecast and
jobs cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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
from conversations.models import RetentionRule as R
from conversations.models.retention import FOR_EVER
from conversations.queue import SCHEDULES
from conversations.services.core import proposals
from conversations.services.core.deadlines import (
    ARCHIVES_AT,
    EXPIRES_AT,
    HANDED_BACK_AT,
    KEPT,
    STALE_AT,
    days,
    kept_until,
)
from conversations.services.core.durations import counted, in_words
from conversations.services.core.sql import row
from conversations.services.delivery.claiming import UNKNOWN_DELAY
from conversations.services.retention import holds
from conversations.services.tenants import channel_accounts, client_hours
from conversations.services.transitions import pending_handovers

DISPATCHER = "dispatcher"
SWEEP, ARCHIVE, CLEAN_UP, HAND_OVER = "sweep", "archive", "clean_up", "hand_over"
S = Message.Status


@dataclass(frozen=True, slots=True)
class UpcomingEvent:
    """One event that will happen to a conversation.

    what     a word: reply, send, stale, expired, handed_back, remembered, archived, deleted …
    says     the same as a sentence for staff
    at       when it is due; None if no time is set
    rule     the rule that sets the time
    setting  the setting that the rule reads, with its value
    job      the job that does it
    held_by  what prevents it although its time comes; '' for nothing
    after    the `what` of the event that must happen before; '' for none
    """

    what: str
    says: str
    at: datetime | None
    rule: str
    setting: str
    job: str
    held_by: str = ""
    after: str = ""


def upcoming_events(conversation: Conversation, now: datetime) -> list[UpcomingEvent]:
    """Return what will happen to the conversation as it is now, the earliest first; events that are held come last."""
    found = [
        *_reply(conversation),
        *_proposal(conversation),
        *_handover(conversation, now),
        *_sends(conversation, now),
        *_summary(conversation),
        *_chat(conversation),
        *_life(conversation),
    ]
    return sorted(found, key=lambda each: (bool(each.held_by) or each.at is None, each.at or now))


def _scheduled(job: str) -> str:
    return _("%(job)s, every %(time)s") % {"job": job, "time": in_words(timedelta(minutes=SCHEDULES[job]))}


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
            DISPATCHER if turn.streamed else _scheduled(SWEEP),
        )
    if not conversation.is_open or not conversation.reply_owed:
        return
    held = (_("the agent answers later") if turn.waiting_until else _("a reply is being written")) if turn else ""
    if conversation.taken_over_at:
        held = _("%(colleague)s has the conversation and owes the answer") % {"colleague": _colleague(conversation)}
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


def _colleague(conversation: Conversation) -> str:
    return conversation.taken_over_name or _("nobody yet")


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
        yield UpcomingEvent("handed_over", says, pending.due_at, rule, setting, _scheduled(HAND_OVER))


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
            "freed", says, message.lease_until, _("the lease of the send is over"), lease, _scheduled(SWEEP)
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


# --- ageing, archive, deletion ----------------------------------------------------------------------------------------
_ENDS = f"COALESCE(s.ended_at, {EXPIRES_AT})"
_RULES = (R.GUESTS, R.SESSIONS, R.TURNS, R.SENDS)


@dataclass(frozen=True, slots=True)
class _Times:
    """The times that SQL computed. `kept`: for each retention rule, its days and when they are over."""

    stale: datetime
    expires: datetime
    handed_back: datetime | None
    archives: datetime
    kept: dict[str, tuple[int, datetime]]
    has: dict[str, bool]


def _times(conversation: Conversation) -> _Times:
    """Compute the times. What counts from the end of an open conversation counts from when it will expire."""
    status = "'expired'" if conversation.is_open else "s.status"
    asked = [(rule.value, days(rule, status), kept_until(rule, _ENDS, status)) for rule in _RULES]
    asked += [("archived", days(R.SESSIONS, "'archived'"), kept_until(R.SESSIONS, _ENDS, "'archived'"))]
    asked += [(rule.value, days(rule), kept_until(rule)) for rule in (R.WEB, R.MEMORY)]
    has = [
        f"EXISTS (SELECT FROM {table} t WHERE t.client_id = $2 AND t.conversation_id = s.id)"
        for table in _BELOW.values()
    ]
    columns = [STALE_AT, EXPIRES_AT, HANDED_BACK_AT, ARCHIVES_AT.format(ended=_ENDS)]
    columns += [part for _, number, until in asked for part in (number, until)]
    found = row(
        f"""
        SELECT {", ".join([*columns, *has])}
        FROM conversations s JOIN clients c ON c.id = s.client_id
        JOIN contacts p ON p.client_id = s.client_id AND p.id = s.contact_id
        LEFT JOIN memories m ON m.client_id = s.client_id AND m.conversation_id = s.id
        WHERE s.client_id = $2 AND s.id = $1
        """,
        *(conversation.pk, conversation.client_id),
    )
    assert found is not None  # noqa: S101 - the caller has just read the conversation
    kept = {name: (found[4 + 2 * n], found[5 + 2 * n]) for n, (name, *_) in enumerate(asked)}
    rest = found[4 + 2 * len(asked) :]
    stale, expires, handed_back, archives = found[:4]
    return _Times(stale, expires, handed_back, archives, kept, dict(zip(_BELOW, rest, strict=True)))


_BELOW = {R.TURNS.value: "conversation_turns", R.SENDS.value: "conversation_messages"}


def _life(conversation: Conversation) -> Iterator[UpcomingEvent]:
    times = _times(conversation)
    if conversation.is_open:
        yield from _open(conversation, times)
    if not (conversation.is_open and conversation.channel == "web"):
        yield from _ended(conversation, times)


def _open(conversation: Conversation, times: _Times) -> Iterator[UpcomingEvent]:
    client = conversation.client
    if conversation.channel == "web":
        yield from _deletion(conversation, times, R.WEB, "deleted", _("The conversation is deleted"))
        held = _("conversations on the web do not age")
    else:
        held = (
            _("%(colleague)s has the conversation: it does not age") % {"colleague": _colleague(conversation)}
            if conversation.taken_over_at
            else ""
        )
    if conversation.taken_over_at:
        yield UpcomingEvent(
            "handed_back",
            _("The conversation goes back to the assistant if %(colleague)s does nothing")
            % {"colleague": _colleague(conversation)},
            times.handed_back,
            _("no action of the colleague for so long"),
            _("A takeover ends after: %(time)s") % {"time": in_words(client.hand_back_after)},
            _scheduled(SWEEP),
        )
    if conversation.status == "active" and times.stale < times.expires:
        at, setting = (
            times.stale,
            _("A conversation becomes stale after: %(time)s") % {"time": in_words(client.stale_after)},
        )
        says = _("The conversation becomes stale")
        yield UpcomingEvent("stale", says, None if held else at, _("no message"), setting, _scheduled(SWEEP), held)
    rule = (
        _("no message; extended by its agent or for a hand-over")
        if times.expires == conversation.extended_until
        else _("no message")
    )
    at, setting = times.expires, _("A conversation expires after: %(time)s") % {"time": in_words(client.expire_after)}
    yield UpcomingEvent(
        "expired", _("The conversation expires"), None if held else at, rule, setting, _scheduled(SWEEP), held
    )


def _ended(conversation: Conversation, times: _Times) -> Iterator[UpcomingEvent]:
    after = "expired" if conversation.is_open else ""
    guest = conversation.is_guest and conversation.status not in ("closed", "archived")
    if guest:
        yield from _deletion(conversation, times, R.GUESTS, "deleted", _("The guest's conversation is deleted"), after)
    elif not (conversation.is_guest or conversation.archived_at):
        yield from _archive(conversation, times, after)
    if not guest:
        yield from _deletion(conversation, times, R.SESSIONS, "deleted", _("The conversation is deleted"), after)
    for rule, says in ((R.TURNS, _("What the model was given is deleted")), (R.SENDS, _("Its sends are deleted"))):
        if times.has[rule.value]:
            yield from _deletion(conversation, times, rule, f"{rule.value}_deleted", says, after)
    if times.kept[R.MEMORY.value][1]:
        yield from _deletion(conversation, times, R.MEMORY, "memory_deleted", _("It is deleted from memory"), after)


def _archive(conversation: Conversation, times: _Times, after: str) -> Iterator[UpcomingEvent]:
    if not conversation.is_open and not conversation.remembered_at and not conversation.remember_due_at:
        return  # its memory is deleted already, or it never had any
    held = holds.hold_reason(conversation)
    is_due = conversation.remembered_at and not conversation.remember_due_at
    setting = _("A conversation is archived after: %(time)s") % {"time": in_words(conversation.client.archive_after)}
    says = _("The conversation is archived: its messages stay in memory alone")
    after = after or ("" if is_due else "remembered")
    yield UpcomingEvent(
        "archived", says, times.archives, _("so long after its end"), setting, _scheduled(ARCHIVE), _hold(held), after
    )


def _deletion(
    conversation: Conversation, times: _Times, rule: R, what: str, says: str, after: str = ""
) -> Iterator[UpcomingEvent]:
    number, at = times.kept[rule.value]
    if rule == R.SESSIONS and _archived_before(conversation, times, at, number):
        number, until = times.kept["archived"]
        at, after = max(until, times.archives), "archived"
    if number >= FOR_EVER:
        return
    held = holds.hold_reason(conversation)
    default = number == int(getattr(settings, KEPT[rule].setting))
    kept = counted("day", number)
    setting = _("Retention: %(time)s") % {"time": kept}
    if default:
        setting = _("%(setting)s or the client's retention: %(time)s") % {"setting": KEPT[rule].setting, "time": kept}
    job = _scheduled(SWEEP if rule == R.GUESTS else CLEAN_UP)
    yield UpcomingEvent(what, says, at, str(rule.label), setting, job, _hold(held), after)


def _hold(reason: str) -> str:
    return _("hold: %(reason)s") % {"reason": reason} if reason else ""


def _archived_before(conversation: Conversation, times: _Times, at: datetime, number: int) -> bool:
    """Return whether it will be archived by then, so that the days of archived conversations count."""
    if conversation.archived_at or conversation.is_guest or holds.hold_reason(conversation):
        return False
    will_be = conversation.is_open or conversation.remembered_at or conversation.remember_due_at
    return bool(will_be) and times.archives <= at


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

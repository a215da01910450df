"""The part of the forecast about age: when a conversation becomes stale, expires, is archived and is deleted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.utils.translation import gettext as _

from conversations.models import Conversation
from conversations.models import RetentionRule as R
from conversations.models.retention import FOR_EVER
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
from conversations.services.jobs.upcoming import ARCHIVE, CLEAN_UP, SWEEP, UpcomingEvent, colleague, scheduled
from conversations.services.retention import holds

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


def life(conversation: Conversation) -> Iterator[UpcomingEvent]:
    """Yield what age brings to the conversation: first while it is open, then from its end on."""
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
            _("%(colleague)s has the conversation: it does not age") % {"colleague": colleague(conversation)}
            if conversation.taken_over_at
            else ""
        )
    if conversation.taken_over_at:
        yield UpcomingEvent(
            "handed_back",
            _("The conversation goes back to the assistant if %(colleague)s does nothing")
            % {"colleague": colleague(conversation)},
            times.handed_back,
            _("no action of the colleague for so long"),
            _("A takeover ends after: %(time)s") % {"time": in_words(client.hand_back_after)},
            scheduled(SWEEP),
        )
    if conversation.status == "active" and times.stale < times.expires:
        at, setting = (
            times.stale,
            _("A conversation becomes stale after: %(time)s") % {"time": in_words(client.stale_after)},
        )
        says = _("The conversation becomes stale")
        yield UpcomingEvent("stale", says, None if held else at, _("no message"), setting, scheduled(SWEEP), held)
    rule = (
        _("no message; extended by its agent or for a hand-over")
        if times.expires == conversation.extended_until
        else _("no message")
    )
    at, setting = times.expires, _("A conversation expires after: %(time)s") % {"time": in_words(client.expire_after)}
    yield UpcomingEvent(
        "expired", _("The conversation expires"), None if held else at, rule, setting, scheduled(SWEEP), held
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
        "archived", says, times.archives, _("so long after its end"), setting, scheduled(ARCHIVE), _hold(held), after
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
    job = scheduled(SWEEP if rule == R.GUESTS else CLEAN_UP)
    yield UpcomingEvent(what, says, at, str(rule.label), setting, job, _hold(held), after)


def _hold(reason: str) -> str:
    return _("hold: %(reason)s") % {"reason": reason} if reason else ""


def _archived_before(conversation: Conversation, times: _Times, at: datetime, number: int) -> bool:
    """Return whether it will be archived by then, so that the days of archived conversations count."""
    if conversation.archived_at or conversation.is_guest or holds.hold_reason(conversation):
        return False
    will_be = conversation.is_open or conversation.remembered_at or conversation.remember_due_at
    return bool(will_be) and times.archives <= at

"""Placeholders: a person called in vain, or permitted calls, and no conversation was open.

A conversation is opened with a message that says so, beside which the activity stands. No reply is owed for it: staff
are told of a missed call, and the assistant knows it when the person writes. What comes twice, or later than providers
deliver, opens nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django.utils.translation import gettext_noop

from channels_out.events import Activity as ReportedActivity
from channels_out.kinds import ActivityKind
from conversations.models import Activity, ChannelAccount, Chunk, Conversation
from conversations.services.core import redaction, threads
from conversations.services.core.dedupe import TOMBSTONES_LAST
from conversations.services.core.ledger import SYSTEM, record
from conversations.services.core.locking import editing
from conversations.services.core.person import Person
from conversations.services.delivery.reply_window import SENT_AT
from conversations.services.inbound.messages import InboundResult, InboundText, settle
from memory.text import one_line

WORDS = {ActivityKind.MISSED_CALL: "[missed call]", ActivityKind.CALL_PERMISSION: "[permission to call]"}
CALLED = gettext_noop("called, and nobody answered")
WANTS_STAFF = gettext_noop("The person called, and nobody answered.")
LONGEST_PHRASE = 200
LATE = timedelta(minutes=1)  # what took longer gets its time of sending in the metadata
WRITTEN_AT = "written_at"  # in the metadata of what took longer than AT_ONCE and is not late
AT_ONCE = timedelta(seconds=1.5)  # providers tell whole seconds


def sent_late(occurred_at: datetime | None, now: datetime) -> dict[str, str]:
    """Return the metadata of something that did not arrive at once: when it was written, which decides its place among
    what is not answered, or that it came late; nothing for the rest."""
    if occurred_at is None or now - occurred_at < AT_ONCE:
        return {}
    at = occurred_at.astimezone(UTC)
    return {"sent_at": at.strftime(SENT_AT)} if now - at > LATE else {WRITTEN_AT: at.isoformat()}


def activity_of(conversation: Conversation, chunk: Chunk, happened: ReportedActivity, now: datetime) -> Activity:
    """Return the row of an activity, cleaned by the client's redaction rules, not saved yet."""
    rules = redaction.rules_of(conversation.client)
    return Activity(
        client_id=conversation.client_id,
        conversation=conversation,
        chunk=chunk,
        kind=happened.kind,
        text=rules.clean(one_line(happened.text, LONGEST_PHRASE)),
        metadata=rules.clean_json(dict(happened.metadata)),
        message_id=happened.message_id,
        occurred_at=happened.occurred_at or now,
    )


def keep(
    account: ChannelAccount, happened: ReportedActivity, now: datetime, *, thread: str | None = None
) -> InboundResult | None:
    """Keep what happened as a message of its own, and return its place; None if that is not to be done.

    thread: of the conversation; None for the account's
    """
    words = WORDS.get(happened.kind)
    if words is None or (happened.occurred_at and now - happened.occurred_at > TOMBSTONES_LAST):
        return None
    sender = happened.sender
    settled = settle(
        account.client,
        InboundText(
            channel=account.channel,
            person=Person(
                address=sender.address,
                kind=sender.kind,
                phone=sender.phone,
                name=sender.name or "",
                aliases=tuple((kind.value, address) for kind, address in sender.aliases),
            ),
            text=words,
            message_id=happened.message_id,
            at=now,
            scope=account.key,
            thread=threads.thread_of(account) if thread is None else thread,
            metadata={"kind": happened.kind.value, **sent_late(happened.occurred_at, now)},
            account=account,
            is_answered=False,
        ),
    )
    if settled.conversation_id and not settled.duplicate:
        _note(settled, account, happened, now)
    return settled


def _note(settled: InboundResult, account: ChannelAccount, happened: ReportedActivity, now: datetime) -> None:
    """Write the activity beside its placeholder, and tell staff of a missed call."""
    assert settled.conversation_id is not None  # noqa: S101 - for the type checker: the caller has looked
    with editing(settled.conversation_id, account.client_id) as conversation:
        chunk = conversation.chunks.filter(pk=settled.chunk_id or 0).first()
        if chunk is None:
            return
        activity_of(conversation, chunk, happened, now).save()
        if happened.kind == ActivityKind.MISSED_CALL and not conversation.needs_staff_since:
            conversation.needs_staff_since, conversation.needs_staff_reason = now, WANTS_STAFF
            record(conversation, "needs_staff", SYSTEM, cause=happened.kind)

"""The question about satisfaction, asked where a conversation has ended: at most once in each, by the normal send.

On the web nothing is sent: whoever shows the transcript (the copilot's panel, a program) shows the question.

It is asked by a task, which an end enqueues, and the sweep where one was lost. What decides is on rows: a conversation
that ended within ASK_WITHIN, without a row in `ratings`, of a client who wants it asked on that channel.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Q

from channels_out.choices import Choices, form_of
from channels_out.kinds import Channel
from conversations.models import OPEN, ChannelAccount, Conversation, Rating, Role, Scale, Status, Survey
from conversations.queue import enqueue
from conversations.services.core.appending import SPOKEN_BY_PEOPLE, write_chunks
from conversations.services.core.cluster import of_each
from conversations.services.core.ledger import SYSTEM, record
from conversations.services.core.locking import editing_if_there, lock_contact_of
from conversations.services.core.sql import column
from conversations.services.delivery import outbox, reply_window
from conversations.services.transitions import ratings

ASK_WITHIN = timedelta(hours=1)  # of the end
MARGIN = timedelta(minutes=10)  # of the reply window: the question is sent a moment later
BATCH = 500

# Read from the end of the index of ended conversations.
_DUE = """
    SELECT s.id FROM conversations s
    WHERE s.client_id = $1 AND s.ended_at >= $2 AND s.ended_at <= $3 AND s.channel || '' = $4
      AND s.status || '' IN ('closed', 'expired')
      AND NOT EXISTS (SELECT FROM ratings r WHERE r.client_id = s.client_id AND r.conversation_id = s.id)
    ORDER BY s.ended_at LIMIT $5"""


def schedule(conversation: Conversation) -> None:
    """Have the question asked soon, if the client wants it asked on the conversation's channel."""
    surveys = Survey.objects.filter(client=conversation.client_id, channel=conversation.channel, is_active=True)
    if surveys.exists():
        enqueue("ask_for_ratings")


def is_pending() -> bool:
    """Return whether there may be a question to ask: an active survey."""
    return Survey.objects.filter(is_active=True, client__is_active=True).exists()


def ask_due(now: datetime) -> int:
    """Ask in every conversation that has just ended and may be asked in, and return how many there were.

    Asking twice is impossible: the row of a question is unique, and is written with its message.
    """
    surveys = Survey.objects.filter(is_active=True, client__is_active=True).order_by("client", "channel")
    return sum(of_each([(survey, now) for survey in surveys], _ask_on_channel))


def _ask_on_channel(survey: Survey, now: datetime) -> int:
    due = column(_DUE, survey.client_id, now - ASK_WITHIN, now, survey.channel, BATCH)
    return sum(_ask(survey, conversation_id, now) for conversation_id in due)


def _ask(survey: Survey, conversation_id: UUID, now: datetime) -> bool:
    """Ask in the conversation, if it may be asked in, and return whether it was."""
    with transaction.atomic():
        # The contact first: of two conversations of a person that end at once, one is asked in.
        lock_contact_of(conversation_id, survey.client_id)
        with editing_if_there(conversation_id, survey.client_id) as conversation:
            if conversation is None or not _may_ask(conversation, survey, now):
                return False
            rating = Rating(conversation=conversation, scale=survey.scale, asked_at=now)
            rating.save(force_insert=True)
            _say(conversation, survey, rating, now)
    return True


def _say(conversation: Conversation, survey: Survey, rating: Rating, now: datetime) -> None:
    """Write the question into the ended conversation and queue it."""
    choices = ratings.choices_of(rating)
    offered = {outbox.CHOICES: choices.as_json()} if _offers(conversation, survey, choices) else {}
    [chunk] = write_chunks(
        conversation, [(Role.AI, survey.text)], now, metadata={ratings.QUESTION: rating.pk, **offered}
    )
    outbox.queue(conversation, chunk, now, unconditional=True)
    record(conversation, "rating_asked", SYSTEM, scale=survey.scale)


def _offers(conversation: Conversation, survey: Survey, choices: Choices) -> bool:
    """Return whether the choices go with the text. Where a channel has no form for 1 to 5, the text alone says it."""
    if conversation.channel == Channel.WEB:
        return True
    adapter = outbox.adapter_or_none(conversation.channel_account)
    return survey.scale == Scale.THUMBS or bool(adapter and form_of(choices, adapter.choice_forms))


def _may_ask(conversation: Conversation, survey: Survey, now: datetime) -> bool:
    """Return whether the person may be asked, and can get the question."""
    ended_at = conversation.ended_at
    if ended_at is None or ended_at < now - ASK_WITHIN or conversation.status not in (Status.CLOSED, Status.EXPIRED):
        return False
    if conversation.channel in conversation.contact.opted_out or conversation.contact.merged_into_id:
        return False
    if conversation.is_guest and conversation.status == Status.EXPIRED:
        return False  # it is deleted soon
    return (
        not Rating.objects.filter(client=conversation.client_id, conversation=conversation).exists()
        and _was_answered(conversation)
        and not _goes_on(conversation, ended_at)
        and not _was_asked_lately(conversation, survey, now)
        and _can_be_sent(conversation, conversation.channel_account, now)
    )


def _was_answered(conversation: Conversation) -> bool:
    """Return whether somebody answered the person after they wrote."""
    said = conversation.chunks.filter(client=conversation.client_id)
    first = said.filter(role__in=SPOKEN_BY_PEOPLE).order_by("position").values_list("position", flat=True).first()
    return first is not None and said.filter(role=Role.AI, position__gt=first).exists()


def _goes_on(conversation: Conversation, ended_at: datetime) -> bool:
    """Return whether the person has written on the channel since, or is still writing in another conversation there.

    The copilot's sessions stand side by side, each about something else.
    """
    if conversation.is_private:
        return False
    theirs = Conversation.objects.filter(
        client=conversation.client_id, contact=conversation.contact_id, channel=conversation.channel
    )
    return theirs.exclude(pk=conversation.pk).filter(Q(status__in=OPEN) | Q(started_at__gte=ended_at)).exists()


def _was_asked_lately(conversation: Conversation, survey: Survey, now: datetime) -> bool:
    asked = Rating.objects.filter(client=conversation.client_id, conversation__contact=conversation.contact_id)
    return asked.filter(asked_at__gt=now - timedelta(days=survey.days_between)).exists()


def _can_be_sent(conversation: Conversation, account: ChannelAccount | None, now: datetime) -> bool:
    """Return whether the channel takes free text to the person now, or they read it on the web."""
    if conversation.channel == Channel.WEB:
        return True
    adapter = outbox.adapter_or_none(account)
    if adapter is None or account is None or not account.is_active or adapter.fetches_replies:
        return False
    if adapter.reply_window is None:
        return True
    since = now - adapter.reply_window + MARGIN
    return reply_window.wrote_since(conversation.client_id, conversation.pk, account.pk, since)

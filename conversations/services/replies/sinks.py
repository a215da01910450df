"""The two ways of a reply: sent over the conversation's channel, or read by a signed-in user while it is written."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol

from django.conf import settings

from channels_out.kinds import Channel
from conversations.engines.contract import EngineError
from conversations.models import Chunk, Conversation, Delta, Role, Turn
from conversations.services.core import proposals
from conversations.services.core.appending import note_answered, write_chunks
from conversations.services.core.backoff import backoff
from conversations.services.core.ledger import ASSISTANT, SYSTEM, record
from conversations.services.core.redaction import rules_of
from conversations.services.core.sql import update
from conversations.services.delivery import disclosure, outbox
from conversations.services.replies import failures, reply_files
from conversations.services.replies.prompt_context import ENDED
from conversations.services.replies.reply_files import NO_FILES, ReplyFiles
from conversations.services.tenants.day_quotas import USED_UP, beginning_of

REASONING_SHOWN = "reasoning_shown"  # the code of a stream that turned out to be the model's reasoning
LONGEST_WAIT = 120.0  # seconds that a person waits for a provider that names a time; after more, the reply is given up
CRASHED = "crashed"  # the code of a turn whose process died each time it was tried
HUMAN_WANTED = "human_wanted"  # the code of a turn that gave its conversation to a person
LOW_CONFIDENCE = "low_confidence"  # the code of a turn whose draft the model was too unsure of
FALLBACK = "Sorry, I cannot answer right now. A colleague will get back to you."

FINISH = "finish"  # in a chunk's metadata: why the model stopped, if that was not at the end of its answer
MARKED = {"length", "refused"}
NO_ANSWER = {"said_at": "failure"}  # in a chunk's metadata: the sentence is no answer to what was asked

STREAM_ATTEMPTS = 3  # without being asked, as long as nothing was written; then the user may try again
STREAM_PAUSE_SECONDS = 1.0  # before the second attempt; twice as long before the third
LONGEST_STREAM_PAUSE_SECONDS = 5.0  # nobody watches an empty bubble for longer


def _finish(turn: Turn) -> dict[str, str]:
    """Return the metadata of a reply that the model did not end as it should; staff see it in the transcript."""
    return {FINISH: turn.finish_reason} if turn.finish_reason in MARKED else {}


class Sink(Protocol):
    """The way of a reply.

    is_awaited          a reader waits for this turn; the conversation owes no reply
    can_be_overtaken    a message may come while the reply is written
    proposes            a colleague sends it; by itself the assistant says nothing
    """

    is_awaited: bool
    can_be_overtaken: bool
    proposes: bool

    def say(
        self,
        conversation: Conversation,
        turn: Turn,
        text: str,
        now: datetime,
        *,
        code: str = "",
        reply_to: str = "",
        more: Mapping[str, Any] | None = None,
        files: ReplyFiles = NO_FILES,
    ) -> None:
        """Append the text as the turn's chunk, marked if the model was cut off or refused.

        code: why it is not whole
        reply_to: the provider's id of the message that it answers
        more: further metadata of the chunk
        files: go after the text
        """

    def retry_at(self, turn: Turn, error: EngineError, now: datetime, *, written: str) -> datetime | None:
        """Return when the reply is tried again, None if it is not. `written`: the text that a reader has seen."""

    def give_up(self, conversation: Conversation, turn: Turn, code: str, written: str, now: datetime) -> None:
        """Say what is left to say, and note who has to know."""

    def hold_back(self, conversation: Conversation, turn: Turn, now: datetime) -> None:
        """Say what is said where a quota of the client's day is used up, and note who has to know."""

    def ended(self, turn: Turn) -> None:
        """Clean up after the turn."""


class SendSink:
    """Owed replies: sent over the channel. Where the engine fails for good, the person hears the fallback sentence once
    until a reply succeeds again, and staff are called."""

    is_awaited = False
    can_be_overtaken = True
    proposes = False

    def say(
        self,
        conversation: Conversation,
        turn: Turn,
        text: str,
        now: datetime,
        *,
        code: str = "",
        reply_to: str = "",
        more: Mapping[str, Any] | None = None,
        files: ReplyFiles = NO_FILES,
    ) -> None:
        """Append the text as the turn's chunk and queue it for sending."""
        proposals.end_outdated(conversation, now)
        sentence = disclosure.due(conversation)
        metadata = {**_finish(turn), **(more or {}), **disclosure.metadata(sentence)}
        words = disclosure.before(text, sentence) if text else sentence
        shown = files.shown_with(words)
        [turn.chunk] = write_chunks(conversation, [(Role.AI, shown)], now, metadata=metadata)
        disclosure.note(conversation, turn.chunk, sentence)
        rows = files.place(conversation, turn.chunk, now)
        sent = rules_of(conversation.client).clean(words) if rows else None
        outbox.queue(conversation, turn.chunk, now, reply_to=reply_to, by_assistant=True, text=sent, files=rows)

    def retry_at(self, turn: Turn, error: EngineError, now: datetime, *, written: str) -> datetime | None:
        """Return when another turn is due, by the backoff and at most REPLY_ATTEMPTS times."""
        may_wait = (error.retry_after or 0) <= LONGEST_WAIT
        if error.retryable and may_wait and turn.attempt < settings.REPLY_ATTEMPTS:
            return now + backoff(turn.attempt, error.retry_after)
        return None

    def give_up(self, conversation: Conversation, turn: Turn, code: str, written: str, now: datetime) -> None:
        """Send the fallback sentence, once, and call staff."""
        if not conversation.fallback_sent:
            sentence = conversation.assistant.fallback if conversation.assistant else FALLBACK
            self.say(conversation, turn, sentence, now, more=NO_ANSWER)
            update(turn, ("chunk",))
            conversation.fallback_sent = True
            record(conversation, "fallback_said", ASSISTANT, cause=code)
        conversation.needs_staff_since = conversation.needs_staff_since or now
        conversation.needs_staff_reason = (turn.reason or failures.explain(code))[:200]
        record(conversation, "needs_staff", SYSTEM, cause=code)

    def hold_back(self, conversation: Conversation, turn: Turn, now: datetime) -> None:
        """Let the reply wait for the client's next day. Send the client's sentence, once a day, or else call staff.

        A caller hears it each time, since nobody can be called into a phone call.
        """
        sentence = self._sentence_of_quota(conversation, now)
        if sentence:
            self.say(conversation, turn, sentence, now, more=NO_ANSWER)
            record(conversation, "fallback_said", ASSISTANT, cause=USED_UP)
        elif not conversation.needs_staff_since:
            conversation.needs_staff_since = now
            conversation.needs_staff_reason = failures.explain(USED_UP)[:200]
            record(conversation, "needs_staff", SYSTEM, cause=USED_UP)
        is_owed = conversation.channel != Channel.VOICE
        note_answered(conversation)
        if is_owed:  # with the burst over, so that tomorrow's messages have a quiet window again
            conversation.reply_owed = True
            conversation.reply_due_at = beginning_of(conversation.client, now, days=1)

    @staticmethod
    def _sentence_of_quota(conversation: Conversation, now: datetime) -> str:
        """Return what the person is told; '' if they have read it today, or have not written yet."""
        sentence = conversation.client.quota_sentence.strip()
        if conversation.channel == Channel.VOICE:
            return sentence or (conversation.assistant.fallback if conversation.assistant else FALLBACK)
        if not sentence or not conversation.inbound_sequence:
            return ""
        today = beginning_of(conversation.client, now)
        told = Turn.objects.filter(conversation=conversation, code=USED_UP, chunk__isnull=False, ended_at__gte=today)
        return "" if told.exists() else sentence

    def ended(self, turn: Turn) -> None:
        """Leave everything as it is."""


class ProposeSink(SendSink):
    """Owed replies of an assistant that proposes: a colleague sends them. Nothing is said without a colleague, so where
    no reply can be written staff are called."""

    proposes = True

    def say(
        self,
        conversation: Conversation,
        turn: Turn,
        text: str,
        now: datetime,
        *,
        code: str = "",
        reply_to: str = "",
        more: Mapping[str, Any] | None = None,
        files: ReplyFiles = NO_FILES,
    ) -> None:
        """Keep the text as the conversation's proposal. What it would quote is left out: it is sent at another time."""
        proposals.propose(
            conversation,
            text,
            now,
            turn_id=turn.pk,
            inbound_sequence=turn.inbound_sequence,
            metadata={**_finish(turn), **(more or {})},
            files=[row.pk for row in files.rows],
            links=files.linked,
        )

    def give_up(self, conversation: Conversation, turn: Turn, code: str, written: str, now: datetime) -> None:
        """Call staff."""
        conversation.needs_staff_since = conversation.needs_staff_since or now
        conversation.needs_staff_reason = (turn.reason or failures.explain(code))[:200]
        record(conversation, "needs_staff", SYSTEM, cause=code)

    @staticmethod
    def _sentence_of_quota(conversation: Conversation, now: datetime) -> str:
        """Return nothing to say: staff are called."""
        return ""


class StreamSink:
    """Streamed replies: a reader sees them grow. What was written before a failure or a stop stays, marked as not
    whole, and the reader may have it tried again."""

    is_awaited = True
    proposes = False
    can_be_overtaken = False  # a session of the copilot takes no message while a reply is written

    def say(
        self,
        conversation: Conversation,
        turn: Turn,
        text: str,
        now: datetime,
        *,
        code: str = "",
        reply_to: str = "",
        more: Mapping[str, Any] | None = None,
        files: ReplyFiles = NO_FILES,
    ) -> None:
        """Append the text as the turn's chunk, with the code in its metadata if it is not whole, and links to files."""
        metadata = _finish(turn)
        if ended := code or ("length" if metadata.get(FINISH) == "length" else ""):
            metadata[ENDED] = ended
        [turn.chunk] = write_chunks(conversation, [(Role.AI, text)], now, metadata=metadata)
        if files:
            self._add_links(conversation, turn.chunk, files, now)

    @staticmethod
    def _add_links(conversation: Conversation, chunk: Chunk, files: ReplyFiles, now: datetime) -> None:
        """Add a link to each file below the text: the copilot shows no files."""
        links = reply_files.links_of(files.place(conversation, chunk, now))
        chunk.content = f"{chunk.content}\n\n{links}".strip()
        update(chunk, ("content",))

    def retry_at(self, turn: Turn, error: EngineError, now: datetime, *, written: str) -> datetime | None:
        """Return when the same turn is free for another attempt: soon, a few times, and only while nothing was seen."""
        pause = max(error.retry_after or 0, STREAM_PAUSE_SECONDS * turn.attempt)
        may = error.retryable and not written and turn.attempt < STREAM_ATTEMPTS  # readers begin again with an attempt
        return now + timedelta(seconds=pause) if may and pause <= LONGEST_STREAM_PAUSE_SECONDS else None

    def give_up(self, conversation: Conversation, turn: Turn, code: str, written: str, now: datetime) -> None:
        """Keep what the reader has seen."""
        if written:
            self.say(conversation, turn, written, now, code=code)
            update(turn, ("chunk",))

    def hold_back(self, conversation: Conversation, turn: Turn, now: datetime) -> None:
        """Leave everything as it is: the reader is told why."""

    def ended(self, turn: Turn) -> None:
        """Delete the turn's deltas: its chunk has the whole text."""
        Delta.objects.filter(turn=turn)._raw_delete(using="default")


_SENT, _PROPOSED, _STREAMED = SendSink(), ProposeSink(), StreamSink()


def sink_of(turn: Turn) -> Sink:
    """Return the way of the turn's reply. A caller on the phone cannot wait for a colleague."""
    if turn.streamed:
        return _STREAMED
    assistant, is_call = turn.conversation.assistant, turn.conversation.channel == Channel.VOICE
    return _PROPOSED if assistant and assistant.proposes and not is_call else _SENT

"""Requests of a signed-in user for replies: ask for one, stop it, try it again.

One reply is written at a time in a session. The request makes the turn; the writer of streamed replies writes it
(replies/streaming_writer.py), and any process hands it to the reader (feed.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError

from conversations.models import SAID, Chunk, Conversation, Role, Turn
from conversations.services.copilot.sessions import (
    TRIES,
    User,
    clients_of,
    lock_session,
    new_session,
    open_session,
    title_of,
)
from conversations.services.core import spans
from conversations.services.core.appending import write_chunks
from conversations.services.core.cluster import is_cluster
from conversations.services.core.dedupe import dedupe_key
from conversations.services.core.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    TooManyError,
    UnavailableError,
)
from conversations.services.core.locking import saving
from conversations.services.core.row_level_security import clients_seen, confined_to
from conversations.services.core.sql import insert, rows
from conversations.services.replies.prompt_context import ENDED, SUPERSEDED

MINUTE = timedelta(minutes=1)
BUSY_RETRY_SECONDS = 2
TurnStatus = Turn.Status


@dataclass(frozen=True, slots=True)
class RequestedReply:
    """A requested reply.

    chunk   the user's message; None where no message was sent with the request
    turn    None if a colleague has the session and will answer
    """

    session: Conversation
    chunk: Chunk | None
    turn: Turn | None


@dataclass(frozen=True, slots=True)
class UserMessage:
    """A user's message to one of the user's sessions, or to a new one with the assistant of a role."""

    message: str
    session_id: UUID | None = None
    role: str = ""
    client: str = ""
    message_id: str = ""


def ask(user: User, question: UserMessage, now: datetime) -> RequestedReply:
    """Append the message to the session and begin a reply. The same `message_id` again changes nothing.

    Raises NotFoundError, InvalidError (`message_too_long`), TooManyError, or ConflictError (`ended`, `busy` while
    another reply is being written, `no_assistant` if the session's assistant was deleted).
    """
    most = settings.COPILOT_MESSAGE_CHARACTERS
    if len(question.message) > most:
        raise InvalidError(
            f"A message has at most {most:,} characters.", code="message_too_long", details={"characters": most}
        )
    for _ in range(TRIES):
        try:
            if is_cluster() and not question.session_id:  # no two roles write in one transaction there
                question = _with_session(user, question, now)
            with confined_to(user.id):
                return _asked_before(user, question) or _ask(user, question, now)
        except IntegrityError:  # another request stored the same message, or the user's contact, at the same moment
            continue
    raise UnavailableError("The same request is running at this moment. Send it again.")


def _with_session(user: User, question: UserMessage, now: datetime) -> UserMessage:
    """Return the message with a new session of its own, opened in a transaction before."""
    with confined_to(user.id):
        if _asked_before(user, question):
            return question
        _check_limits(user, now)
    return replace(question, session_id=new_session(user, question.role, question.client, now).pk)


def _ask(user: User, question: UserMessage, now: datetime) -> RequestedReply:
    _check_limits(user, now)
    if question.session_id:
        conversation = lock_session(user, question.session_id)
        _check_ready(conversation)
    else:
        conversation = open_session(user, question.role, question.client, now)
    with saving(conversation):
        [chunk] = write_chunks(
            conversation,
            [(Role.USER, question.message)],
            now,
            message_id=question.message_id,
            dedupe_key=_dedupe_key(user, question.message_id),
        )
        conversation.inbound_sequence += 1
        conversation.topic = conversation.topic or title_of(chunk.content)
    spans.received(
        *(conversation.client_id, conversation.pk, conversation.inbound_sequence),
        *(chunk.position, conversation.channel, now),
    )
    turn = None if conversation.taken_over_at else _begin(conversation, now)
    return RequestedReply(conversation, chunk, turn)


def _begin(conversation: Conversation, now: datetime) -> Turn:
    """Store a turn that the writer can claim, and return it."""
    turn = Turn(
        conversation=conversation,
        streamed=True,
        attempt=0,
        inbound_sequence=conversation.inbound_sequence,
        lease_until=now,
        started_at=now,
    )
    insert([turn])
    return turn


def _dedupe_key(user: User, message_id: str) -> UUID | None:
    return dedupe_key(f"copilot:{user.id}", message_id)


def _asked_before(user: User, question: UserMessage) -> RequestedReply | None:
    key = _dedupe_key(user, question.message_id)
    if key is None:
        return None
    related = ("conversation__assistant", "conversation__client")
    theirs = Chunk.objects.filter(client__in=clients_of(user.id))
    chunk = theirs.select_related(*related).filter(dedupe_key=key).first()
    if chunk is None:
        return None
    turns = Turn.objects.filter(conversation=chunk.conversation, started_at__gte=chunk.created_at)
    return RequestedReply(chunk.conversation, chunk, turns.order_by("started_at").first())


def _check_ready(conversation: Conversation) -> None:
    """Raise ConflictError if no reply can begin."""
    if not conversation.is_open:
        raise ConflictError(
            "This conversation has ended. Start a new one.", code="ended", details={"status": conversation.status}
        )
    running = Turn.objects.filter(conversation=conversation, status=TurnStatus.RUNNING).values_list("pk", flat=True)
    if turn_id := running.first():
        raise ConflictError(
            "A reply is being written. Wait for it, or stop it.", code="busy", details={"turn_id": str(turn_id)}
        )
    if conversation.assistant_id is None:
        raise ConflictError("This assistant no longer exists. Start a new conversation.", code="no_assistant")


# A reply is written for a day at most: that long, an agent may take to call back (Assistant.agent_deadline_seconds).
LONGEST_REPLY = timedelta(hours=25)

# The sessions of the user $1, at the clients $3, that had a message since $2.
_SESSIONS_OF_LATE = """
    SELECT s.client_id, s.id
    FROM conversations s
    WHERE s.client_id = ANY($3::uuid[]) AND s.login_id = $1 AND s.last_message_at > $2"""

# Whether each of the sessions' replies is being written, and when it was begun, if it is or was begun since $3. The
# sessions are values, by which an index finds the turns.
_REPLIES_OF_LATE = """
    SELECT t.status = 'running', t.started_at
    FROM conversation_turns t
    WHERE t.client_id = ANY($1::uuid[]) AND t.conversation_id = ANY($2::uuid[])
      AND t.streamed AND (t.status = 'running' OR t.started_at > $3)
    ORDER BY t.started_at"""


def _replies_of_late(user: User, now: datetime) -> tuple[int, list[datetime]]:
    """Return how many replies are being written for the user, and when those of the last minute were begun."""
    sessions = rows(_SESSIONS_OF_LATE, user.id, now - LONGEST_REPLY, clients_seen())
    if not sessions:
        return 0, []
    clients = list({client_id for client_id, _ in sessions})
    found = rows(_REPLIES_OF_LATE, clients, [session_id for _, session_id in sessions], now - MINUTE)
    return sum(running for running, _ in found), [begun for _, begun in found if begun > now - MINUTE]


def _check_limits(user: User, now: datetime) -> None:
    """Raise TooManyError over the user's limits. They are counted on rows, so they hold for all processes together."""
    running, times = _replies_of_late(user, now)
    if running >= settings.COPILOT_STREAMS_PER_USER:
        raise TooManyError(
            f"{running} replies are being written for you. Wait until one is done.",
            code="too_many_streams",
            retry_after=BUSY_RETRY_SECONDS,
        )
    most = settings.COPILOT_MESSAGES_PER_MINUTE
    if most and len(times) >= most:
        wait = times[len(times) - most] + MINUTE - now
        seconds = max(1, round(wait.total_seconds()))
        raise TooManyError(
            f"You have sent {most} messages within a minute. Go on in {seconds} seconds.", retry_after=seconds
        )


def stop(user: User, session_id: UUID, now: datetime) -> bool:
    """Ask for the running reply of the session to stop, and return whether there is one. Raises NotFoundError."""
    with confined_to(user.id):
        conversation = lock_session(user, session_id)
        running = Turn.objects.filter(conversation=conversation, status=TurnStatus.RUNNING, streamed=True)
        return running.filter(stop_asked_at=None).update(stop_asked_at=now) > 0 or running.exists()


def retry(user: User, session_id: UUID, now: datetime) -> RequestedReply:
    """Begin another reply to the last message, and mark an incomplete one as superseded.

    Raises NotFoundError, TooManyError, or ConflictError (`ended`, `busy`, `nothing_to_retry`: the last reply is whole).
    """
    with confined_to(user.id):
        _check_limits(user, now)
        conversation = lock_session(user, session_id)
        _check_ready(conversation)
        last = Chunk.objects.filter(conversation=conversation, role__in=SAID).order_by("-position").first()
        if last is None or conversation.taken_over_at or (last.role == Role.AI and ENDED not in last.metadata):
            raise ConflictError("The last reply is complete. It cannot be tried again.", code="nothing_to_retry")
        if last.role == Role.AI:
            last.metadata = {**last.metadata, SUPERSEDED: True}
            last.save(update_fields=["metadata"])
        with saving(conversation):
            conversation.last_message_at = max(conversation.last_message_at, now)
        return RequestedReply(conversation, None, _begin(conversation, now))


def get_turn(user: User, turn_id: UUID) -> Turn:
    """Return the turn of a reply in one of the user's sessions. Raises NotFoundError."""
    with confined_to(user.id):
        theirs = Turn.objects.select_related("conversation__assistant", "conversation__client").filter(
            login_id=user.id, streamed=True
        )
        theirs = theirs.filter(client__in=clients_of(user.id))
        turn = theirs.filter(pk=turn_id).first()
        if turn is None:
            raise NotFoundError("There is no such reply.")
        return turn

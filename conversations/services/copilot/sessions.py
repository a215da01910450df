"""The copilot's sessions: conversations on the web of signed-in users, each a thread of its own.

Everything here happens as the user: in transactions that see this user's rows alone (core/row_level_security.py), and
by queries for the user's own rows. A process keeps nothing: the next request may go to another one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID, uuid4

from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, QuerySet, Subquery

from channels_out.kinds import Channel
from conversations.models import (
    SAID,
    Assistant,
    Chunk,
    Contact,
    Conversation,
    Feedback,
    Membership,
    Role,
    Turn,
    corrected_text,
)
from conversations.models.conversation import ConversationQuerySet
from conversations.services.core.appending import NewChunk, write_chunks
from conversations.services.core.cluster import is_cluster
from conversations.services.core.errors import InvalidError, NotFoundError, UnavailableError
from conversations.services.core.ledger import Actor, Kind
from conversations.services.core.locking import editing, lock, saving
from conversations.services.core.opening import open_conversation
from conversations.services.core.row_level_security import confined_to, let_write, unconfined
from conversations.services.core.sql import insert, row, rows
from conversations.services.delivery import disclosure
from memory import services as memory
from memory.stores.contract import StoreError
from memory.text import one_line

DEFAULT_ROLE = "field"
NO_CLIENT = UUID(int=0)
TITLE_CHARACTERS = 60
TRIES = 5
NO_MESSAGE = "There is no such message."


@dataclass(frozen=True, slots=True)
class User:
    """A signed-in user."""

    id: int
    name: str

    @property
    def actor(self) -> Actor:
        """Return the user as the ledger's actor."""
        return Actor(Kind.CONTACT, self.name, self.id)


# --- assistants of a user ---------------------------------------------------------------------------------------------
def roles(user: User) -> list[Assistant]:
    """Return the assistants that the user may talk to, of all clients that the user is a member of."""
    with confined_to(user.id):
        return list(_roles(user).select_related("client").order_by("client__name", "key"))


def _roles(user: User) -> QuerySet[Assistant]:
    theirs = Membership.objects.filter(user_id=user.id, client=OuterRef("client"))
    return Assistant.objects.filter(Exists(theirs), in_copilot=True, client__is_active=True)


class _Role(NamedTuple):
    """An assistant that the user may talk to."""

    pk: UUID
    key: str
    client_id: UUID
    is_default: bool
    disclosure: str


_ROLES = """
    SELECT a.id, a.key, a.client_id, a.is_default, a.disclosure
    FROM memberships m
    JOIN clients c ON c.id = m.client_id AND c.is_active
    JOIN assistants a ON a.client_id = m.client_id AND a.in_copilot
    WHERE m.user_id = $1 AND $2::text IN ('', c.sub_domain)
    ORDER BY c.name, a.key"""


def _role(user: User, key: str, sub_domain: str) -> _Role:
    """Return the assistant with the key, of the client with the sub-domain.

    key: '' for DEFAULT_ROLE, or else a default assistant; sub_domain: '' for any client

    Raises NotFoundError.
    """
    allowed = [_Role(*found) for found in rows(_ROLES, user.id, sub_domain)]
    for each in allowed:
        if each.key == (key or DEFAULT_ROLE):
            return each
    default = next((each for each in allowed if each.is_default), None) or next(iter(allowed), None)
    if key or default is None:
        raise NotFoundError(
            f"There is no assistant {key!r} for you." if key else "No assistant is set up for you yet.",
            code="no_assistant",
        )
    return default


# --- sessions ---------------------------------------------------------------------------------------------------------
def sessions(user: User, limit: int) -> list[Conversation]:
    """Return the user's sessions, the one with the newest message first."""
    with confined_to(user.id):
        return list(_shown(user).order_by("-last_message_at", "-pk")[:limit])


def session(user: User, session_id: UUID) -> Conversation:
    """Return one of the user's sessions. Raises NotFoundError."""
    with confined_to(user.id):
        return _found(_shown(user).filter(pk=session_id).first())


def _shown(user: User) -> ConversationQuerySet:
    """Return the user's sessions with what is shown of them: the assistant, the client and the running turn."""
    clients = clients_of(user.id)
    running = Turn.objects.filter(client=OuterRef("client"), conversation=OuterRef("pk"), status=Turn.Status.RUNNING)
    if is_cluster():  # which asks every server for a sub-select that does not name the clients itself
        running = running.filter(client__in=clients)
    found = Conversation.objects.filter(client__in=clients, login_id=user.id)
    return found.select_related("assistant", "client").annotate(running_turn=Subquery(running.values("pk")[:1]))


def clients_of(*user_ids: int) -> Iterable[UUID]:
    """Return the ids of the clients that the users are members of, for a query within the same transaction."""
    found = Membership.objects.filter(user_id__in=user_ids).values_list("client", flat=True)
    return list(found) if is_cluster() else found  # a cluster finds the servers by the ids themselves


def memberships_of(*user_ids: int) -> set[tuple[int, UUID]]:
    """Return each of the users with the id of each active client that they are a member of."""
    statement = """
        SELECT m.user_id, m.client_id FROM memberships m JOIN clients c ON c.id = m.client_id AND c.is_active
        WHERE m.user_id = ANY($1::int[])"""
    return {(user_id, client_id) for user_id, client_id in rows(statement, list(user_ids))}


def _found(conversation: Conversation | None) -> Conversation:
    if conversation is None:
        raise NotFoundError("There is no such session.")
    return conversation


def lock_session(user: User, session_id: UUID) -> Conversation:
    """Lock the user's session and return it. Call it in a transaction confined to the user. Raises NotFoundError."""
    of_user = Conversation.objects.filter(client__in=clients_of(user.id), pk=session_id)
    return _lock(user, session_id, of_user.values_list("client", flat=True).first() or NO_CLIENT)


def _lock(user: User, session_id: UUID, client_id: UUID) -> Conversation:
    conversation = lock(session_id, client_id)
    found = _found(conversation if conversation.login_id == user.id else None)
    let_write(found.pk)
    return found


def new_session(user: User, role: str, client: str, now: datetime) -> Conversation:
    """Open a session of the user with the assistant of the role and return it.

    Raises NotFoundError (`no_assistant`).
    """
    if is_cluster():
        return _new_session_in_cluster(user, role, client, now)
    for last in [*[False] * (TRIES - 1), True]:
        try:
            with confined_to(user.id):
                return open_session(user, role, client, now)
        except IntegrityError:  # another request made the contact at the same moment
            if last:
                raise
    raise AssertionError


def open_session(user: User, role: str, client: str, now: datetime) -> Conversation:
    """Open a conversation with the assistant of the role and return it. Call it confined to the user.

    Raises NotFoundError (`no_assistant`), or IntegrityError where the user's first two are opened at once.
    """
    assistant = _role(user, role, client)
    contact_id = _contact_id(user, assistant.client_id)
    with unconfined():  # recalling what is known of the contact reads all channels; the user may see this one alone
        session_id = _open(user, assistant, contact_id, now)
    return _lock(user, session_id, assistant.client_id)


def _open(user: User, assistant: _Role, contact_id: UUID, now: datetime) -> UUID:
    session_id = uuid4()
    open_conversation(
        assistant.client_id,
        contact_id,
        NewChunk(channel=Channel.WEB, thread=str(session_id), at=now, text=""),
        actor=user.actor,
        assistant_id=assistant.pk,
        conversation_id=session_id,
    )
    if assistant.disclosure.strip():
        _disclose(session_id, assistant.client_id, now)
    return session_id


def _new_session_in_cluster(user: User, role: str, client: str, now: datetime) -> Conversation:
    """Open a session in transactions of their own: in a cluster no two roles write in one. Raises as `new_session`."""
    for last in [*[False] * (TRIES - 1), True]:
        try:
            with confined_to(user.id):
                assistant = _role(user, role, client)
                contact_id = _contact_id(user, assistant.client_id)
            break
        except IntegrityError:
            if last:
                raise
    with transaction.atomic():
        session_id = _open(user, assistant, contact_id, now)
    return session(user, session_id)


def _disclose(session_id: UUID, client_id: UUID, now: datetime) -> None:
    """Begin the new session with the assistant's sentence that it is a machine, so that it is there before a stream."""
    with editing(session_id, client_id) as conversation:
        sentence = disclosure.due(conversation)
        [chunk] = write_chunks(conversation, [(Role.AI, sentence)], now, metadata=disclosure.metadata(sentence))
        disclosure.note(conversation, chunk, sentence)


def _contact_id(user: User, client_id: UUID) -> UUID:
    """Return the id of the user's contact at the client, made if needed.

    It is never found by a user id: programs choose these, and could choose this one.
    """
    if known := row("SELECT id FROM contacts WHERE client_id = $1 AND login_id = $2", client_id, user.id):
        contact_id: UUID = known[0]
        return contact_id
    user_id = f"login:{user.id}:{uuid4().hex[:8]}"
    made = Contact(client_id=client_id, login_id=user.id, user_id=user_id, name=user.name, is_guest=False)
    insert([made])
    return made.pk


def title_of(message: str) -> str:
    """Return the title of a session with this first message."""
    return one_line(message, TITLE_CHARACTERS)


def rename(user: User, session_id: UUID, title: str) -> Conversation:
    """Set the session's title and return the session. Raises NotFoundError."""
    with confined_to(user.id):
        with saving(conversation := lock_session(user, session_id)):
            conversation.topic = title
        return _found(_shown(user).filter(pk=session_id).first())


def delete(user: User, session_id: UUID) -> None:
    """Delete the session, also from memory. Raises NotFoundError, or UnavailableError if memory is unavailable."""
    known = session(user, session_id)
    if known.remember_due_at or known.remembered_at:
        try:
            memory.forget(known.client_id, session_id)  # first: if it fails, the user can try again
        except StoreError as error:
            raise UnavailableError("The conversation cannot be deleted right now. Try again in a minute.") from error
    with confined_to(user.id):
        locked = lock_session(user, session_id)
        Conversation.objects.of(locked.client_id).filter(pk=session_id)._raw_delete(
            using="default"
        )  # the rest cascades in the database


# --- messages ---------------------------------------------------------------------------------------------------------
def messages(user: User, session_id: UUID, *, after: int, limit: int) -> list[Chunk]:
    """Return the session's messages after the position `after`, oldest first. Raises NotFoundError."""
    with confined_to(user.id):
        known = _found(_shown(user).filter(pk=session_id).first())
        return list(_messages(known).filter(position__gt=after).order_by("position")[:limit])


def newest_messages(user: User, session_id: UUID, *, before: int | None, limit: int) -> list[Chunk]:
    """Return the session's newest messages, oldest first. Raises NotFoundError.

    before: the position before which to look; None for the end
    """
    with confined_to(user.id):
        known = _found(_shown(user).filter(pk=session_id).first())
        found = _messages(known)
        if before is not None:
            found = found.filter(position__lt=before)
        return list(reversed(found.order_by("-position")[:limit]))


def _messages(conversation: Conversation) -> QuerySet[Chunk]:
    """Return the messages of people and assistants, never the system or memory chunk."""
    said = Chunk.objects.filter(conversation=conversation, role__in=SAID)
    return with_text_and_feedback(said, conversation.client_id)


def with_text_and_feedback(chunks: QuerySet[Chunk], client_id: UUID) -> QuerySet[Chunk]:
    """Return the chunks of the client with their corrected text as `words` and the user's feedback."""
    return chunks.select_related("feedback").annotate(words=corrected_text(client_id))


def give_feedback(user: User, chunk_id: int, rating: str, note: str, now: datetime) -> Feedback:
    """Store the user's feedback on a reply and return it. Raises NotFoundError, or InvalidError for other messages."""
    with confined_to(user.id):
        found = _theirs(user, chunk_id)
        conversation = _lock(user, found.conversation_id, found.client_id)
        chunk = conversation.chunks.filter(pk=chunk_id).first()  # it may have been archived meanwhile
        if chunk is None:
            raise NotFoundError(NO_MESSAGE)
        given = {"rating": rating, "note": note, "given_at": now}
        feedback, _ = Feedback.objects.update_or_create(
            chunk=chunk,
            client_id=chunk.client_id,
            defaults=given,
            create_defaults={**given, "conversation": conversation},
        )
        return feedback


def withdraw_feedback(user: User, chunk_id: int) -> None:
    """Delete the user's feedback on a reply. Raises NotFoundError or InvalidError."""
    with confined_to(user.id):
        Feedback.objects.filter(chunk=_theirs(user, chunk_id))._raw_delete(using="default")


def _theirs(user: User, chunk_id: int) -> Chunk:
    """Return a reply in one of the user's sessions. Raises NotFoundError, or InvalidError for other messages."""
    known = Chunk.objects.filter(client__in=clients_of(user.id), pk=chunk_id, role__in=SAID)
    chunk = known.filter(login_id=user.id).first()
    if chunk is None:
        raise NotFoundError(NO_MESSAGE)
    if chunk.role != Role.AI:
        raise InvalidError("Give feedback to a reply of the assistant, not to another message.")
    return chunk

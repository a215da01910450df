"""The copilot's sessions: conversations on the web of people who are signed in, each a thread of its own.

Everything here happens as the user: in transactions that see this user's rows alone (confined.py), and by queries that
ask for no others. Nothing is kept in a process: whichever answers next goes on from the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from django.db import IntegrityError
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
from conversations.services.core.appending import NewChunk
from conversations.services.core.errors import InvalidError, NotFoundError, UnavailableError
from conversations.services.core.ledger import Actor, Kind
from conversations.services.core.locking import lock, saving
from conversations.services.core.opening import open_conversation
from conversations.services.core.row_level_security import confined_to, unconfined
from memory import services as memory
from memory.stores.contract import StoreError
from memory.text import one_line

FIRST_CHOICE = "field"
TITLE_CHARACTERS = 60
TRIES = 5


@dataclass(frozen=True, slots=True)
class User:
    """Who is signed in."""

    id: int
    name: str

    @property
    def actor(self) -> Actor:
        """For the ledger."""
        return Actor(Kind.CONTACT, self.name, self.id)


# --- who may talk to whom ---------------------------------------------------------------------------------------------
def roles(user: User) -> list[Assistant]:
    """The assistants that the user may talk to, of all clients that they belong to."""
    with confined_to(user.id):
        return list(_roles(user).select_related("client").order_by("client__name", "key"))


def _roles(user: User) -> QuerySet[Assistant]:
    theirs = Membership.objects.filter(user_id=user.id, client=OuterRef("client"))
    return Assistant.objects.filter(Exists(theirs), in_copilot=True, client__is_active=True)


def _role(user: User, key: str, sub_domain: str) -> Assistant:
    """The assistant of that key (the first choice without one) of the client of that sub-domain (of any without one).

    Raises NotFoundError.
    """
    found = _roles(user).select_related("client").order_by("client__name", "key")
    if sub_domain:
        found = found.filter(client__sub_domain=sub_domain)
    allowed = list(found)
    for each in allowed:
        if each.key == (key or FIRST_CHOICE):
            return each
    default = next((each for each in allowed if each.is_default), None) or next(iter(allowed), None)
    if key or default is None:
        raise NotFoundError(
            f"There is no assistant {key!r} that you may talk to." if key else "No assistant is set up for you yet.",
            code="no_assistant",
        )
    return default


# --- sessions ---------------------------------------------------------------------------------------------------------
def sessions(user: User, limit: int) -> list[Conversation]:
    """The user's sessions, the one that was talked in last first."""
    with confined_to(user.id):
        return list(_shown(user).order_by("-last_message_at", "-pk")[:limit])


def session(user: User, session_id: UUID) -> Conversation:
    """One of the user's sessions. Raises NotFoundError."""
    with confined_to(user.id):
        return _found(_shown(user).filter(pk=session_id).first())


def _shown(user: User) -> ConversationQuerySet:
    """With what is shown of them: the assistant, the client, and the turn that runs."""
    running = Turn.objects.filter(conversation=OuterRef("pk"), status=Turn.Status.RUNNING)
    found = Conversation.objects.filter(contact__login=user.id, channel=Channel.WEB)
    return found.select_related("assistant", "client").annotate(running_turn=Subquery(running.values("pk")[:1]))


def _found(conversation: Conversation | None) -> Conversation:
    if conversation is None:
        raise NotFoundError("There is no such session.")
    return conversation


def locked(user: User, session_id: UUID) -> Conversation:
    """The user's session with its row locked, in a transaction confined to them. Raises NotFoundError."""
    conversation = lock(session_id)
    theirs = conversation.contact.login_id == user.id and conversation.channel == Channel.WEB
    return _found(conversation if theirs else None)


def new_session(user: User, role: str, client: str, now: datetime) -> Conversation:
    """The user has one more session, with the assistant of that role. Raises NotFoundError (`no_assistant`)."""
    for last in [*[False] * (TRIES - 1), True]:
        try:
            with confined_to(user.id):
                return open_session(user, role, client, now)
        except IntegrityError:  # somebody else made the contact at the same moment
            if last:
                raise
    raise AssertionError


def open_session(user: User, role: str, client: str, now: datetime) -> Conversation:
    """Open a conversation with the assistant of the role and return it. Call it confined to the user.

    Raises NotFoundError (`no_assistant`), or IntegrityError where the user's first two are opened at once.
    """
    assistant = _role(user, role, client)
    contact = _contact(user, assistant.client_id)
    session_id = uuid4()
    first = NewChunk(channel=Channel.WEB, thread=str(session_id), at=now, text="")
    with unconfined():  # what is known of the contact is on all their channels, and the user sees this one alone
        open_conversation(
            assistant.client_id,
            contact.pk,
            first,
            actor=user.actor,
            assistant_id=assistant.pk,
            conversation_id=session_id,
        )
    return locked(user, session_id)


def _contact(user: User, client_id: UUID) -> Contact:
    """The user as the client's contact. Never found by a user id: programs give these, and could give this one's."""
    known = Contact.objects.filter(login_id=user.id, client_id=client_id).first()
    return known or Contact.objects.create(
        client_id=client_id,
        login_id=user.id,
        user_id=f"login:{user.id}:{uuid4().hex[:8]}",
        name=user.name,
        is_guest=False,
    )


def title_of(message: str) -> str:
    """What a session is called after its first message."""
    return one_line(message, TITLE_CHARACTERS)


def rename(user: User, session_id: UUID, title: str) -> Conversation:
    """The session has this title. Raises NotFoundError."""
    with confined_to(user.id):
        with saving(conversation := locked(user, session_id)):
            conversation.topic = title
        return _found(_shown(user).filter(pk=session_id).first())


def delete(user: User, session_id: UUID) -> None:
    """Nothing of the session is left, in memory neither. Raises NotFoundError, or UnavailableError where memory is."""
    known = session(user, session_id)
    if known.remember_due_at or known.remembered_at:
        try:
            memory.forget(session_id)  # first: what fails here can be asked for again
        except StoreError as error:
            raise UnavailableError("It cannot be deleted right now. Try it again in a minute.") from error
    with confined_to(user.id):
        locked(user, session_id)
        Conversation.objects.filter(pk=session_id)._raw_delete(using="default")  # the rest cascades in the database


# --- messages ---------------------------------------------------------------------------------------------------------
def messages(user: User, session_id: UUID, *, after: int, limit: int) -> list[Chunk]:
    """What was said in the session behind position `after`, oldest first. Raises NotFoundError."""
    with confined_to(user.id):
        _found(_shown(user).filter(pk=session_id).first())
        return list(_said(session_id).filter(position__gt=after).order_by("position")[:limit])


def newest_messages(user: User, session_id: UUID, *, before: int | None, limit: int) -> list[Chunk]:
    """The last that was said in the session (before a position), oldest first. Raises NotFoundError."""
    with confined_to(user.id):
        _found(_shown(user).filter(pk=session_id).first())
        found = _said(session_id)
        if before is not None:
            found = found.filter(position__lt=before)
        return list(reversed(found.order_by("-position")[:limit]))


def _said(session_id: UUID) -> QuerySet[Chunk]:
    """What people and assistants said: never what the assistant is told to be."""
    return with_words(Chunk.objects.filter(conversation=session_id, role__in=SAID))


def with_words(chunks: QuerySet[Chunk]) -> QuerySet[Chunk]:
    """With what is shown of them: the text as it should be read, and what the reader thought of it."""
    return chunks.select_related("feedback").annotate(words=corrected_text())


def give_feedback(user: User, chunk_id: int, rating: str, note: str, now: datetime) -> Feedback:
    """This is what the user thinks of the reply. Raises NotFoundError, or InvalidError where it is no reply."""
    with confined_to(user.id):
        chunk = _theirs(user, chunk_id)
        feedback, _ = Feedback.objects.update_or_create(
            chunk=chunk,
            defaults={"conversation_id": chunk.conversation_id, "rating": rating, "note": note, "given_at": now},
        )
        return feedback


def take_feedback_back(user: User, chunk_id: int) -> None:
    """The user thinks nothing of the reply any more. Raises NotFoundError."""
    with confined_to(user.id):
        Feedback.objects.filter(chunk=_theirs(user, chunk_id))._raw_delete(using="default")


def _theirs(user: User, chunk_id: int) -> Chunk:
    """The reply in a session of the user's. Raises NotFoundError or InvalidError."""
    said = Chunk.objects.filter(pk=chunk_id, conversation__contact__login=user.id, conversation__channel=Channel.WEB)
    chunk = said.filter(role__in=SAID).first()
    if chunk is None:
        raise NotFoundError("There is no such message.")
    if chunk.role != Role.AI:
        raise InvalidError("Feedback is for replies.")
    return chunk

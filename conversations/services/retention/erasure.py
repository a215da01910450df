"""Erasing a person: whatever Convo holds of them is gone, and a certificate says what was removed.

The rows go in one transaction, so that nobody is half erased and whoever writes again begins as somebody new. What has
to be reached over the network, vectors and chats at Retell, follows: it is tried until stores and providers, asked for
what they had, know nothing of it (`go_on`, by the sweep).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.core import signing
from django.db import transaction

from conversations.models import (
    Chunk,
    Client,
    Contact,
    ContactIdentity,
    Conversation,
    ConversationEvent,
    Correction,
    Erasure,
    Message,
    StaffAction,
    Step,
    Turn,
)
from conversations.queue import enqueue
from conversations.services.core.dedupe import write_tombstones
from conversations.services.core.errors import ConflictError, InvalidError, NotFoundError
from conversations.services.core.ledger import Actor
from conversations.services.core.sql import row
from conversations.services.engine_chats import removals
from conversations.services.retention import holds, mentions
from memory import services as memory
from memory.stores.contract import StoreError

# So long after the rows are gone a process that was remembering one of the sessions may still write.
WATCHED = timedelta(hours=1)
SALT = "convo.erasure"
ERASED = "(erased)"
BELOW = {"chunks": Chunk, "steps": Step, "events": ConversationEvent, "messages": Message, "turns": Turn}


# --- what it would be -------------------------------------------------------------------------------------------------
def preview(contact: Contact) -> dict[str, int]:
    """How many rows of which kind an erasure would remove now. Changes nothing."""
    sessions = list(Conversation.objects.filter(contact=contact).values_list("pk", flat=True))
    remembered, vectors = memory.count_remembered(_remembered(contact, sessions))
    return {
        "sessions": len(sessions),
        **{name: model._default_manager.filter(conversation__in=sessions).count() for name, model in BELOW.items()},
        "corrections": Correction.objects.filter(chunk__conversation__in=sessions).count(),
        "remembered": remembered,
        "vectors": vectors,
        "chats": len(removals.chats_of(sessions)),
        "addresses": ContactIdentity.objects.filter(contact=contact).count(),
        **_mentions(contact, "SELECT 1 {}"),
    }


def _remembered(contact: Contact, sessions: Sequence[UUID]) -> list[UUID]:
    """The sessions, and those of which memory alone still knows."""
    return sorted({*sessions, *memory.conversations_of_contact(contact.client_id, contact.pk)})


# --- doing it ---------------------------------------------------------------------------------------------------------
def begin(contact_id: UUID, *, actor: Actor, now: datetime, client: Client | None = None) -> Erasure:
    """No row of the person is left; their sessions' global memory and chats follow in the background.

    Raises NotFoundError, or ConflictError (`on_hold`) where the person or a session must be kept.
    """
    with transaction.atomic():
        found = Contact.objects.select_for_update().filter(pk=contact_id)
        contact = (found.filter(client=client) if client else found).first()
        if contact is None:
            raise NotFoundError("There is no such contact.")
        if contact.merged_into_id:
            raise ConflictError("This contact is an alias of another: erase that one.", code="is_alias")
        holds.refuse_for_contact(contact)
        removed = preview(contact)
        sessions = list(Conversation.objects.filter(contact=contact).values_list("pk", flat=True))
        remembered = _remembered(contact, sessions)
        chats = removals.chats_of(sessions)
        write_tombstones(sessions, now)
        _mentions(contact, "DELETE {} RETURNING 1")
        _forget_names(contact)
        memory.forget_texts(remembered)
        Conversation.objects.filter(pk__in=sessions).delete()
        contact.delete()
        vectors = [list(place) for place in memory.vector_locations(remembered)]
        erasure = Erasure.objects.create(
            client_id=contact.client_id,
            asked_by_id=actor.user_id,
            asked_by_name=actor.name,
            contact=contact_id,
            sessions=remembered,
            vectors=vectors,
            removed=removed,
            begun_at=now,
        )
        removals.ask_for(chats, erasure)
        enqueue("erase")
    return erasure


# What hangs on no session and may name the person: $1 the client, $2 what they are called. Payloads of an unknown
# account are nobody's.
_MENTIONS = {
    "inbound_events": """
        FROM inbound_events WHERE (client_id = $1 OR client_id IS NULL)
            AND (raw::text || ' ' || message_id) LIKE ANY ($2::text[])""",
    "simulated_exchanges": """
        FROM simulated_exchanges WHERE account_id IN (SELECT id FROM channel_accounts WHERE client_id = $1)
            AND (text || ' ' || body || ' ' || answer || ' ' || address) LIKE ANY ($2::text[])""",
    "send_pauses": """
        FROM send_pauses WHERE channel_account_id IN (SELECT id FROM channel_accounts WHERE client_id = $1)
            AND to_address LIKE ANY ($2::text[])""",
    "idempotency_keys": """
        FROM idempotency_keys WHERE client_id = $1 AND conversation_id IS NULL
            AND (key || ' ' || answer) LIKE ANY ($2::text[])""",
}


def _mentions(contact: Contact, verb: str) -> dict[str, int]:
    """How many rows of each kind name the person. `verb`: "SELECT 1 {}", or one that deletes them."""
    values = (contact.client_id, mentions.patterns(contact))
    counted = {
        name: row(f"WITH found AS ({verb.format(which)}) SELECT count(*) FROM found", *values)
        for name, which in _MENTIONS.items()
    }
    return {name: found[0] if found else 0 for name, found in counted.items()}


def _forget_names(contact: Contact) -> None:
    """The trails keep that something was done, and not to whom."""
    ids = [str(pk) for pk in (contact.pk, *contact.aliases.values_list("pk", flat=True))]
    StaffAction.objects.filter(object_type="contact", object_id__in=ids).update(object_name=ERASED, changes={})
    LogEntry.objects.filter(content_type__model="contact", object_id__in=ids).update(
        object_repr=ERASED, change_message=""
    )


def pending() -> bool:
    """Whether an erasure is not over, or still watched."""
    return Erasure.objects.exclude(sessions=[]).exists()


def go_on(now: datetime) -> int:
    """Erasures that are not over go on. Returns how many have been finished."""
    return sum(_go_on(erasure, now) for erasure in Erasure.objects.exclude(sessions=[]).order_by("begun_at"))


def _go_on(erasure: Erasure, now: datetime) -> bool:
    """Global memory has nothing of the sessions, nor has Retell; harmless to repeat. Returns whether that finished the
    erasure. What one of the two cannot do now does not keep the other from it."""
    problems = [problem for problem in (_clear_memory(erasure), _clear_chats(erasure)) if problem]
    if problems:
        Erasure.objects.filter(pk=erasure.pk).update(problem="; ".join(problems)[:200])
        return False
    with transaction.atomic():
        erasure = Erasure.objects.select_for_update().get(pk=erasure.pk)
        newly = erasure.finished_at is None
        if newly:
            erasure.certificate = _certificate(erasure, now)
            erasure.finished_at, erasure.problem = now, ""
        if now - erasure.begun_at >= WATCHED:
            erasure.contact, erasure.sessions, erasure.vectors = None, [], []
            erasure.chats.all().delete()
        erasure.save()
    return newly


def _clear_memory(erasure: Erasure) -> str:
    """By the ledger; then the store is asked. Returns what went wrong, '' for nothing."""
    try:
        for session in erasure.sessions:
            memory.forget(session)
        if erasure.contact:
            known = [memory.VectorLocation(*place) for place in erasure.vectors]
            memory.confirm_forgotten(erasure.client_id, erasure.contact, known)
    except StoreError as error:
        return f"{error.code}: {error}"
    return ""


def _clear_chats(erasure: Erasure) -> str:
    code = removals.remove_of(erasure)
    return f"retell {code}: a chat is not deleted there yet." if code else ""


# --- the certificate --------------------------------------------------------------------------------------------------
def _certificate(erasure: Erasure, now: datetime) -> str:
    """What was removed, when and by whom, and that whoever had it elsewhere was asked and found nothing, signed; whose
    it was only as a keyed hash of the id."""
    facts = {
        "erasure": str(erasure.pk),
        "client": str(erasure.client_id),
        "contact": hash_of(erasure.contact),
        "sessions": sorted(hash_of(session) for session in erasure.sessions),
        "chats": sorted(hash_of(chat.chat_id) for chat in erasure.chats.all()),
        "removed": erasure.removed,
        "proof": {
            "vectors": {"asked_for": len(erasure.vectors), "found": 0, "asked_by": "id, and by contact"},
            "chats": {"asked_for": erasure.chats.count(), "found": 0, "asked_by": "id"},
        },
        "asked_by": erasure.asked_by_name,
        "begun_at": erasure.begun_at.isoformat(),
        "finished_at": now.isoformat(),
    }
    return signing.Signer(salt=SALT).sign_object(facts)


def verify(certificate: str) -> dict[str, Any]:
    """What a certificate of ours says. Raises InvalidError for one that we did not sign as it stands."""
    try:
        facts: dict[str, Any] = signing.Signer(salt=SALT).unsign_object(certificate.strip())
    except (signing.BadSignature, ValueError):
        raise InvalidError(
            "This is no certificate of ours, or it was changed, or the SECRET_KEY was since: add the earlier one to "
            "SECRET_KEY_FALLBACKS.",
            code="not_ours",
        ) from None
    return facts


def named(facts: dict[str, Any], id_: str) -> str:
    """As what a certificate that says `facts` names the id: contact, session or chat; '' where it does not."""
    id_ = id_.strip()
    hashes = {hash_of(id_, key) for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)}
    named = {"contact": [facts["contact"]], "session": facts["sessions"], "chat": facts["chats"]}
    return next((what for what, those in named.items() if hashes.intersection(those)), "")


def hash_of(id_: UUID | str | None, key: str = "") -> str:
    """By which somebody who knows an id finds it in a certificate, and nobody else."""
    return hmac.new((key or settings.SECRET_KEY).encode(), str(id_).encode(), hashlib.sha256).hexdigest()

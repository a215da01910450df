"""Erasure of a person: delete all that Convo holds of them, and issue a certificate of what was removed.

    begin (rows, one transaction) ─► continue_erasures (sweep: vectors, chats at Retell, files) ─► certificate

The rows go in one transaction, so that nobody is half erased, and a person who writes again is a new contact. Deletions
at Pinecone, at Retell and in the media storage follow in the background. They are repeated until these services, asked
for the data, find none.
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
from django.utils.translation import gettext

from conversations.models import (
    Activity,
    Attachment,
    ChannelAccount,
    Chunk,
    Client,
    Contact,
    ContactIdentity,
    Conversation,
    ConversationEvent,
    Correction,
    Erasure,
    EventKind,
    IdempotencyKey,
    Message,
    Proposal,
    Rating,
    StaffAction,
    StaffNote,
    Step,
    ToolCall,
    Turn,
)
from conversations.queue import enqueue
from conversations.services.core.cluster import exists, of_all, of_client, of_each
from conversations.services.core.dedupe import write_tombstones
from conversations.services.core.errors import ConflictError, InvalidError, NotFoundError
from conversations.services.core.event_notes import note
from conversations.services.core.ledger import Actor
from conversations.services.core.sql import row
from conversations.services.engine_chats import removals
from conversations.services.events import deliveries
from conversations.services.media import removals as media_removals
from conversations.services.retention import holds, mentions
from memory import services as memory
from memory.stores.contract import StoreError

# For this long after the rows are deleted, a process that was remembering a conversation may still write to memory.
WATCHED = timedelta(hours=1)
SALT = "convo.erasure"
ERASED = "(erased)"
BELOW: dict[str, Any] = {
    "chunks": Chunk,
    "steps": Step,
    "events": ConversationEvent,
    "messages": Message,
    "turns": Turn,
    "tool_calls": ToolCall,
    "activities": Activity,
    "attachments": Attachment,
    "staff_notes": StaffNote,
    "ratings": Rating,
    "proposals": Proposal,
}


# --- preview ----------------------------------------------------------------------------------------------------------
def preview(contact: Contact) -> dict[str, int]:
    """Return how many rows of each kind an erasure would remove now. Changes nothing.

    It reads all payloads, pauses and saved views of the client, since any may name the person.
    """
    counted = held(contact)
    answers = counted.pop("idempotency_keys")
    named = _mentions(contact, "SELECT 1 {}")
    return {**counted, **named, "idempotency_keys": named["idempotency_keys"] + answers}


def held(contact: Contact) -> dict[str, int]:
    """Return how many rows of each kind belong to the person, without those that only name them."""
    sessions = list(Conversation.objects.filter(contact=contact).values_list("pk", flat=True))
    remembered, vectors = memory.count_remembered(contact.client_id, _remembered(contact, sessions))
    client_id = contact.client_id
    return {
        "sessions": len(sessions),
        **{
            name: model._default_manager.filter(client_id=client_id, conversation__in=sessions).count()
            for name, model in BELOW.items()
        },
        "corrections": Correction.objects.filter(client_id=client_id, chunk__conversation__in=sessions).count(),
        "remembered": remembered,
        "vectors": vectors,
        "chats": len(removals.chat_ids_of(contact.client_id, sessions)),
        "addresses": ContactIdentity.objects.filter(contact=contact).count(),
        "idempotency_keys": IdempotencyKey.objects.filter(client_id=client_id, conversation__in=sessions).count(),
    }


def _remembered(contact: Contact, sessions: Sequence[UUID]) -> list[UUID]:
    """Return the conversations, and those of the contact that only memory still has."""
    return sorted({*sessions, *memory.conversations_of_contact(contact.client_id, contact.pk)})


# --- erasure ----------------------------------------------------------------------------------------------------------
def begin(contact_id: UUID, *, actor: Actor, now: datetime, client: Client | None = None) -> Erasure:
    """Delete every row of the person and return the Erasure, which goes on in the background with memory and chats.

    Raises NotFoundError, or ConflictError: `is_alias` for a merged contact; `on_hold` if a legal hold keeps the person
    or one of their conversations.
    """
    with transaction.atomic():
        whose = client or Contact.objects.filter(pk=contact_id).values_list("client_id", flat=True).first()
        found = Contact.objects.select_for_update().filter(client=whose, pk=contact_id)
        contact = found.first() if whose else None
        if contact is None:
            raise NotFoundError(gettext("This contact does not exist."))
        if contact.merged_into_id:
            raise ConflictError(gettext("This contact is an alias of another. Erase that one."), code="is_alias")
        # Their rows are locked before the holds are read. A hold or a message that comes meanwhile waits for the end,
        # and finds that there is no such conversation.
        theirs = Conversation.objects.select_for_update().filter(contact=contact).order_by("pk")
        sessions = list(theirs.values_list("pk", flat=True))
        holds.refuse_if_contact_held(contact)
        removed = preview(contact)
        remembered = _remembered(contact, sessions)
        chats = removals.chat_ids_of(contact.client_id, sessions)
        write_tombstones(contact.client_id, sessions, now)
        _mentions(contact, "DELETE {} RETURNING 1")
        _forget_names(contact)
        memory.forget_texts(contact.client_id, remembered)
        # What is theirs goes with them, in the database.
        Conversation.objects.of(contact.client_id).filter(pk__in=sessions)._raw_delete("default")
        Contact.objects.filter(client=contact.client_id, pk=contact.pk)._raw_delete("default")
        vectors = [list(place) for place in memory.vector_locations(contact.client_id, remembered)]
        deliveries.forget(contact.client_id, sessions)
        note(contact.client_id, EventKind.ERASED, contact_id=str(contact_id))
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
        removals.request_removal(erasure.client_id, chats, erasure)
        enqueue("erase")
    return erasure


# Rows that belong to no conversation and may name the person: $1 the client, $2 patterns of their addresses and ids.
# Payloads of an unknown account belong to no client. Answers about a conversation go with it.
_MENTIONS = {
    "inbound_events": """
        FROM inbound_events WHERE (client_id = $1 OR client_id IS NULL)
            AND (raw::text || ' ' || message_id) LIKE ANY ($2::text[])""",
    "simulated_exchanges": """
        FROM simulated_exchanges WHERE client_id = $1
            AND (text || ' ' || body || ' ' || answer || ' ' || address) LIKE ANY ($2::text[])""",
    "send_pauses": """
        FROM send_pauses WHERE client_id = $1 AND to_address LIKE ANY ($2::text[])""",
    "idempotency_keys": """
        FROM idempotency_keys WHERE client_id = $1 AND conversation_id IS NULL
            AND (key || ' ' || answer) LIKE ANY ($2::text[])""",
    "saved_views": """
        FROM desk_views WHERE client_id = $1
            AND (name || ' ' || COALESCE(filters ->> 'q', '')) ILIKE ANY ($2::text[])""",
}


def _mentions(contact: Contact, verb: str) -> dict[str, int]:
    """Return how many rows of each kind name the person.

    verb: "SELECT 1 {}", or a DELETE that returns a row for each
    """
    addresses = mentions.patterns(contact)
    patterns = {"saved_views": [*addresses, *mentions.patterns_of_name(contact)]}  # by the words that staff search for
    counted = {
        name: row(
            f"WITH found AS ({verb.format(which)}) SELECT count(*) FROM found",
            *(contact.client_id, patterns.get(name, addresses)),
        )
        for name, which in _MENTIONS.items()
    }
    return {name: found[0] if found else 0 for name, found in counted.items()}


def _forget_names(contact: Contact) -> None:
    """Remove the person's name from the audit logs, which keep that something was done."""
    ids = [str(pk) for pk in (contact.pk, *contact.aliases.values_list("pk", flat=True))]
    StaffAction.objects.filter(object_type="contact", object_id__in=ids).update(object_name=ERASED, changes={})
    LogEntry.objects.filter(content_type__model="contact", object_id__in=ids).update(
        object_repr=ERASED, change_message=""
    )


def pending() -> bool:
    """Return whether an erasure is unfinished or still watched."""
    return exists(Erasure.objects.exclude(contact=None))


def continue_erasures(now: datetime) -> int:
    """Continue the unfinished and watched erasures and return how many this finished."""
    unfinished = Erasure.objects.exclude(contact=None).order_by("begun_at")
    found = of_all(lambda pk: of_client(unfinished, pk))
    return sum(of_each([(erasure, now) for erasure in found], _continue))


def _continue(erasure: Erasure, now: datetime) -> bool:
    """Delete the conversations in global memory, the chats at Retell and the files. Returns whether that finished it.

    It is safe to repeat. If one of these fails, the others are done all the same.
    """
    done = (_clear_memory(erasure), _clear_chats(erasure), _clear_files(erasure, now))
    problems = [problem for problem in done if problem]
    if problems:
        Erasure.objects.filter(client_id=erasure.client_id, pk=erasure.pk).update(problem="; ".join(problems)[:200])
        return False
    with transaction.atomic():
        erasure = Erasure.objects.select_for_update().get(client_id=erasure.client_id, pk=erasure.pk)
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
    """Delete what the erasure's row lists, then ask the store for more. Returns the error, '' for none."""
    try:
        for session in erasure.sessions:
            memory.forget(erasure.client_id, session)
        if erasure.contact:
            known = [memory.VectorLocation(*place) for place in erasure.vectors]
            memory.confirm_forgotten(erasure.client_id, erasure.contact, known)
    except StoreError as error:
        return f"{error.code}: {error}"
    return ""


def _clear_chats(erasure: Erasure) -> str:
    code = removals.remove_chats_of(erasure)
    return f"retell {code}: a chat is not deleted there yet." if code else ""


def _clear_files(erasure: Erasure, now: datetime) -> str:
    """Delete the files of the conversations, and those of simulated phones, whose removals name the account."""
    simulated = ChannelAccount.objects.filter(client_id=erasure.client_id, is_simulated=True).values_list(
        "pk", flat=True
    )
    code = media_removals.remove_of(erasure.client_id, [*erasure.sessions, *simulated], now)
    return f"files {code}: a file is not deleted yet." if code else ""


# --- the certificate --------------------------------------------------------------------------------------------------
def _certificate(erasure: Erasure, now: datetime) -> str:
    """Return the signed certificate: what was removed, when, by whom, and that other services found nothing left.

    It identifies the person, conversations and chats only by a keyed hash of the id.
    """
    facts = {
        "erasure": str(erasure.pk),
        "client": str(erasure.client_id),
        "contact": hash_id(erasure.contact),
        "sessions": sorted(hash_id(session) for session in erasure.sessions),
        "chats": sorted(hash_id(chat.chat_id) for chat in erasure.chats.all()),
        "removed": erasure.removed,
        "proof": {
            "vectors": {"asked_for": len(erasure.vectors), "found": 0, "asked_by": "id, and by contact"},
            "chats": {"asked_for": erasure.chats.count(), "found": 0, "asked_by": "id"},
            "files": {"asked_for": erasure.removed.get("attachments", 0), "found": 0, "asked_by": "folder"},
        },
        "asked_by": erasure.asked_by_name,
        "begun_at": erasure.begun_at.isoformat(),
        "finished_at": now.isoformat(),
    }
    return signing.Signer(salt=SALT).sign_object(facts)


def verify(certificate: str) -> dict[str, Any]:
    """Check a certificate's signature and return its facts. Raises InvalidError (`not_ours`)."""
    try:
        facts: dict[str, Any] = signing.Signer(salt=SALT).unsign_object(certificate.strip())
    except (signing.BadSignature, ValueError):
        raise InvalidError(
            gettext(
                "The signature does not fit: this is no certificate of ours, or it was changed. If the SECRET_KEY has "
                "changed since, add the earlier one to SECRET_KEY_FALLBACKS."
            ),
            code="not_ours",
        ) from None
    return facts


def kind_of_id(facts: dict[str, Any], id_: str) -> str:
    """Return as what the certificate's facts name the id: "contact", "session" or "chat"; '' if they do not."""
    id_ = id_.strip()
    hashes = {hash_id(id_, key) for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)}
    named = {"contact": [facts["contact"]], "session": facts["sessions"], "chat": facts["chats"]}
    return next((what for what, those in named.items() if hashes.intersection(those)), "")


def hash_id(id_: UUID | str | None, key: str = "") -> str:
    """Return the HMAC-SHA-256 of the id, by which only somebody who knows the id finds it in a certificate.

    key: '' for the SECRET_KEY
    """
    return hmac.new((key or settings.SECRET_KEY).encode(), str(id_).encode(), hashlib.sha256).hexdigest()

"""Merging two contacts that are one person: one gets all that the other has, and the other stays as an alias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from django.utils.translation import gettext, gettext_noop

from conversations.models import (
    Client,
    Contact,
    ContactIdentity,
    ContactMatch,
    Conversation,
    ConversationEvent,
    Erasure,
    Status,
)
from conversations.queue import enqueue
from conversations.services.contacts import details
from conversations.services.core.appending import note_answered
from conversations.services.core.errors import ConflictError, NotFoundError
from conversations.services.core.event_notes import note_contact
from conversations.services.core.ledger import Actor
from conversations.services.core.locking import saving
from conversations.services.delivery import outbox
from conversations.services.staff_actions.merge_sessions import merge_conversations
from memory import services as memory

State = ContactMatch.State
LONGEST_REASON = 200
NEVER = datetime.min.replace(tzinfo=UTC)
DETAIL_FIELDS = ["staff_name", "email", "language", "attributes"]  # what staff say of the person
KNOWN_FIELDS = ["known", "known_until", "known_in", "known_by", "known_at"]  # staff's correction of a memory chunk


@dataclass(slots=True)
class MergePreview:
    """The effect of a merge before it is done: `alias` becomes an alias of `person`.

    rows        how many conversations, addresses and memory records move
    joined      pairs of open conversations that would become one, the one that goes on first
    opted_out   the channels on which either has opted out
    refused     a sentence if the merge is refused, '' if not
    """

    person: Contact
    alias: Contact
    rows: dict[str, int] = field(default_factory=dict)
    joined: list[tuple[Conversation, Conversation]] = field(default_factory=list)
    opted_out: list[str] = field(default_factory=list)
    hold_reason: str = ""
    refused: str = ""


def preview(match: ContactMatch, keep: UUID | None = None) -> MergePreview:
    """Return what merging now would do. Nothing changes.

    keep: the contact to keep; None for the one who signs in, or else the older one
    """
    pair = [match.first, match.second]
    person, alias = _ordered(pair, keep)
    conversations = list(Conversation.objects.of(match.client_id).open().filter(contact__in=pair))
    return MergePreview(
        person,
        alias,
        rows=_counts(alias),
        joined=_on_one_channel(conversations),
        opted_out=sorted({*person.opted_out, *alias.opted_out}),
        hold_reason=_hold(person, alias),
        refused=_refusal(person, alias),
    )


def merge(
    match_id: UUID, *, actor: Actor, now: datetime, keep: UUID | None = None, client: Client | None = None
) -> ContactMatch:
    """Merge the two contacts of the match and return it.

    Addresses, conversations and memory go to the contact that is kept (`keep`, as in `preview`); the other's user id
    and id become aliases. Two open conversations on one channel and thread become one. Opt-outs and holds of either
    stay. A match that is merged already stays as it is.

    Raises NotFoundError, or ConflictError (`both_sign_in`, `being_erased`).
    """
    with transaction.atomic():
        match = _locked(match_id, client)
        if match.state == State.MERGED:
            return match
        # Contacts before conversations, as everywhere (core/locking.py), and each in the order of ids. A process that
        # opens a conversation of one of the contacts, or changes it, waits here, then finds an alias and begins again.
        # The contacts' keys are not locked: a process that adds an address must not wait for this one while this one
        # waits for the conversation that it has locked.
        pair = list(
            Contact.objects.select_for_update(no_key=True)
            .filter(client=match.client_id)
            .filter(pk__in=_pair(match))
            .order_by("pk")
        )
        if len(pair) < 2:
            raise NotFoundError(gettext("One of the two contacts does not exist any more."))
        person, alias = _ordered(pair, keep)
        if refused := _refusal(person, alias):
            raise ConflictError(refused, code="both_sign_in" if alias.login_id and person.login_id else "being_erased")
        theirs = Conversation.objects.of(match.client_id).open()
        found = theirs.select_for_update(of=("self",), no_key=True).select_related("client")
        conversations = list(found.filter(contact__in=pair).order_by("pk"))
        match.moved = _counts(alias)
        for into, other in _on_one_channel(conversations):
            merge_conversations(into, other, actor=actor, now=now)
        _move_conversations(person, alias, actor, now)
        ContactIdentity.objects.filter(contact=alias).update(contact=person)
        Contact.objects.filter(merged_into=alias).update(merged_into=person)
        _merge_fields(person, alias)
        _apply_opt_outs(person)
        _move_memory(person, alias, now)
        _move_matches(match, person, alias)
        _decide(match, State.MERGED, actor, now)
    return match


def dismiss(match_id: UUID, *, actor: Actor, now: datetime, client: Client | None = None) -> ContactMatch:
    """Dismiss the match, so that the same evidence is not shown again, and return it.

    Raises NotFoundError, or ConflictError (`merged`).
    """
    with transaction.atomic():
        match = _locked(match_id, client)
        if match.state == State.MERGED:
            raise ConflictError(gettext("These contacts are merged already. A merge cannot be undone."), code="merged")
        if match.state != State.DISMISSED:
            _decide(match, State.DISMISSED, actor, now)
    return match


def _locked(match_id: UUID, client: Client | None) -> ContactMatch:
    client_id = (
        client.pk if client else ContactMatch.objects.filter(pk=match_id).values_list("client", flat=True).first()
    )
    found = ContactMatch.objects.select_for_update(of=("self",)).filter(client=client_id, pk=match_id)
    match = found.first() if client_id else None
    if match is None:
        raise NotFoundError(gettext("There is no such match."))
    return match


def _decide(match: ContactMatch, state: str, actor: Actor, now: datetime) -> None:
    match.state, match.decided_at = state, now
    match.decided_by_id, match.decided_by_name = actor.user_id, actor.name[:150]
    match.save(update_fields=["state", "decided_at", "decided_by", "decided_by_name", "moved"])


def _pair(match: ContactMatch) -> list[UUID]:
    return [match.first_id, match.second_id]


def _ordered(pair: Sequence[Contact], keep: UUID | None) -> tuple[Contact, Contact]:
    """Return the contact to keep and the one that becomes an alias."""
    first, second = sorted(pair, key=lambda each: (each.pk != keep, each.login_id is None, each.created_at, each.pk))
    return first, second


def _refusal(person: Contact, alias: Contact) -> str:
    """Return a sentence if the contacts cannot be merged, '' if they can."""
    if person.login_id and alias.login_id:
        return gettext("Both contacts sign in, as two users. Merge the users first.")
    if Erasure.objects.filter(client=person.client_id, contact__in=[person.pk, alias.pk], finished_at=None).exists():
        return gettext("One of the contacts is being erased.")
    return ""


def _counts(alias: Contact) -> dict[str, int]:
    return {
        "sessions": Conversation.objects.filter(contact=alias).count(),
        "addresses": ContactIdentity.objects.filter(contact=alias).count(),
        "remembered": memory.count_of_contact(alias.client_id, alias.pk),
    }


def _on_one_channel(conversations: Sequence[Conversation]) -> list[tuple[Conversation, Conversation]]:
    """Return the pairs of open conversations on one channel and thread, the older first: it goes on."""
    first: dict[tuple[str, str], Conversation] = {}
    pairs = []
    for conversation in sorted(conversations, key=lambda each: (each.started_at, each.pk)):
        key = (conversation.channel, conversation.thread)
        if key in first:
            pairs.append((first[key], conversation))
        first.setdefault(key, conversation)
    return pairs


def _move_conversations(person: Contact, alias: Contact, actor: Actor, now: datetime) -> None:
    theirs = list(Conversation.objects.filter(contact=alias).values_list("pk", flat=True))
    ConversationEvent.objects.bulk_create(
        ConversationEvent(
            client_id=person.client_id,
            conversation_id=pk,
            kind="contact_merged",
            cause=gettext_noop("two contacts are one person"),
            actor=actor.kind,
            actor_name=actor.name,
            data={"from": str(alias.pk), "to": str(person.pk)},
            created_at=now,
        )
        for pk in theirs
    )
    if not theirs:
        note_contact(person.client_id, person.pk, "merged", merged=str(alias.pk))
    Conversation.objects.of(person.client_id).filter(pk__in=theirs).update(contact=person)
    if not (person.is_guest and alias.is_guest):
        _no_longer_guest(person, now)


def _no_longer_guest(person: Contact, now: datetime) -> None:
    """Have the guest conversations of the person, who is known now, remembered instead of deleted."""
    theirs = Conversation.objects.filter(contact=person)
    theirs.filter(is_guest=True).update(is_guest=False)
    ended = theirs.filter(status__in=[Status.EXPIRED, Status.CLOSED], last_position__gt=0)
    if ended.filter(remembered_at=None, remember_due_at=None).update(remember_due_at=now, remember_attempts=0):
        enqueue("remember_ended")


def _merge_fields(person: Contact, alias: Contact) -> None:
    """Move what is known of the alias to the person and empty the alias."""
    person.phone = person.phone or alias.phone
    person.name = person.name or alias.name
    person.login_id = person.login_id or alias.login_id
    person.is_guest = person.is_guest and alias.is_guest
    person.opted_out = {**alias.opted_out, **person.opted_out}
    person.hold_reason = _hold(person, alias)
    person.comment_until = max(filter(None, (person.comment_until, alias.comment_until)), default=None)
    _merge_known(person, alias)
    email, person.staff_name = person.email or alias.email, person.staff_name or alias.staff_name
    person.email, person.language = email, person.language or alias.language
    person.attributes = dict([*person.attributes.items(), *_missing(person.attributes, alias.attributes)])
    alias.staff_name = alias.email = alias.language = ""
    alias.attributes = {}
    alias.merged_into = person
    alias.comment_until = None
    alias.phone = alias.login = alias.known_until = alias.known_in = alias.known_at = None
    alias.name = alias.hold_reason = alias.known = alias.known_by = ""
    alias.opted_out, alias.is_guest = {}, False
    fields = ["phone", "name", *DETAIL_FIELDS, "login", "is_guest", "opted_out", "hold_reason", *KNOWN_FIELDS]
    fields.append("comment_until")
    alias.save(update_fields=[*fields, "merged_into"])  # before the person: a login has one contact of a client
    person.save(update_fields=fields)


def _missing(ours: dict[str, str], others: dict[str, str]) -> list[tuple[str, str]]:
    """Return the other's attributes that we lack, as many as there is room for."""
    room = max(details.MOST_ATTRIBUTES - len(ours), 0)
    return [each for each in others.items() if each[0] not in ours][:room]


def _merge_known(person: Contact, alias: Contact) -> None:
    """Put together what staff wrote of either, the newer first; it counts from the newer one's conversation on."""
    corrected = sorted(
        (each for each in (person, alias) if each.known), key=lambda each: each.known_until or NEVER, reverse=True
    )
    if corrected:
        newest, text = corrected[0], "\n".join(each.known for each in corrected)
        for field in KNOWN_FIELDS:
            setattr(person, field, getattr(newest, field))
        person.known = text


def _hold(person: Contact, alias: Contact) -> str:
    reasons = dict.fromkeys(reason for reason in (person.hold_reason, alias.hold_reason) if reason)
    return "; ".join(reasons)[:LONGEST_REASON]


def _apply_opt_outs(person: Contact) -> None:
    """Cancel what is queued or owed on the channels on which either of the two has opted out."""
    for channel in person.opted_out:
        outbox.cancel_for_contact(person, channel)
    owing = Conversation.objects.open().filter(contact=person, channel__in=list(person.opted_out), reply_owed=True)
    for conversation in owing:
        with saving(conversation):
            note_answered(conversation)


def _move_memory(person: Contact, alias: Contact, now: datetime) -> None:
    """Move memory's records to the person. Records at Pinecone are written again in the background."""
    elsewhere = memory.move(person.client_id, alias.pk, person.pk)
    due = Conversation.objects.of(person.client_id).filter(
        pk__in=elsewhere, contact=person, remembered_at__isnull=False
    )
    if due.update(remember_due_at=now, remember_attempts=0):
        enqueue("remember_ended")


def _move_matches(done: ContactMatch, person: Contact, alias: Contact) -> None:
    """Let the alias's other matches be the person's, unless the person has the same match already."""
    others = ContactMatch.objects.filter(Q(first=alias) | Q(second=alias), client=person.client_id).exclude(pk=done.pk)
    for match in others.exclude(state=State.MERGED).select_for_update():
        third = match.second_id if match.first_id == alias.pk else match.first_id
        pair: dict[str, Any] = dict(zip(("first_id", "second_id"), sorted([person.pk, third]), strict=True))
        if ContactMatch.objects.filter(client=person.client_id, **pair).exists():
            ContactMatch.objects.filter(client=person.client_id, pk=match.pk).delete()
        else:
            ContactMatch.objects.filter(client=person.client_id, pk=match.pk).update(**pair)

"""Two contacts turn out to be one person: what is one's becomes the other's, and the first stays as an alias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q

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
from conversations.services.core.appending import note_answered
from conversations.services.core.errors import ConflictError, NotFoundError
from conversations.services.core.ledger import Actor
from conversations.services.core.locking import saving
from conversations.services.delivery import outbox
from conversations.services.staff_actions.merge_sessions import join
from memory import services as memory

State = ContactMatch.State
LONGEST_REASON = 200
NEVER = datetime.min.replace(tzinfo=UTC)
CORRECTED = ["known", "known_until", "known_in", "known_by", "known_at"]  # what staff made of a memory chunk


@dataclass(slots=True)
class Preview:
    """What merging would do: `alias` becomes one of `person`'s names. `joined`: pairs of open sessions that would
    become one, the one that goes on first. `refused` says why it cannot be done."""

    person: Contact
    alias: Contact
    rows: dict[str, int] = field(default_factory=dict)
    joined: list[tuple[Conversation, Conversation]] = field(default_factory=list)
    opted_out: list[str] = field(default_factory=list)
    hold_reason: str = ""
    refused: str = ""


def preview(match: ContactMatch, keep: UUID | None = None) -> Preview:
    """What merging now would do. Changes nothing. Without `keep`, who signs in is kept, else who was there first."""
    pair = [match.first, match.second]
    person, alias = _ordered(pair, keep)
    sessions = list(Conversation.objects.open().filter(contact__in=pair))
    return Preview(
        person,
        alias,
        rows=_counts(alias),
        joined=_doubles(sessions),
        opted_out=sorted({*person.opted_out, *alias.opted_out}),
        hold_reason=_hold(person, alias),
        refused=_refusal(person, alias),
    )


def merge(
    match_id: UUID, *, actor: Actor, now: datetime, keep: UUID | None = None, client: Client | None = None
) -> ContactMatch:
    """The two contacts are one: addresses, sessions and memory are `keep`'s (see preview), and the other's user id and
    id are aliases. Two open sessions on one channel and thread are one. Who opted out, or is on hold, stays so. What is
    merged already stays as it is.

    Raises NotFoundError, or ConflictError (`both_sign_in`, `being_erased`).
    """
    with transaction.atomic():
        match = _locked(match_id, client)
        if match.state == State.MERGED:
            return match
        # Contacts before sessions, as everywhere, and each in the order of ids. Whoever opens a session or learns
        # something of one of the contacts waits here, and then finds an alias and begins anew. Not for their keys:
        # whoever adds an address must not wait for us while we wait for the session that they hold.
        pair = list(Contact.objects.select_for_update(no_key=True).filter(pk__in=_pair(match)).order_by("pk"))
        if len(pair) < 2:
            raise NotFoundError("One of the two is not there any more.")
        person, alias = _ordered(pair, keep)
        if refused := _refusal(person, alias):
            raise ConflictError(refused, code="both_sign_in" if alias.login_id and person.login_id else "being_erased")
        found = Conversation.objects.open().select_for_update(of=("self",), no_key=True).select_related("client")
        sessions = list(found.filter(contact__in=pair).order_by("pk"))
        match.moved = _counts(alias)
        for into, other in _doubles(sessions):
            join(into, other, actor=actor, now=now)
        _move_sessions(person, alias, actor, now)
        ContactIdentity.objects.filter(contact=alias).update(contact=person)
        Contact.objects.filter(merged_into=alias).update(merged_into=person)
        _unite(person, alias)
        _heed_wishes(person)
        _move_memory(person, alias, now)
        _move_matches(match, person, alias)
        _decide(match, State.MERGED, actor, now)
    return match


def dismiss(match_id: UUID, *, actor: Actor, now: datetime, client: Client | None = None) -> ContactMatch:
    """Staff say that they are two; the same evidence is not shown again. Raises NotFoundError, or ConflictError
    (`merged`)."""
    with transaction.atomic():
        match = _locked(match_id, client)
        if match.state == State.MERGED:
            raise ConflictError("They are one already; there is no way back.", code="merged")
        if match.state != State.DISMISSED:
            _decide(match, State.DISMISSED, actor, now)
    return match


def _locked(match_id: UUID, client: Client | None) -> ContactMatch:
    found = ContactMatch.objects.select_for_update(of=("self",)).filter(pk=match_id)
    match = (found.filter(client=client) if client else found).first()
    if match is None:
        raise NotFoundError("There is no such match.")
    return match


def _decide(match: ContactMatch, state: str, actor: Actor, now: datetime) -> None:
    match.state, match.decided_at = state, now
    match.decided_by_id, match.decided_by_name = actor.user_id, actor.name[:150]
    match.save(update_fields=["state", "decided_at", "decided_by", "decided_by_name", "moved"])


def _pair(match: ContactMatch) -> list[UUID]:
    return [match.first_id, match.second_id]


def _ordered(pair: Sequence[Contact], keep: UUID | None) -> tuple[Contact, Contact]:
    """Who is kept, and who becomes an alias."""
    by_worth = sorted(pair, key=lambda each: (each.pk != keep, each.login_id is None, each.created_at, each.pk))
    return by_worth[0], by_worth[1]


def _refusal(person: Contact, alias: Contact) -> str:
    """Why they cannot be merged, '' if they can."""
    if person.login_id and alias.login_id:
        return "Both sign in, as two users: merge these first."
    if Erasure.objects.filter(contact__in=[person.pk, alias.pk], finished_at=None).exists():
        return "One of them is being erased."
    return ""


def _counts(alias: Contact) -> dict[str, int]:
    sessions = Conversation.objects.filter(contact=alias)
    return {
        "sessions": sessions.count(),
        "addresses": ContactIdentity.objects.filter(contact=alias).count(),
        "remembered": memory.count_of_contact(alias.client_id, alias.pk),
    }


def _doubles(sessions: Sequence[Conversation]) -> list[tuple[Conversation, Conversation]]:
    """Open sessions on one channel and thread, the older first: it goes on."""
    first: dict[tuple[str, str], Conversation] = {}
    doubles = []
    for session in sorted(sessions, key=lambda each: (each.started_at, each.pk)):
        key = (session.channel, session.thread)
        if key in first:
            doubles.append((first[key], session))
        first.setdefault(key, session)
    return doubles


def _move_sessions(person: Contact, alias: Contact, actor: Actor, now: datetime) -> None:
    theirs = list(Conversation.objects.filter(contact=alias).values_list("pk", flat=True))
    ConversationEvent.objects.bulk_create(
        ConversationEvent(
            conversation_id=pk,
            kind="contact_merged",
            cause="two contacts are one person",
            actor=actor.kind,
            actor_name=actor.name,
            data={"from": str(alias.pk), "to": str(person.pk)},
            created_at=now,
        )
        for pk in theirs
    )
    Conversation.objects.filter(pk__in=theirs).update(contact=person)
    if not (person.is_guest and alias.is_guest):
        _no_guests(person, now)


def _no_guests(person: Contact, now: datetime) -> None:
    """The sessions are nobody's whom we do not know: they are remembered instead of deleted."""
    theirs = Conversation.objects.filter(contact=person)
    theirs.filter(is_guest=True).update(is_guest=False)
    ended = theirs.filter(status__in=[Status.EXPIRED, Status.CLOSED], last_position__gt=0)
    if ended.filter(remembered_at=None, remember_due_at=None).update(remember_due_at=now, remember_attempts=0):
        enqueue("remember_ended")


def _unite(person: Contact, alias: Contact) -> None:
    """What is known of either is known of the person, and nothing of the alias."""
    person.phone = person.phone or alias.phone
    person.name = person.name or alias.name
    person.login_id = person.login_id or alias.login_id
    person.is_guest = person.is_guest and alias.is_guest
    person.opted_out = {**alias.opted_out, **person.opted_out}
    person.hold_reason = _hold(person, alias)
    _join_corrections(person, alias)
    alias.merged_into = person
    alias.phone = alias.login = alias.known_until = alias.known_in = alias.known_at = None
    alias.name = alias.hold_reason = alias.known = alias.known_by = ""
    alias.opted_out, alias.is_guest = {}, False
    fields = ["phone", "name", "login", "is_guest", "opted_out", "hold_reason", *CORRECTED]
    alias.save(update_fields=[*fields, "merged_into"])  # first: of a login there is one contact
    person.save(update_fields=fields)


def _join_corrections(person: Contact, alias: Contact) -> None:
    """What staff say is known of either, the newer first; it stands from the newer one's session on."""
    said = sorted(
        (each for each in (person, alias) if each.known), key=lambda each: each.known_until or NEVER, reverse=True
    )
    if said:
        newest, text = said[0], "\n".join(each.known for each in said)
        for field in CORRECTED:
            setattr(person, field, getattr(newest, field))
        person.known = text


def _hold(person: Contact, alias: Contact) -> str:
    reasons = dict.fromkeys(reason for reason in (person.hold_reason, alias.hold_reason) if reason)
    return "; ".join(reasons)[:LONGEST_REASON]


def _heed_wishes(person: Contact) -> None:
    """Nothing is queued or owed on a channel on which one of the two wanted nothing."""
    for channel in person.opted_out:
        outbox.cancel_for_contact(person, channel)
    owing = Conversation.objects.open().filter(contact=person, channel__in=list(person.opted_out), reply_owed=True)
    for session in owing:
        with saving(session):
            note_answered(session)


def _move_memory(person: Contact, alias: Contact, now: datetime) -> None:
    """Memory's records are the person's; what is at Pinecone as well is written there anew, in the background."""
    elsewhere = memory.move(person.client_id, alias.pk, person.pk)
    due = Conversation.objects.filter(pk__in=elsewhere, contact=person, remembered_at__isnull=False)
    if due.update(remember_due_at=now, remember_attempts=0):
        enqueue("remember_ended")


def _move_matches(done: ContactMatch, person: Contact, alias: Contact) -> None:
    """What says that the alias is somebody else as well, says so of the person."""
    others = ContactMatch.objects.filter(Q(first=alias) | Q(second=alias)).exclude(pk=done.pk)
    for match in others.exclude(state=State.MERGED).select_for_update():
        third = match.second_id if match.first_id == alias.pk else match.first_id
        pair: dict[str, Any] = dict(zip(("first_id", "second_id"), sorted([person.pk, third]), strict=True))
        if ContactMatch.objects.filter(**pair).exists():
            match.delete()
        else:
            ContactMatch.objects.filter(pk=match.pk).update(**pair)

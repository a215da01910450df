"""A client's records while the server of another client is away: exports, merging, holds, the audit log."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from conversations.admin.access import Role
from conversations.models import AuditEntry, Contact, ContactMatch, Conversation
from conversations.services.core.errors import ConflictError
from conversations.services.core.ledger import SYSTEM
from conversations.services.export import person, sessions, transcripts
from conversations.services.retention import erasure, holds
from conversations.services.staff_actions import merge_contacts
from convo_project.verify_audit import verify
from tests.citus.places import ONLY_IN_CLUSTER, away
from tests.conftest import reply_to_all, send_all
from tests.conversations.staff import signed_in, staff
from tests.conversations.test_audit_chain import did, exported
from tests.conversations.test_merging import same_phone
from tests.races.invariants import assert_sound

pytestmark = [*ONLY_IN_CLUSTER, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def ours(both: Any, doors: Any) -> Conversation:
    """A conversation with a reply, of the client whose server answers; the other client has one too."""
    for door in doors:
        door.says("My roof leaks", user_id="ann", name="Ann", phone="+51999000077")
    reply_to_all()
    send_all()
    return Conversation.objects.get(client=both[0])


def test_a_person_and_a_transcript_are_exported(both: Any, ours: Conversation) -> None:
    manager = signed_in(staff("mona", here=Role.MANAGER))
    with away(both[1]):
        for pieces in (
            person.export(ours.contact_id, actor=SYSTEM, now=timezone.now(), client=both[0]).pieces(),
            transcripts.as_json(ours),
            transcripts.as_csv(ours),
            transcripts.as_page(ours),
            sessions.json_lines({ours.pk: ours.client_id}, actor=SYSTEM),
        ):
            assert b"".join(pieces)
        page = manager.get(reverse("admin:conversations_conversation_change", args=[ours.pk]))
        assert page.status_code == 200


def test_two_contacts_become_one(both: Any, doors: Any) -> None:
    match = same_phone(doors[0])
    with away(both[1]):
        assert merge_contacts.preview(match).refused == ""
        merge_contacts.merge(match.pk, actor=SYSTEM, now=timezone.now(), client=both[0])
        assert ContactMatch.objects.get(client=both[0]).state == "merged"
        assert Contact.objects.filter(client=both[0], merged_into=None).count() == 1
    assert_sound()


def test_what_is_on_hold_is_kept(both: Any, ours: Conversation) -> None:
    with away(both[1]):
        holds.hold(ours.pk, reason="Case 4711", actor=SYSTEM, client=both[0])
        with pytest.raises(ConflictError):
            erasure.begin(ours.contact_id, actor=SYSTEM, now=timezone.now(), client=both[0])
        holds.lift(ours.pk, actor=SYSTEM, client=both[0])
        holds.set_contact_hold(both[0].pk, ours.contact_id, "Case 4712")
        assert Contact.objects.get(client=both[0], pk=ours.contact_id).hold_reason == "Case 4712"


def test_the_audit_log_is_written_and_exported(both: Any, doors: Any, ours: Conversation) -> None:
    did(both[1], "added")
    with away(both[1]):
        did(both[0], "added")
        assert doors[0].call("POST", f"/conversations/{ours.pk}/takeover", {})[0] == 200
        assert AuditEntry.objects.filter(client=both[0]).count() == 2
        assert verify(exported(both[0]))[0] == AuditEntry.objects.filter(client=both[0]).count()
        assert verify(exported(both[1]))[0] == 1

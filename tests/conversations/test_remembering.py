"""What an ended session leaves: a summary, a transcript in global memory, and later nothing in the hot tables."""

from __future__ import annotations

import io
from datetime import timedelta

import pytest
from django.apps import apps
from django.core.management import call_command
from django.urls import reverse
from django.utils import timezone

from conversations.models import (
    Activity,
    Attachment,
    Chunk,
    Conversation,
    ConversationEvent,
    Correction,
    Feedback,
    Message,
    MessageTombstone,
    Turn,
)
from conversations.services.core.ledger import Actor
from conversations.services.history import archive, remember
from conversations.services.jobs import sweep
from conversations.services.staff_actions import corrections
from memory import services as memory
from memory.models import Memory
from tests.conftest import reply_to_all, send_all
from tests.conversations.back_office import sign_in
from tests.conversations.test_retention_rules import turn_of

pytestmark = pytest.mark.django_db(transaction=True)

PHONE = "+51999999999"
STAFF = Actor("staff", "boss")


def ended(door, **more):
    """A closed session of somebody we know, with a reply in it."""
    answer = door.says("I want a red roof", user_id="ann", phone=PHONE, **more)
    reply_to_all()
    send_all()
    status, _ = door.call("POST", f"/conversations/{answer['conversation_id']}/close", {"reason": "done"})
    assert status == 200
    return answer["conversation_id"]


def test_a_closed_session_is_remembered_and_the_next_one_begins_with_it(door):
    pk = ended(door)
    assert remember.count_pending() == 1
    assert remember.remember_ended() == 1

    conversation = Conversation.objects.get()
    assert conversation.remembered_at
    assert conversation.remember_due_at is None
    assert "red roof" in conversation.summary
    assert [
        entry.content for entry in memory.transcript(conversation.client_id, conversation.pk) if entry.role == "user"
    ] == ["I want a red roof"]
    assert ConversationEvent.objects.filter(kind="remembered", cause="extractive").exists()
    again = door.says("Hello again", user_id="ann")["conversation_id"]
    assert again != pk
    chunks = door.get(f"/conversations/{again}")["chunks"]
    assert "red roof" in next(c["content"] for c in chunks if c["role"] == "memory")


def test_an_expired_session_is_remembered_too_and_a_guests_is_not(door):
    door.says("Hello", user_id="ann", phone=PHONE)
    door.says("Hello", user_id="guest")
    sweep.sweep(timezone.now() + timedelta(hours=25))
    Conversation.objects.update(remember_due_at=timezone.now())
    assert remember.remember_ended() == 1
    assert Conversation.objects.get().status == "expired"


def test_remembering_twice_is_remembering_once(door):
    ended(door)
    assert remember.remember_ended() == 1
    before = Conversation.objects.get()
    Conversation.objects.update(remember_due_at=timezone.now(), remembered_at=None)
    assert remember.remember_ended() == 1
    assert Conversation.objects.get().summary == before.summary


def test_what_fails_is_visible_and_tried_again(door, monkeypatch):
    ended(door)
    real = memory.remember

    def away(record, **_):
        raise memory.StoreError("away: I want a red roof", code="unavailable", retryable=True)

    monkeypatch.setattr(remember.memory, "remember", away)
    assert remember.remember_ended() == 0
    conversation = Conversation.objects.get()
    assert conversation.remember_error == "unavailable"
    assert conversation.remember_due_at > timezone.now()
    assert conversation.remember_attempts == 1
    assert remember.remember_ended() == 0, "not before it is due"

    monkeypatch.setattr(remember.memory, "remember", real)
    Conversation.objects.update(remember_due_at=timezone.now())
    assert remember.remember_ended() == 1
    assert Conversation.objects.get().remember_error == ""


@pytest.mark.parametrize("attempts", [998, 999, 1_000])
def test_a_session_that_could_not_be_remembered_for_weeks_is_tried_again(door, monkeypatch, settings, attempts):
    def fail(record, **more):
        raise memory.StoreError("away", code="unavailable", retryable=True)

    monkeypatch.setattr(memory, "remember", fail)
    ended(door)
    Conversation.objects.update(remember_attempts=attempts)
    before = timezone.now()
    assert remember.remember_ended() == 0
    conversation = Conversation.objects.get()
    assert conversation.remember_attempts == min(attempts + 1, 1_000)
    wait = conversation.remember_due_at - before
    assert settings.RETRY_MOST_SECONDS / 2 <= wait.total_seconds() < settings.RETRY_MOST_SECONDS + 60


def test_a_remembered_session_is_archived_after_its_time(door):
    pk = ended(door, message_id="m1")
    remember.remember_ended()
    now = timezone.now()
    assert archive.archive(now + timedelta(days=29)) == 0
    assert archive.archive(now + timedelta(days=31)) == 1

    seen = door.get(f"/conversations/{pk}")
    assert (seen["status"], seen["chunks"], seen["ended_by"]) == ("archived", [], "system")
    assert "red roof" in seen["summary"]
    assert not Chunk.objects.exists()
    assert not Message.objects.exists()
    assert ConversationEvent.objects.filter(kind="archived", from_status="closed").exists()
    assert memory.transcript(*Conversation.objects.values_list("client_id", "pk").get())
    assert archive.archive(now + timedelta(days=31)) == 0


def test_what_stands_beside_messages_goes_with_them_and_files_and_failed_turns_stay(door, shop):
    pk = ended(door, message_id="m1")
    mine = {"client_id": shop.pk, "conversation_id": pk}
    said, reply = (Chunk.objects.get(conversation=pk, role=role) for role in ("user", "ai"))
    Activity.objects.create(**mine, chunk=said, kind="reaction", text="+1", occurred_at=timezone.now())
    Feedback.objects.create(**mine, chunk=reply, rating="up")
    corrections.correct(pk, said.position, "I want a blue roof", actor=STAFF, now=timezone.now())
    photo = Attachment.objects.create(**mine, chunk=said, number=1, kind="image")
    failed = turn_of(Conversation.objects.get(), status="failed", ended_at=timezone.now())
    before = rows_with_a_chunk()
    assert set(before) == {Activity, Attachment, Correction, Feedback, Message, Turn}
    remember.remember_ended()
    assert archive.archive(timezone.now() + timedelta(days=31)) == 1
    assert rows_with_a_chunk() == {}
    photo.refresh_from_db()
    assert (photo.chunk_id, photo.position) == (None, said.position)
    assert list(Turn.objects.all()) == [failed]


def rows_with_a_chunk():
    """Return the models whose rows name a chunk, with the numbers of these rows."""
    counted = {}
    for model in apps.get_app_config("conversations").get_models():
        names = [field.name for field in model._meta.concrete_fields if field.related_model is Chunk]
        for name in names:
            counted[model] = model._default_manager.filter(**{f"{name}__isnull": False}).count()
    return {model: count for model, count in counted.items() if count}


def test_a_session_that_is_not_remembered_is_not_archived(door):
    ended(door)
    assert archive.archive(timezone.now() + timedelta(days=60)) == 0
    assert Chunk.objects.exists()


def test_archiving_at_once_still_knows_what_was_delivered(door):
    door.shop.archive_after = timedelta(0)
    door.shop.save()
    ended(door, message_id="m1")
    remember.remember_ended()
    assert archive.archive(timezone.now()) == 1
    assert MessageTombstone.objects.count() == 1
    assert door.says("I want a red roof", user_id="ann", message_id="m1")["duplicate"] is True


def test_the_command_counts_first(door):
    ended(door)
    remember.remember_ended()
    later = (timezone.now() + timedelta(days=31)).isoformat()
    out = io.StringIO()
    call_command("archive_conversations", "--dry-run", "--now", later, stdout=out)
    assert "would be archived: 1" in out.getvalue()
    assert Conversation.objects.get().status == "closed"
    call_command("archive_conversations", "--now", later, stdout=out)
    assert "Archived conversations: 1." in out.getvalue()


def test_a_correction_is_remembered_and_a_redaction_leaves_no_word_of_it(door):
    pk = ended(door)
    remember.remember_ended()
    corrections.correct(pk, 3, "I want a green roof", actor=STAFF, now=timezone.now())
    assert remember.remember_ended() == 1
    conversation = Conversation.objects.get()
    assert [e.content for e in memory.transcript(conversation.client_id, conversation.pk)][2] == "I want a green roof"
    assert "green roof" in conversation.summary
    assert "red roof" not in conversation.summary

    corrections.redact(pk, 3, actor=STAFF, now=timezone.now())
    assert remember.remember_ended() == 1
    conversation = Conversation.objects.get()
    assert conversation.summary
    for word in ("red roof", "green roof"):
        assert word not in conversation.summary
        assert word not in str(memory.transcript(conversation.client_id, conversation.pk))
        assert not memory.search(conversation.client_id, word).items


def test_a_summary_that_staff_wrote_stands(door):
    ended(door)
    remember.remember_ended()
    Conversation.objects.update(summary="Ann wants a roof.", remember_due_at=timezone.now())
    assert remember.remember_ended() == 1
    assert Conversation.objects.get().summary == "Ann wants a roof."
    assert Memory.objects.get().summary_kind == "staff"

    corrections.correct(Conversation.objects.get().pk, 3, "I want a roof", actor=STAFF, now=timezone.now())
    remember.remember_ended()
    assert Conversation.objects.get().summary == "Ann wants a roof."


def test_an_archived_transcript_is_read_from_memory_in_the_back_office(door):
    pk = ended(door)
    remember.remember_ended()
    archive.archive(timezone.now() + timedelta(days=31))
    page = sign_in("mona", door.shop, "manager").get(reverse("admin:conversations_conversation_change", args=[pk]))
    assert page.status_code == 200
    assert b"I want a red roof" in page.content
    assert b'data-open="redact"' not in page.content

"""The seven tests that seed 1 names, through the doors that a user has."""

from datetime import timedelta

import pytest
from django.utils import timezone

from conversations.models import Chunk, Contact, Conversation, ConversationEvent, Message, Step
from conversations.services.jobs import sweep
from tests.conftest import reply_to_all, send_all

pytestmark = pytest.mark.django_db


def test_a_first_message_opens_a_session(door):
    answer = door.says("Hello", message_id="m1")

    assert answer["created"] is True
    assert answer["duplicate"] is False
    assert answer["is_guest"] is True
    assert answer["status"] == "active"
    assert answer["position"] == 3
    seen = door.get(f"/conversations/{answer['conversation_id']}")
    assert seen["goal"] == "Handle inbound enquiry"
    assert [(c["position"], c["role"], c["content"]) for c in seen["chunks"]] == [
        (1, "system", "You are Ada, of the shop."),
        (2, "memory", "Nothing is known of this contact from earlier sessions."),
        (3, "user", "Hello"),
    ]
    assert ConversationEvent.objects.get().kind == "opened"


def test_a_second_message_is_appended(door):
    first = door.says("Hello")
    before = Conversation.objects.get().last_message_at
    second = door.says("Anybody?")

    assert second["conversation_id"] == first["conversation_id"]
    assert (second["created"], second["position"]) == (False, 4)
    assert Conversation.objects.get().last_message_at > before


def test_what_is_sent_is_appended_and_goes_out(door):
    conversation_id = door.says("Hello")["conversation_id"]
    status, envelope = door.call("POST", f"/conversations/{conversation_id}/send", {"role": "ai", "content": "Hi Ann"})

    assert status == 201
    assert envelope["data"]["chunk"]["role"] == "ai"
    assert [m["status"] for m in envelope["data"]["messages"]] == ["queued"]
    send_all()
    message = Message.objects.get()
    assert (message.status, message.text, message.to_address) == ("delivered", "Hi Ann", "ann")
    assert reply_to_all() == 0, "a send settles the reply that was owed"


def test_steps_are_added_completed_and_cancelled(door):
    conversation_id = door.says("Hello")["conversation_id"]
    status, envelope = door.call("POST", f"/conversations/{conversation_id}/steps", {"description": "Ask the name"})
    assert (status, envelope["data"]["status"]) == (201, "pending")
    path = f"/conversations/{conversation_id}/steps/{envelope['data']['id']}"

    assert door.call("PATCH", path, {"status": "complete"})[0] == 200
    assert door.call("PATCH", path, {"status": "complete"})[0] == 200
    status, envelope = door.call("PATCH", path, {"status": "cancelled"})

    assert (status, envelope["code"]) == (409, "step_is_final")
    assert Step.objects.get().status == "complete"
    assert list(ConversationEvent.objects.filter(kind__startswith="step_").values_list("kind", flat=True)) == [
        "step_added",
        "step_complete",
    ]


def test_sessions_become_stale_and_expire(door):
    answer = door.says("Hello", phone="+51999999999")
    now = timezone.now()

    assert sweep.sweep(now + timedelta(minutes=9)).stale == 0
    assert sweep.sweep(now + timedelta(minutes=11)).stale == 1
    assert door.says("Still there?", phone="+51999999999")["conversation_id"] == answer["conversation_id"]
    assert Conversation.objects.get().status == "active"
    assert sweep.sweep(now + timedelta(hours=25)).expired == 1

    conversation = Conversation.objects.get()
    assert (conversation.status, conversation.ended_by) == ("expired", "timeout")
    assert list(conversation.events.values_list("kind", flat=True)) == ["opened", "stale", "revived", "expired"]
    again = door.says("Hello again")
    assert again["created"] is True
    assert again["conversation_id"] != answer["conversation_id"]


def test_an_expired_guest_is_deleted_with_everything_below(door):
    answer = door.says("Hello", message_id="m1")
    reply_to_all()
    send_all()
    door.call("POST", f"/conversations/{answer['conversation_id']}/steps", {"description": "Ask the name"})

    report = sweep.sweep(timezone.now() + timedelta(hours=25))

    assert (report.expired, report.purged) == (1, 1)
    for model in (Conversation, Chunk, Step, Message, ConversationEvent, Contact):
        assert not model.objects.exists(), model
    late = door.says("Hello", message_id="m1")
    assert (late["duplicate"], late["status"], late["conversation_id"]) == (True, "deleted", None)
    assert not Conversation.objects.exists(), "a message redelivered after the purge opens nothing"


def test_a_session_is_read_with_its_last_chunks_and_steps(door):
    for number in range(12):
        conversation_id = door.says(f"message {number}")["conversation_id"]
    door.call("POST", f"/conversations/{conversation_id}/steps", {"description": "Ask the name"})

    seen = door.get(f"/conversations/{conversation_id}")

    assert [c["content"] for c in seen["chunks"]] == [f"message {n}" for n in range(2, 12)]
    assert [(s["description"], s["status"]) for s in seen["steps"]] == [("Ask the name", "pending")]
    assert seen["summary"] == ""
    assert len(door.get(f"/conversations/{conversation_id}?chunks=100")["chunks"]) == 14

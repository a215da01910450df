"""Notes of staff beside conversations: responsibility, priority, labels, snoozes, notes, drafts, what was seen."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from conversations.admin.access import Role
from conversations.models import (
    CannedReply,
    Client,
    Conversation,
    ConversationEvent,
    ConversationLabel,
    Draft,
    Label,
    Mention,
    SeenPosition,
    StaffNote,
)
from conversations.services.core.ledger import Actor
from conversations.services.transitions import closing, takeover
from tests import factories
from tests.conftest import Door, reply_to_all
from tests.conversations.back_office import do, page_of
from tests.conversations.staff import signed_in, staff
from tests.conversations.test_inbox import conversation_of, names

pytestmark = pytest.mark.django_db


@pytest.fixture
def agnes(shop: Client) -> Any:
    """An agent of the shop."""
    return staff("agnes", shop=Role.AGENT)


@pytest.fixture
def max_(shop: Client) -> Any:
    """Another agent of the shop."""
    return staff("max", shop=Role.AGENT)


def waits(door: Door, user_id: str = "ann") -> Conversation:
    """Return the conversation of somebody who waits for a person."""
    door.says("Hello", user_id=user_id, name=user_id)
    takeover.take_over(conversation_of(user_id).pk, actor=Actor("system"), now=timezone.now())
    return conversation_of(user_id)


def post(http: Any, conversation: Conversation, what: str, **fields: Any) -> int:
    status: int = http.post(f"/admin/inbox/{conversation.pk}/{what}/", fields).status_code
    return status


# --- responsibility ---------------------------------------------------------------------------------------------------
def test_an_assigned_conversation_is_the_colleagues_and_nobody_elses(door: Door, agnes: Any, max_: Any) -> None:
    conversation = waits(door)
    mine, theirs = signed_in(agnes), signed_in(max_)
    assert names(mine, tab="unassigned") == ["ann"]
    assert do(mine, conversation, "assign-person", user=max_.pk)[0] == 200
    assert (names(theirs, tab="mine"), names(mine, tab="unassigned")) == (["ann"], [])
    assert do(mine, conversation, "assign-person", user=max_.pk)[0] == 200  # once more changes nothing
    assert ConversationEvent.objects.filter(kind="assigned_to", cause="max").count() == 1
    takeover.take_over(conversation.pk, actor=Actor("staff", "agnes", agnes.pk), now=timezone.now())
    assert (names(theirs, tab="mine"), names(mine, tab="mine")) == ([], ["ann"])


def test_nobody_is_assigned_who_may_not_answer(door: Door, agnes: Any, neighbour: Client) -> None:
    conversation = waits(door)
    foreign, viewer = staff("frank", **{neighbour.sub_domain: Role.AGENT}), staff("vera", shop=Role.VIEWER)
    for user in (foreign, viewer):
        assert do(signed_in(agnes), conversation, "assign-person", user=user.pk)[0] == 404
    assert do(signed_in(viewer), conversation, "assign-person", user=viewer.pk)[0] == 403
    assert names(signed_in(agnes), tab="unassigned") == ["ann"]


# --- snooze, priority, labels -----------------------------------------------------------------------------------------
def test_a_snoozed_conversation_comes_back_with_the_next_message(door: Door, agnes: Any) -> None:
    conversation, http = waits(door), signed_in(agnes)
    until = (timezone.now() + timedelta(hours=4)).isoformat()
    assert do(http, conversation, "snooze", until=until)[0] == 200
    assert (names(http), names(http, tab="unassigned"), names(http, tab="snoozed")) == ([], [], ["ann"])
    door.says("Still there?")
    assert (names(http), names(http, tab="snoozed")) == (["ann"], [])


def test_a_snooze_is_over_at_its_time_or_when_it_is_ended(door: Door, agnes: Any) -> None:
    conversation, http = waits(door), signed_in(agnes)
    for until in ("", "soon", "2026-01-01T00:00:00Z", "2999-01-01T00:00:00Z", "2026-12-01T00:00:00"):
        assert do(http, conversation, "snooze", until=until)[0] == 409, until
    do(http, conversation, "snooze", until=(timezone.now() + timedelta(hours=4)).isoformat())
    assert do(http, conversation, "wake")[0] == 200
    assert names(http) == ["ann"]


def test_labels_are_made_found_and_taken_off(door: Door, agnes: Any, neighbour: Client) -> None:
    conversation, http = waits(door), signed_in(agnes)
    waits(door, "bob")
    theirs = Label.objects.create(client=neighbour, name="VIP")
    for name in ("VIP", " vip ", "Vip"):
        assert do(http, conversation, "label", name=name)[0] == 200
    [label] = Label.objects.filter(client=conversation.client)
    assert names(http, label=str(label.pk)) == ["ann"]
    assert names(http, label=str(theirs.pk)) == []
    assert do(http, conversation, "unlabel", label=label.pk)[0] == 200
    assert not ConversationLabel.objects.exists()
    for name in (" ", "x" * 41):
        assert do(http, conversation, "label", name=name)[0] == 409


def test_a_priority_is_shown_and_one_that_does_not_exist_is_refused(door: Door, agnes: Any) -> None:
    conversation, http = waits(door), signed_in(agnes)
    assert do(http, conversation, "prioritise", priority=2)[0] == 200
    assert http.get("/admin/inbox/").context["rows"][0].priority == "Urgent"
    assert do(http, conversation, "prioritise", priority=7)[0] == 409


# --- notes ------------------------------------------------------------------------------------------------------------
def test_a_note_that_mentions_a_colleague_reaches_them_and_nobody_else(
    door: Door, agnes: Any, max_: Any, neighbour: Client
) -> None:
    conversation = waits(door)
    staff("frank", **{neighbour.sub_domain: Role.AGENT})
    text = "@max, please look. @frank @agnes @nobody max@example.com"
    status, said = do(signed_in(agnes), conversation, "note", text=text)
    assert (status, said["said"]) == (200, "The note is kept, and max will see it.")
    theirs = signed_in(max_)
    assert names(theirs, tab="mentions") == ["ann"]
    assert theirs.get("/admin/inbox/list/").json()["counts"]["mentions"] == 1
    assert names(signed_in(agnes), tab="mentions") == []
    assert "please look" in theirs.get(f"/admin/inbox/{conversation.pk}/").content.decode()
    assert post(theirs, conversation, "seen", position=3) == 204
    assert theirs.get("/admin/inbox/list/").json()["counts"]["mentions"] == 0


def test_a_note_is_for_staff_alone(door: Door, agnes: Any) -> None:
    conversation = waits(door)
    do(signed_in(agnes), conversation, "note", text="Zanzibar")
    takeover.hand_back(conversation.pk, actor=Actor("system"), now=timezone.now())
    door.says("And?")
    reply_to_all()
    told = door.get(f"/conversations/{conversation.pk}")
    prompts = Conversation.objects.get().turns.values_list("prompt", flat=True)
    assert "Zanzibar" not in f"{told} {list(prompts)}"


def test_a_note_is_kept_in_an_ended_conversation_too_and_a_viewer_reads_it(door: Door, agnes: Any) -> None:
    conversation = waits(door)
    closing.close(conversation.pk, ended_by="system", actor=Actor("system"), now=timezone.now())
    assert do(signed_in(agnes), conversation, "note", text="Refunded")[0] == 200
    viewer = signed_in(staff("vera", shop=Role.VIEWER))
    assert "Refunded" in viewer.get(f"/admin/inbox/{conversation.pk}/").content.decode()
    assert do(viewer, conversation, "note", text="Mine")[0] == 403
    assert StaffNote.objects.count() == 1


# --- one's own --------------------------------------------------------------------------------------------------------
def test_two_drafts_stand_beside_each_other_and_sending_deletes_ones_own(door: Door, agnes: Any, max_: Any) -> None:
    conversation = waits(door)
    mine, theirs = signed_in(agnes), signed_in(max_)
    assert post(mine, conversation, "draft", text="Dear Ann") == 204
    assert post(theirs, conversation, "draft", text="Hello Ann") == 204
    assert post(mine, conversation, "draft", text="Dear Ann, it is") == 204
    page = mine.get(f"/admin/inbox/{conversation.pk}/").content.decode()
    assert "Dear Ann, it is</textarea>" in page
    assert "Hello Ann" not in page
    assert do(mine, conversation, "reply", text="Dear Ann, it is here.")[0] == 200
    assert list(Draft.objects.values_list("user__username", "text")) == [("max", "Hello Ann")]
    assert post(theirs, conversation, "draft", text=" ") == 204
    assert not Draft.objects.exists()


def test_what_was_not_seen_is_unread_for_me_alone(door: Door, agnes: Any, max_: Any) -> None:
    conversation = waits(door)
    mine, theirs = signed_in(agnes), signed_in(max_)

    def is_unread(http: Any) -> bool:
        unread: bool = http.get("/admin/inbox/").context["rows"][0].row.is_unread
        return unread

    assert is_unread(mine)
    post(mine, conversation, "seen", position=10_000)
    assert (is_unread(mine), is_unread(theirs)) == (False, True)
    assert SeenPosition.objects.get().position == Conversation.objects.get().last_position
    post(mine, conversation, "seen", position=1)  # an answer that comes late changes nothing
    assert not is_unread(mine)
    door.says("Hello?")
    assert is_unread(mine)


def test_another_clients_conversation_takes_nothing(door: Door, agnes: Any, neighbour: Client) -> None:
    theirs = factories.ConversationFactory(client=neighbour)
    http = signed_in(agnes)
    for what in ("draft", "seen"):
        assert post(http, theirs, what, text="x", position=1) == 404
    assert http.get(f"/admin/inbox/{theirs.pk}/choices/").status_code == 404
    for action in ("assign-person", "prioritise", "snooze", "label", "note"):
        assert http.post(f"{page_of(theirs).replace('change', 'do')}{action}/").status_code == 404
    for model in (Draft, SeenPosition, StaffNote):
        assert not model.objects.exists()
    viewer = signed_in(staff("vera", shop=Role.VIEWER))
    assert post(viewer, waits(door), "draft", text="x") == 403


def test_canned_replies_are_filled_in_for_the_person(door: Door, agnes: Any, shop: Client, neighbour: Client) -> None:
    text = "Hello {first_name} ({name}), {agent} of {client} here. {unknown}"
    CannedReply.objects.create(client=shop, shortcut="hello", text=text)
    CannedReply.objects.create(client=neighbour, shortcut="theirs", text="Zanzibar")
    door.says("Hi", name="Ann {agent}")
    offered = signed_in(agnes).get(f"/admin/inbox/{Conversation.objects.get().pk}/choices/").json()
    assert offered["canned"] == [["hello", "Hello Ann (Ann {agent}), agnes of Shop here. {unknown}"]]
    assert offered["colleagues"] == ["agnes"]


def test_what_was_noted_goes_with_the_conversation(door: Door, agnes: Any, max_: Any) -> None:
    conversation = waits(door)
    do(signed_in(agnes), conversation, "note", text="@max")
    do(signed_in(agnes), conversation, "label", name="vip")
    post(signed_in(agnes), conversation, "draft", text="Dear Ann")
    Conversation.objects.filter(pk=conversation.pk).delete()
    for model in (StaffNote, Mention, ConversationLabel, Draft):
        assert not model.objects.exists(), model

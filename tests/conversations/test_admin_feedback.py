"""What users thought of the copilot's replies, for those who look after the assistants."""

from __future__ import annotations

import re

import pytest
from django.urls import reverse
from django.utils import timezone

from conversations.engines.contract import Reply
from conversations.models import Chunk, Client, Conversation, Feedback
from conversations.services.copilot import sessions, turns
from conversations.services.copilot.sessions import User
from conversations.services.copilot.turns import UserMessage
from conversations.services.core.ledger import Actor
from conversations.services.replies import leases, pipeline
from conversations.services.staff_actions import corrections
from tests import factories
from tests.conversations.back_office import sign_in
from tests.copilot.reading import user
from tests.named_clients import IN_CLUSTER

pytestmark = pytest.mark.django_db(transaction=IN_CLUSTER)  # there no two roles write in one transaction
LIST = reverse("admin:conversations_feedback_changelist")


def roofers(name: str) -> Client:
    client = factories.ClientFactory(name=name, sub_domain=name.lower())
    for key in ("field", "pm"):
        factories.AssistantFactory(client=client, key=key, name=f"{key} of {name}", in_copilot=True, is_default=False)
    return client


def rated(client: Client, rating: str, note: str = "", role: str = "field", said: str = "Nails, 60 mm.") -> Chunk:
    """A user asked, was answered, and thought so."""
    member = user(f"{client.sub_domain}-{rating}-{role}-{Feedback.objects.count()}", client)
    who, now = User(member.pk, member.username), timezone.now()
    turns.ask(who, UserMessage("Which nails?", role=role, client=client.sub_domain), now)
    [claim] = leases.claim_streamed(now, 5)
    pipeline.commit(claim, Reply(said, "offline"), now)
    chunk = Chunk.objects.filter(conversation=claim.conversation_id).latest("position")
    sessions.give_feedback(who, chunk.pk, rating, note, now)
    return chunk


@pytest.fixture
def ours(db) -> Client:
    return roofers("Roofers")


def rows(html: bytes) -> list[str]:
    """The notes of the rows that are shown."""
    return re.findall(r"note-[a-z]+", html.decode())


def test_staff_see_what_users_thought_and_come_to_the_very_reply(ours):
    chunk = rated(ours, "down", "note-wrong <script>", said="Nails, <b>60</b> mm.")
    vera = sign_in("vera", ours, "viewer")
    page = vera.get(LIST).content.decode()
    assert "note-wrong &lt;script&gt;" in page
    assert "Nails, &lt;b&gt;60&lt;/b&gt; mm." in page
    assert "field of Roofers" in page
    [link] = re.findall(r'href="([^"]*\?at=[0-9]+)"', page)
    assert link.endswith(f"?at={chunk.position}")
    transcript = vera.get(link).content.decode()
    assert f'data-at="{chunk.position}"' in transcript
    assert f'data-position="{chunk.position}"' in transcript
    assert "Feedback" in sign_in("mona", ours, "manager").get("/admin/").content.decode()


def test_it_is_narrowed_down_by_thumbs_assistant_and_role(ours):
    rated(ours, "up", "note-up")
    rated(ours, "down", "note-down")
    pm = rated(ours, "down", "note-pm", role="pm")
    mona = sign_in("mona", ours, "manager")
    assert sorted(rows(mona.get(LIST).content)) == ["note-down", "note-pm", "note-up"]
    assert rows(mona.get(LIST, {"rating__exact": "up"}).content) == ["note-up"]
    assert rows(mona.get(LIST, {"role": "pm"}).content) == ["note-pm"]
    assistant = pm.conversation.assistant_id
    assert rows(mona.get(LIST, {"conversation__assistant__id__exact": assistant}).content) == ["note-pm"]
    assert rows(mona.get(LIST, {"rating__exact": "up", "role": "pm"}).content) == []


def test_another_client_s_feedback_does_not_exist(ours):
    theirs = roofers("Plumbers")
    rated(theirs, "down", "note-theirs", role="pm")
    chunk = Feedback.objects.get().pk
    agnes = sign_in("agnes", ours, "agent")
    page = agnes.get(LIST)
    assert rows(page.content) == []
    assert b"Plumbers" not in page.content
    assistant = Conversation.objects.get().assistant_id
    assert rows(agnes.get(LIST, {"conversation__assistant__id__exact": assistant}).content) == []
    assert agnes.get(reverse("admin:conversations_feedback_change", args=[chunk])).status_code == 302
    assert rows(sign_in("root").get(LIST).content) == ["note-theirs"]


def test_a_correction_and_a_redaction_reach_the_list(ours):
    chunk = rated(ours, "down", "note-x", said="Nails, secret.")
    mona = sign_in("mona", ours, "manager")
    grace = Actor("staff", "grace")
    corrections.correct(chunk.conversation_id, chunk.position, "Screws.", actor=grace, now=timezone.now())
    assert b"Screws." in mona.get(LIST).content
    corrections.redact(chunk.conversation_id, chunk.position, actor=grace, now=timezone.now())
    page = mona.get(LIST).content
    assert b"secret" not in page
    assert b"Screws" not in page


@pytest.mark.parametrize("at", ["0", "-1", "99999999999999999999", "x", "2147483647", ""])
def test_a_position_that_is_none_shows_the_newest(ours, at):
    chunk = rated(ours, "up")
    page = reverse("admin:conversations_conversation_change", args=[chunk.conversation_id])
    assert b"Nails, 60 mm." in sign_in("mona", ours, "manager").get(page, {"at": at}).content


def test_an_entry_far_back_is_on_the_page_that_the_link_opens(ours):
    chunk = rated(ours, "down")
    conversation = chunk.conversation
    later = [
        Chunk(
            conversation=conversation,
            position=chunk.position + n,
            role="user",
            content=f"later {n}",
            created_at=timezone.now(),
        )
        for n in range(1, 300)
    ]
    Chunk.objects.bulk_create(later)
    Conversation.objects.update(last_position=chunk.position + 299, inbound_sequence=300)
    page = reverse("admin:conversations_conversation_change", args=[conversation.pk])
    shown = sign_in("mona", ours, "manager").get(page, {"at": chunk.position}).content.decode()
    assert f'data-position="{chunk.position}"' in shown
    assert "later 200" not in shown

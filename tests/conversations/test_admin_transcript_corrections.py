"""Corrections stay beside what was said; redactions take it away, wherever it was written down."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from conversations.models import Chunk, Conversation, ConversationEvent, Correction, Message, Turn
from conversations.services.core.ledger import SYSTEM
from conversations.services.replies import leases, pipeline
from conversations.services.staff_actions import corrections, seed_helpers
from tests.conftest import reply_to_all, send_all
from tests.conversations.back_office import do, news, page_of

pytestmark = pytest.mark.django_db

SECRET = "My password is tangerine4711"


def database_text() -> str:
    """All that the database holds of sessions, as text."""
    tables = (
        *("conversations", "conversation_chunks", "conversation_messages", "conversation_turns"),
        *("conversation_events", "chunk_corrections", "conversation_steps"),
    )
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(f"SELECT t::text FROM {table} t" for table in tables))
        return "\n".join(line for [line] in cursor.fetchall())


def test_a_correction_is_shown_with_its_author_and_the_original_beside_it(manager, session):
    status, said = do(manager, session, "correct", position=3, text="Where is my <b>package</b>?")
    assert status == 200
    [[position, bubble]] = said["bubbles"]
    assert position == 3
    assert "Where is my &lt;b&gt;package&lt;/b&gt;?" in bubble
    assert "Corrected by <bdi>mona</bdi>" in bubble
    assert "Originally:" in bubble
    assert "Where is my parcel?" in bubble
    assert session.chunks.get(position=3).content == "Where is my parcel?"
    line = ConversationEvent.objects.get(kind="chunk_corrected")
    assert (line.actor, line.actor_name, line.data) == ("staff", "mona", {"position": 3})


def test_the_prompt_reads_the_newest_correction(manager, session, door):
    do(manager, session, "correct", position=3, text="First try")
    do(manager, session, "correct", position=3, text="Second try")
    do(manager, session, "correct", position=1, text="You are Bob.")
    door.says("Well?")
    reply_to_all()
    prompt = json.dumps(Turn.objects.latest("started_at").prompt)
    assert "Second try" in prompt
    assert "You are Bob." in prompt
    assert "First try" not in prompt
    assert "Where is my parcel?" not in prompt


def test_the_same_correction_again_changes_nothing(manager, session):
    do(manager, session, "correct", position=3, text="Where is my parcel?")
    assert not Correction.objects.exists()
    for _ in range(2):
        do(manager, session, "correct", position=3, text="Else")
    assert Correction.objects.count() == 1


def test_a_redaction_leaves_the_text_nowhere(manager, session, door):
    door.says(SECRET)
    reply_to_all()
    send_all()
    door.says("Did you get it?")
    reply_to_all()
    send_all()
    position = Chunk.objects.get(content=SECRET).position
    do(manager, session, "correct", position=position, text=SECRET + " (Visa)")
    Conversation.objects.update(summary=f"Ann said: {SECRET}.", goal=SECRET)
    seed_helpers.add_step(session.pk, f"Check: {SECRET}")
    Chunk.objects.filter(position=position).update(metadata={"caption": SECRET})
    assert database_text().count("tangerine4711") > 3

    status, said = do(manager, session, "redact", position=position, reason="Card number")
    assert status == 200
    assert "Redacted by <bdi>mona</bdi>" in said["bubbles"][0][1]
    assert "Card number" in said["bubbles"][0][1]
    left = database_text()
    # The offline engine's replies do not quote it; were they to, each is an entry that can be redacted too.
    assert "tangerine4711" not in left
    assert "[redacted]" in left
    session.refresh_from_db()
    assert session.summary == "Ann said: [redacted]."
    line = ConversationEvent.objects.get(kind="chunk_redacted")
    assert (line.actor_name, line.cause) == ("mona", "Card number")


def test_what_was_redacted_stays_so(manager, session):
    do(manager, session, "redact", position=3)
    assert do(manager, session, "redact", position=3)[0] == 200
    assert Correction.objects.count() == 1
    status, said = do(manager, session, "correct", position=3, text="Again")
    assert (status, said["said"]) == (409, "This message is redacted. It cannot be corrected.")
    shown = [bubble for position, bubble in news(manager, session).json()["bubbles"] if position == 3]
    assert 'data-open="correct"' not in shown[0]


def test_what_we_said_is_gone_from_its_messages_and_not_sent_any_more(manager, session):
    do(manager, session, "reply", text=SECRET)
    position = Chunk.objects.latest("id").position
    do(manager, session, "redact", position=position)
    assert send_all() == 0
    message = Message.objects.get(chunk__position=position)
    assert (message.status, message.code, message.text) == ("cancelled", "redacted", "[redacted]")
    assert "tangerine4711" not in database_text()


def test_a_long_text_that_a_prompt_shortened_is_gone_too(manager, session, door):
    long = (
        "BEGINNING of it, a secret of some length indeed. "
        + "x y z " * 20_000
        + "The END of it, and a secret as well, indeed."
    )
    door.says(long)
    reply_to_all()
    position = Chunk.objects.get(content=long).position
    assert "BEGINNING" in database_text()
    do(manager, session, "redact", position=position)
    assert "BEGINNING" not in database_text()
    assert "The END" not in database_text()


def test_a_short_text_is_removed_where_it_stands_alone_and_not_inside_words(manager, session, door):
    door.says("ok")
    reply_to_all()
    Conversation.objects.update(summary="A book about tokens.")
    do(manager, session, "redact", position=Chunk.objects.get(content="ok").position)
    session.refresh_from_db()
    assert session.summary == "A book about tokens."
    contents = [
        message["content"] for turn in Turn.objects.all() for message in (turn.prompt or {}).get("messages", [])
    ]
    assert "ok" not in contents
    assert "[redacted]" in contents


def test_a_turn_that_is_being_written_is_given_up_and_begun_anew_without_the_text(session, door):
    door.says(SECRET)
    [claim] = leases.claim(timezone.now(), 10)
    pipeline.prepare(claim)
    corrections.redact(session.pk, Chunk.objects.get(content=SECRET).position, actor=SYSTEM, now=timezone.now())
    assert pipeline.prepare(claim) is None
    assert "tangerine4711" not in database_text()
    reply_to_all()
    assert Turn.objects.filter(status="committed").count() == 2
    assert "tangerine4711" not in database_text()


@pytest.mark.parametrize("who", ["viewer", "agent"])
def test_only_managers_correct_and_redact(who, request, session):
    http = request.getfixturevalue(who)
    for action in ("correct", "redact"):
        assert do(http, session, action, position=3, text="Else")[0] == 403
    html = http.get(page_of(session)).content.decode()
    assert "data-open" not in html
    assert '<dialog class="cv-dialog"' not in html
    assert not Correction.objects.exists()


def test_an_entry_that_is_not_there_cannot_be_corrected(manager, session):
    for wrong in ("0", "999", "x", ""):
        assert do(manager, session, "correct", position=wrong, text="Else")[0] == 404
        assert do(manager, session, "redact", position=wrong)[0] == 404


def test_an_ended_session_is_corrected_too_and_remembered_anew(manager, session):
    do(manager, session, "close")
    Conversation.objects.update(remembered_at=timezone.now(), remember_due_at=None)
    do(manager, session, "redact", position=3)
    session.refresh_from_db()
    assert session.remember_due_at is not None


def test_corrections_go_with_their_session(manager, session):
    seed_helpers.append_chunk(session.pk, "user", "Hi")
    do(manager, session, "correct", position=3, text="Else")
    later = timezone.now() + timedelta(days=1)
    Conversation.objects.update(status="expired", is_guest=True, ended_at=later, ended_by="timeout", reply_owed=False)
    seed_helpers.delete_guest_expired()
    Conversation.objects.update(ended_at=timezone.now())
    assert seed_helpers.delete_guest_expired() == 1
    assert not Correction.objects.exists()

"""A transcript as JSON, CSV and a page: whole, as it should be read, and harmless to whoever opens it."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from conversations.models import Conversation, ConversationEvent
from conversations.services.core.ledger import SYSTEM
from conversations.services.core.sql import rows
from conversations.services.export import transcripts
from conversations.services.history import archive, remember
from conversations.services.staff_actions import corrections, seed_helpers
from conversations.services.transitions import closing
from tests.factories import ConversationFactory

pytestmark = pytest.mark.django_db

HOSTILE = [
    '=HYPERLINK("http://evil","x")',
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(1)",
    "\t=1",
    "\r\n=1",
    "  =1+1",
    "\u200b=1",
    "＝1+1",
    "</p><script>alert(1)</script>",
    "\u202egnp.exe",
    'He said "no", twice',
]


def csv_of(content: bytes) -> list[dict[str, str]]:
    assert content.startswith(b"\xef\xbb\xbf")
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def fetch(server, session, form=""):
    answer = server.call("GET", f"/conversations/{session.pk}/transcript{form and '?format=' + form}")
    assert answer.status == 200, answer.body
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    assert answer.headers["Cache-Control"] == "no-store"
    return answer


def test_the_three_forms_tell_the_same_as_it_should_be_read(server, session):
    seed_helpers.append_chunk(session.pk, "user", "My card is 4111-zebra")
    corrections.correct(session.pk, 3, "Where is my <package>?", actor=SYSTEM, now=timezone.now())
    corrections.redact(session.pk, 5, actor=SYSTEM, now=timezone.now())

    told = fetch(server, session).json
    assert told["success"] is True
    assert told["data"]["contact"] == {"user_id": "ann", "name": "Ann", "phone": "+51999999999"}
    chunks = told["data"]["chunks"]
    assert [chunk["position"] for chunk in chunks] == [1, 2, 3, 4, 5]
    assert (chunks[2]["content"], chunks[2]["original"]) == ("Where is my <package>?", "Where is my parcel?")
    assert chunks[3]["delivery"] == ["delivered"]

    json_lines = csv_of(fetch(server, session, "csv").body)
    assert [line["text"] for line in json_lines] == [chunk["content"] for chunk in chunks]
    assert (json_lines[2]["original"], json_lines[3]["delivery"]) == ("Where is my parcel?", "delivered")

    page = fetch(server, session, "html")
    html = page.body.decode()
    assert "Where is my &lt;package&gt;?" in html
    assert "Original: Where is my parcel?" in html
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.headers["Content-Disposition"].startswith("inline")
    for form in ("json", "csv", "html"):
        assert b"4111-zebra" not in fetch(server, session, form).body


def test_what_people_write_is_a_formula_nowhere_and_markup_nowhere(server, session):
    for words in HOSTILE:
        seed_helpers.append_chunk(session.pk, "user", words)
    json_lines = csv_of(fetch(server, session, "csv").body)
    assert [line["text"].removeprefix("'") for line in json_lines[4:]] == HOSTILE
    assert [line["text"].startswith("'") for line in json_lines[4:]] == [True] * 9 + [False] * 3
    page = fetch(server, session, "html")
    html = page.body.decode()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "\u202e" not in html
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    for outside in ("http:", "https:", "src=", "href=", "url("):
        assert outside not in html.replace("http://evil", "")


def test_an_archived_session_s_transcript_comes_from_memory(server, session):
    closing.close(session.pk, ended_by="user", actor=SYSTEM, now=timezone.now())
    before = fetch(server, session).json["data"]["chunks"]
    assert remember.remember_ended() == 1
    archive.archive(timezone.now() + timedelta(days=31))
    session.refresh_from_db()
    assert session.status == "archived"
    assert not session.chunks.exists()
    after = fetch(server, session).json["data"]["chunks"]
    assert after == [{name: value for name, value in chunk.items() if name != "delivery"} for chunk in before]
    assert len(csv_of(fetch(server, session, "csv").body)) == len(before)


def test_an_unknown_form_is_refused_and_a_session_without_a_word_is_a_document_too(server, shop):
    session = ConversationFactory(client=shop)
    answer = server.call("GET", f"/conversations/{session.pk}/transcript?format=xml")
    assert (answer.status, answer.json["code"]) == (400, "invalid")
    assert fetch(server, session).json["data"]["chunks"] == []
    assert csv_of(fetch(server, session, "csv").body) == []


@pytest.mark.parametrize(("form", "entries"), [("json", 10_000), ("csv", 10_000), ("html", 2_000)])
def test_a_session_of_ten_thousand_entries_is_never_in_memory_at_once(shop, form, entries):
    session = ConversationFactory(client=shop, last_position=entries)
    rows(
        """
        INSERT INTO conversation_chunks (client_id, conversation_id, position, role, content, created_at)
        SELECT $3, $1, n, 'user', repeat('a', 10000000 / $2) || n, now() FROM generate_series(1, $2) n RETURNING id
        """,
        session.pk,
        entries,
        shop.pk,
    )
    session = Conversation.objects.select_related("contact", "client", "assistant").get(pk=session.pk)
    pieces = transcripts.FORMATS[form].pieces(session)
    written = len(next(pieces))  # templates and the like are loaded
    tracemalloc.start()
    try:
        written += sum(map(len, pieces))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert written > 10_000_000
    assert peak < 5_000_000, peak


@pytest.mark.parametrize("form", ["json", "csv", "html"])
def test_managers_take_it_from_the_session_s_page_and_the_ledger_says_so(manager, session, form):
    page = manager.get(reverse("admin:conversations_conversation_change", args=[session.pk])).content.decode()
    address = reverse("admin:conversations_conversation_export", args=[session.pk, form])
    assert address in page
    answer = manager.post(address)
    assert answer.status_code == 200
    assert b"Where is my parcel?" in b"".join(answer.streaming_content)
    event = ConversationEvent.objects.get(kind="exported")
    assert (event.actor_name, event.cause) == ("mona", form)


def test_nobody_else_does(agent, manager, session, neighbour):
    address = reverse("admin:conversations_conversation_export", args=[session.pk, "csv"])
    assert agent.post(address).status_code == 403
    assert (
        address not in agent.get(reverse("admin:conversations_conversation_change", args=[session.pk])).content.decode()
    )
    assert manager.get(address).status_code == 405
    theirs = ConversationFactory(client=neighbour)
    for pk, form in ((theirs.pk, "csv"), (session.pk, "xml")):
        assert manager.post(reverse("admin:conversations_conversation_export", args=[pk, form])).status_code == 404
    assert not ConversationEvent.objects.filter(kind="exported").exists()


def test_json_lines_and_the_transcript_are_the_same_object(server, session):
    from conversations.services.export.sessions import json_lines

    [line] = b"".join(json_lines({session.pk: session.client_id}, actor=SYSTEM)).splitlines()
    assert json.loads(line) == fetch(server, session).json["data"]

"""All that is known of a person, in one file: nothing is missing, nothing of others, nothing that was redacted."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import tracemalloc
from typing import Any
from zipfile import ZipFile

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.urls import reverse
from django.utils import timezone

from conversations.models import (
    Contact,
    ContactIdentity,
    ContactMatch,
    Conversation,
    ConversationEvent,
    Delta,
    InboundEvent,
    StaffAction,
)
from conversations.services.core.errors import NotFoundError
from conversations.services.core.ledger import SYSTEM
from conversations.services.core.sql import rows
from conversations.services.export import person
from conversations.services.history import remember
from conversations.services.staff_actions import corrections, send
from conversations.services.transitions import closing
from tests.conftest import reply_to_all, send_all
from tests.conversations.back_office import sign_in
from tests.factories import ContactFactory, ConversationFactory

pytestmark = pytest.mark.django_db

PHONE = "+51999000077"


def a_life(door: Any) -> Contact:
    """Somebody with an ended and remembered session, an open one, a step, corrections and a kept payload."""
    who = {"user_id": "zeb-77", "phone": PHONE, "name": "Zebulon"}
    first = door.says("My Quagmire leaks", message_id="m1", **who)["conversation_id"]
    reply_to_all()
    send_all()
    door.says("It is the second pipe", message_id="m1b", **who)
    door.call("POST", f"/conversations/{first}/steps", {"description": "Mend it"}, **{"Idempotency-Key": "1"})
    closing.close(first, ended_by="system", actor=SYSTEM, now=timezone.now(), reason="mended")
    remember.remember_ended()
    second = door.says("My secret is swordfish", message_id="m2", **who)["conversation_id"]
    send.send(second, "Dear Zebulon", actor=SYSTEM, now=timezone.now())
    contact = Contact.objects.get(user_id="zeb-77")
    InboundEvent.objects.create(
        client=contact.client, provider="whatsapp", kind="reaction", reason="not_a_turn", raw={"from": PHONE[1:]}
    )
    door.says("I am somebody else", user_id="bob")
    return contact


def unzipped(pieces: Any) -> tuple[dict[str, list[dict[str, Any]]], str, dict[str, Any]]:
    """The rows of each kind, the page, and the manifest."""
    with ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        assert archive.testzip() is None
        files = {name: archive.read(name).decode() for name in archive.namelist()}
    page, manifest = files.pop("index.html"), json.loads(files.pop("manifest.json"))
    return (
        {name.removesuffix(".jsonl"): [json.loads(line) for line in text.splitlines()] for name, text in files.items()},
        page,
        manifest,
    )


def exported(contact: Contact) -> Any:
    return unzipped(person.export(contact.pk, actor=SYSTEM, now=timezone.now(), client=contact.client).pieces())


def test_all_is_there_and_nothing_of_others(door):
    contact = a_life(door)
    corrections.correct(contact.conversations.get(ended_at=None).pk, 4, "Dear Zeb", actor=SYSTEM, now=timezone.now())
    found, page, manifest = exported(contact)

    assert manifest["rows"] == {kind: len(lines) for kind, lines in found.items()}
    assert (found["contact"][0]["phone"], found["contact"][0]["client_sub_domain"]) == (PHONE, "shop")
    assert len(found["sessions"]) == 2
    said = [chunk["content"] for chunk in found["chunks"] if chunk["role"] == "user"]
    assert sorted(said) == ["It is the second pipe", "My Quagmire leaks", "My secret is swordfish"]
    assert ("Dear Zebulon", "Dear Zeb") in [(chunk["content"], chunk["reads"]) for chunk in found["chunks"]]
    assert [line["text"] for line in found["corrections"]] == ["Dear Zeb"]
    assert [step["description"] for step in found["steps"]] == ["Mend it"]
    assert {message["status"] for message in found["messages"]} == {"delivered", "queued"}
    assert found["turns"][0]["prompt"]["messages"]
    assert [event["kind"] for event in found["ledger"]].count("exported") == 2
    assert "Quagmire" in json.dumps(found["memories"])
    assert [event["raw"] for event in found["inbound_events"]] == [{"from": PHONE[1:]}]
    assert found["answers"][0]["key"] == "1"
    assert "somebody else" not in json.dumps(found) + page
    for words in ("Zebulon", PHONE, "My Quagmire leaks", "Dear Zeb", "Original: Dear Zebulon"):
        assert words in page


def test_what_was_redacted_is_nowhere_also_before_it_is_remembered_anew(door):
    contact = a_life(door)
    ended, still_open = contact.conversations.order_by("started_at")
    for session, position in ((ended, 3), (ended, 4), (still_open, 2), (still_open, 3)):  # wherever it is quoted
        corrections.redact(session.pk, position, actor=SYSTEM, now=timezone.now())
    InboundEvent.objects.create(
        client=contact.client,
        provider="whatsapp",
        kind="message",
        reason="processing_failed",
        raw={"from": PHONE[1:], "text": "My secret is swordfish"},
        settled_at=timezone.now(),
    )
    everything = b"".join(person.export(contact.pk, actor=SYSTEM, now=timezone.now()).pieces())
    with ZipFile(io.BytesIO(everything)) as archive:
        text = "".join(archive.read(name).decode() for name in archive.namelist())
    assert "Quagmire" not in text
    assert "swordfish" not in text
    assert "second pipe" in text


def test_an_event_that_tells_of_several_is_named_without_its_words(door):
    contact = a_life(door)
    for raw in ({"from": PHONE[1:], "also": "555"}, {"from": PHONE[1:] + "1"}, {"from": "x" + PHONE[1:]}):
        InboundEvent.objects.create(
            client=contact.client, provider="whatsapp", kind="several", reason="processing_failed", raw=raw
        )
    found, _, _ = exported(contact)
    assert [event["raw"] for event in found["inbound_events"] if event["kind"] == "several"] == [None]


def test_every_table_that_hangs_on_a_session_is_in_it():
    hanging = {
        model
        for model in apps.get_models()
        for field in model._meta.concrete_fields
        if field.related_model is Conversation
    }
    assert hanging - set(person.OF_CONVERSATION.values()) == set(), (
        "a new table needs a line in services/export/person.py"
    )
    of_contacts = {
        model for model in apps.get_models() for field in model._meta.concrete_fields if field.related_model is Contact
    }
    assert of_contacts - {Conversation, ContactIdentity, Contact, ContactMatch} == set(), (
        "a new table needs a kind in KINDS"
    )
    assert Delta not in hanging  # pieces of a reply, gone when it is whole


def test_hostile_words_do_no_harm_on_the_page(door):
    door.says("</p><script>alert(1)</script> <img src=http://evil>", name="<b>Zeb", user_id="zeb-77")
    _, page, _ = exported(Contact.objects.get())
    assert "<script" not in page
    assert "<img" not in page
    assert "<b>" not in page
    assert "default-src &#x27;none&#x27;" in page or "default-src 'none'" in page


def test_a_long_session_is_never_in_memory_at_once(shop):
    session = ConversationFactory(client=shop, last_position=2_000)
    rows(
        """
        INSERT INTO conversation_chunks (client_id, conversation_id, position, role, content, created_at)
        SELECT $2, $1, n, 'user', repeat(md5(n::text), 400), now() FROM generate_series(1, 2000) n RETURNING id
        """,
        session.pk,
        shop.pk,
    )
    export = person.export(session.contact_id, actor=SYSTEM, now=timezone.now())
    tracemalloc.start()
    try:
        written = sum(map(len, export.pieces()))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert export.counts["chunks"] == 2_000  # of 12,800 characters, in the lines and on the page
    assert written > 200_000
    assert peak < 10_000_000, peak


def test_many_short_sessions_are_all_there(shop):
    contact = ContactFactory(client=shop)
    sessions = [
        ConversationFactory(
            client=shop, contact=contact, status="closed", ended_at=timezone.now(), ended_by="user", last_position=7
        )
        for _ in range(130)
    ]
    rows(
        """
        INSERT INTO conversation_chunks (client_id, conversation_id, position, role, content, created_at)
        SELECT $2, s, n, 'user', 'word ' || n, now()
        FROM unnest($1::uuid[]) s, generate_series(1, 7) n RETURNING id
        """,
        [session.pk for session in sessions],
        shop.pk,
    )
    found, page, _ = exported(contact)
    assert len({chunk["id"] for chunk in found["chunks"]}) == len(found["chunks"]) == 910
    assert len(found["sessions"]) == page.count("<section>") == 130


def test_another_client_s_contact_is_not_there(door, neighbour):
    contact = a_life(door)
    with pytest.raises(NotFoundError):
        person.export(contact.pk, actor=SYSTEM, now=timezone.now(), client=neighbour)
    for who in ({"contact": str(contact.pk)}, {"user_id": "zeb-77"}):
        with pytest.raises(CommandError, match="no such contact"):
            call_command("export_contact", client="neighbour", to="/nowhere", **who)
    assert not ConversationEvent.objects.filter(kind="exported").exists()


def test_the_command_writes_a_whole_file_or_none(door, shop, tmp_path, capsys, monkeypatch):
    contact = a_life(door)
    target = tmp_path / "zeb.zip"
    call_command("export_contact", client="shop", contact=str(contact.pk), to=str(target))
    out, err = capsys.readouterr()
    assert json.loads(out)["bytes"] == target.stat().st_size
    assert "chunks: " in err
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    if os.path.exists("/usr/bin/unzip"):
        assert subprocess.run(["/usr/bin/unzip", "-tqq", str(target)], check=False).returncode == 0

    before = target.read_bytes()
    monkeypatch.setitem(person.KINDS, "erasures", lambda _contact: 1 / 0)  # type: ignore[misc]
    with pytest.raises(ZeroDivisionError):
        call_command("export_contact", client="shop", user_id="zeb-77", to=str(target))
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(CommandError, match="cannot be written"):
        call_command("export_contact", client="shop", user_id="zeb-77", to=str(tmp_path / "no" / "where.zip"))


def test_the_command_writes_no_folder_and_no_device_and_follows_no_link(door, shop, tmp_path):
    a_life(door)

    def export_to(target):
        call_command("export_contact", client="shop", user_id="zeb-77", to=str(target))

    os.mkfifo(tmp_path / "device")
    (tmp_path / "folder").mkdir()
    for refused in ("device", "folder"):
        with pytest.raises(CommandError, match="must name a file"):
            export_to(tmp_path / refused)
    assert stat.S_ISFIFO((tmp_path / "device").stat().st_mode)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("somebody's")
    (tmp_path / "zeb.zip.part").symlink_to(elsewhere)
    export_to(tmp_path / "zeb.zip")
    assert elsewhere.read_text() == "somebody's"
    assert {each.name for each in tmp_path.iterdir()} == {"device", "folder", "elsewhere", "zeb.zip"}


def test_managers_take_it_in_the_back_office_and_the_trail_says_so(door, shop, neighbour):
    contact = a_life(door)
    address = reverse("admin:conversations_contact_export", args=[contact.pk])
    manager = sign_in("mona", shop, "manager")
    assert b"Redacted text is not in it" in manager.get(address).content
    assert not StaffAction.objects.exists()
    answer = manager.post(address)
    assert answer["Content-Type"] == "application/zip"
    assert str(contact.pk) in answer["Content-Disposition"]
    found, _, _ = unzipped(answer.streaming_content)
    assert len(found["sessions"]) == 2
    assert [action["verb"] for action in found["staff_actions"]] == ["exported"]
    action = StaffAction.objects.get()
    assert (action.user_name, action.object_id) == ("mona", str(contact.pk))
    assert ConversationEvent.objects.filter(kind="exported", actor_name="mona").count() == 2

    assert sign_in("agnes", shop, "agent").post(address).status_code == 403
    theirs = sign_in("nina", neighbour, "manager").post(address)
    never = sign_in("nora", neighbour, "manager").post(address.replace(str(contact.pk), str(shop.pk)))
    assert theirs.status_code == never.status_code == 302
    assert theirs["Location"] == never["Location"]
    assert StaffAction.objects.count() == 1

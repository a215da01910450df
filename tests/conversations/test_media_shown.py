"""Files of messages on the page of a conversation, and in what is exported."""

from __future__ import annotations

import csv
import io
import json
import zipfile

import pytest
from django.utils import timezone

from conversations.models import Attachment, Contact, Conversation
from conversations.services.core.ledger import SYSTEM
from conversations.services.export import person
from conversations.services.history import archive, remember
from conversations.services.transitions import closing
from tests.conftest import fetch_all
from tests.conversations.back_office import page_of, sign_in
from tests.conversations.test_media import sends
from tests.media_files import document, picture, recording

pytestmark = pytest.mark.django_db


@pytest.fixture
def photo(meta, account):
    """A picture that somebody sent, and that is there."""
    row = sends(meta, "image", picture(), caption="Our house")
    fetch_all()
    row.refresh_from_db()
    return row


def body_of(answer):
    return b"".join(answer.streaming_content) if answer.streaming else answer.content


def transcript_of(row, door):
    """The chunks of the conversation's transcript."""
    path = f"/conversations/{row.conversation_id}/transcript"
    return json.loads(body_of(door.http.get(path, headers={"X-Service-API-Key": door.key})))["data"]["chunks"]


def test_a_colleague_sees_the_picture_through_an_address_of_the_back_office(photo, viewer):
    page = viewer.get(page_of(photo.conversation)).content.decode()
    address = f"/admin/conversations/conversation/{photo.conversation_id}/files/{photo.pk}/"
    assert f'src="{address}?small=1"' in page

    sent_on = viewer.get(address)
    assert sent_on.status_code == 302
    assert sent_on["Location"].startswith("/media/")
    assert body_of(viewer.get(sent_on["Location"])) == picture()


def test_a_colleague_of_another_client_gets_nothing(photo, neighbour):
    stranger = sign_in("nina", neighbour, "manager")
    address = f"/admin/conversations/conversation/{photo.conversation_id}/files/{photo.pk}/"
    assert stranger.get(address).status_code == 404


def test_a_file_of_another_conversation_is_not_there(photo, viewer, meta):
    other = Conversation.objects.create(
        client=photo.client, contact=Contact.objects.create(client=photo.client, user_id="bob"), channel="sms"
    )
    assert viewer.get(f"/admin/conversations/conversation/{other.pk}/files/{photo.pk}/").status_code == 404


@pytest.mark.parametrize(
    ("kind", "more", "words"),
    [
        ("audio", {"voice": True}, "The voice note is being fetched."),
        ("document", {"filename": "Q1 <b>.pdf"}, "Q1 &lt;b&gt;.pdf</bdi>: The file is being fetched."),
    ],
)
def test_what_is_not_there_yet_is_said_in_words(meta, account, viewer, kind, more, words):
    row = sends(meta, kind, recording(), **more)
    assert words in viewer.get(page_of(row.conversation)).content.decode()


def test_what_cannot_be_had_is_said_with_the_reason(meta, account, viewer):
    meta.announced["77001"] = 200_000_000
    row = sends(meta, "video", b"\0\0\0\x18ftypmp42", content_type="video/mp4")
    fetch_all()
    assert "The video could not be fetched: it is larger than allowed." in (
        viewer.get(page_of(row.conversation)).content.decode()
    )


def test_the_transcript_lists_the_files_in_each_format(photo, door):
    path = f"/conversations/{photo.conversation_id}/transcript"
    chunk = transcript_of(photo, door)[-1]
    assert chunk["attachments"][0] | {"sha256": ""} == {
        "id": str(photo.pk),
        "type": "image",
        "state": "ready",
        "name": "image.jpg",
        "content_type": "image/jpeg",
        "size": photo.size,
        "sha256": "",
    }
    written = body_of(door.http.get(f"{path}?format=csv", headers={"X-Service-API-Key": door.key})).decode()
    assert list(csv.DictReader(io.StringIO(written)))[-1]["files"].startswith("picture image.jpg, ")
    page = body_of(door.http.get(f"{path}?format=html", headers={"X-Service-API-Key": door.key})).decode()
    assert "File: picture image.jpg, " in page


def test_a_person_s_export_has_the_rows_and_the_files_themselves(photo, meta):
    sends(meta, "document", document(), content_type="application/pdf", filename="a/b.pdf", media_id="2")
    fetch_all()
    exported = person.export(photo.conversation.contact_id, actor=SYSTEM, now=timezone.now())
    with zipfile.ZipFile(io.BytesIO(b"".join(exported.pieces()))) as archive_:
        rows = [json.loads(line) for line in archive_.read("attachments.jsonl").splitlines()]
        named = {name for name in archive_.namelist() if name.startswith("files/")}
        content = archive_.read(f"files/{photo.pk}-image.jpg")
    assert {row["kind"] for row in rows} == {"image", "document"}
    pdf = Attachment.objects.get(kind="document")
    assert named == {f"files/{photo.pk}-image.jpg", f"files/{pdf.pk}-a_b.pdf"}
    assert content == picture()


def test_an_archived_conversation_still_shows_and_lists_its_files(photo, viewer, door):
    closing.close(photo.conversation_id, ended_by="user", actor=SYSTEM, now=timezone.now())
    remember.remember_ended()
    archive.archive_one(photo.conversation_id, actor=SYSTEM, now=timezone.now())

    assert f"/files/{photo.pk}/?small=1" in viewer.get(page_of(photo.conversation)).content.decode()
    chunks = transcript_of(photo, door)
    assert [each["type"] for chunk in chunks for each in chunk.get("attachments", ())] == ["image"]

"""Files that people send on WhatsApp: fetched from Meta, kept, and handed out by links."""

from __future__ import annotations

import io
import json
import time
from datetime import timedelta
from uuid import uuid4

import pytest
from django.test import Client as HttpClient
from django.utils import timezone
from PIL import Image

from channels_out.simulators import messenger, whatsapp
from conversations.models import Attachment, Chunk, Conversation, Erasure, MediaRemoval
from conversations.services.core import files
from conversations.services.core.ledger import SYSTEM
from conversations.services.history import archive, remember
from conversations.services.media import claims, fetching, removals
from conversations.services.retention import erasure
from conversations.services.staff_actions import corrections
from conversations.services.transitions import closing
from tests.conftest import fetch_all
from tests.conversations.meta_doors import account_at, post, post_whatsapp
from tests.fakes.messenger import FakeMessenger
from tests.fakes.server import FakeServer, Fault, Reply
from tests.media_files import document, picture, recording

pytestmark = pytest.mark.django_db


@pytest.fixture
def page(shop):
    """A Facebook page of the shop's."""
    with FakeMessenger() as fake:
        account_at(fake, shop)
        yield fake


class FileHost(FakeServer):
    """A host of files that sends who asks on to another path."""

    file = picture(80, 60, form="PNG")

    def handle(self, request):
        if request.path == "/there":
            return Reply(302, b"", {"Location": "/file"})
        return Reply(200, self.file, {"Content-Type": "image/gif"})


def sends(meta, kind, content=None, *, content_type="image/jpeg", media_id="77001", **about):
    """A person sends a file. Returns its row."""
    if content is not None:
        meta.files[media_id] = (content, content_type)
    item = whatsapp.media(kind, media_id=media_id, **about)
    status, envelope = post_whatsapp(meta.webhook(messages=[item], contacts=[whatsapp.contact("51999999999", "Ana")]))
    assert (status, envelope["data"]["messages"]) == (200, 1)
    return Attachment.objects.filter(source=media_id).first()


def shown(door):
    """The attachments of the newest chunk that has any, as the API shows them."""
    conversation = Conversation.objects.get()
    items = door.get(f"/conversations/{conversation.pk}/chunks")["items"]
    return next(item["attachments"] for item in reversed(items) if item["attachments"])


def follow(link, **headers):
    """The answer behind a link, and its bytes."""
    answer = HttpClient().get(link.partition("://")[2].partition("/")[2].join(["/", ""]), headers=headers)
    body = b"".join(answer.streaming_content) if answer.streaming else answer.content
    return answer, body


def test_a_picture_is_fetched_kept_as_it_came_and_shown_small_without_its_metadata(meta, account, door):
    sent = picture()
    sends(meta, "image", sent, caption="Our house")
    [waiting] = shown(door)
    assert (waiting["state"], waiting["type"], waiting["link"]) == ("waiting", "image", "")

    assert fetch_all() == 1

    [ready] = shown(door)
    assert (ready["state"], ready["content_type"], ready["size"]) == ("ready", "image/jpeg", len(sent))
    answer, body = follow(ready["link"])
    assert (answer.status_code, body) == (200, sent)
    small, thumbnail = follow(ready["thumbnail"])
    assert small["Content-Type"] == "image/webp"
    with Image.open(io.BytesIO(thumbnail)) as shrunk:
        assert max(shrunk.size) == 480
        assert not shrunk.getexif()
    assert b"taken at home" in sent
    assert b"taken at home" not in thumbnail


def without_links(chunk):
    """The chunk without its links, and without its time, in which one way leaves zeros at the end out."""
    return {
        **chunk,
        "created_at": "",
        "attachments": [{**each, "link": "", "thumbnail": ""} for each in chunk["attachments"]],
    }


def test_the_conversation_shows_the_files_of_its_chunks_as_their_list_does(meta, account, door):
    sends(meta, "image", picture(), caption="Our house")
    sends(meta, "document", document(), content_type="application/pdf", media_id="77002", filename="Contract.pdf")
    conversation = Conversation.objects.get()
    address = f"/conversations/{conversation.pk}"
    for _ in range(2):
        listed = door.get(f"{address}/chunks")["items"]
        for shown_by in (address, f"{address}?chunks=50"):
            whole = door.get(shown_by)["chunks"]
            assert list(map(without_links, whole)) == list(map(without_links, listed))
        fetch_all()
    assert [each["name"] for chunk in whole for each in chunk["attachments"]] == ["image.jpg", "Contract.pdf"]
    assert follow(whole[-2]["attachments"][0]["link"])[1] == picture()
    assert [chunk["attachments"] for chunk in whole[:2]] == [[], []]


def test_the_link_s_answer_is_never_a_page_of_ours(meta, account, door):
    sends(meta, "image", picture())
    fetch_all()
    answer, _ = follow(shown(door)[0]["link"])

    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
    assert answer["Content-Disposition"].startswith("inline")
    assert answer["Cache-Control"] == "private, no-store"


@pytest.mark.parametrize(
    ("kind", "content", "becomes"),
    [
        ("image", b"<html><script>alert(1)</script></html>", ("document", "text/plain")),
        ("image", document(), ("document", "application/pdf")),
        ("audio", b"\x7fELF\x02\x01\x01\x00" + b"\0" * 64, ("document", "application/octet-stream")),
        ("image", b"\xff\xd8\xff\xe0 no picture at all", ("image", "image/jpeg")),
        ("document", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", ("document", "text/plain")),
    ],
)
def test_a_file_that_lies_about_its_type_is_what_its_content_says_and_is_saved_not_shown(
    meta, account, door, kind, content, becomes
):
    sends(meta, kind, content, content_type="image/jpeg")
    fetch_all()

    [attachment] = shown(door)
    assert (attachment["type"], attachment["content_type"]) == becomes
    assert attachment["thumbnail"] == ""
    answer, body = follow(attachment["link"])
    assert body == content
    if becomes[1] != "image/jpeg":
        assert answer["Content-Type"] == "application/octet-stream"
        assert answer["Content-Disposition"].startswith("attachment")


def test_a_document_of_ten_megabytes_is_kept_under_its_name(meta, account, door):
    sends(meta, "document", document(10_000_000), content_type="application/pdf", filename="../../Invoice\u202e.pdf")
    fetch_all()

    [attachment] = shown(door)
    assert (attachment["size"], attachment["state"]) == (10_000_000, "ready")
    assert "/" not in attachment["name"]
    assert attachment["name"].endswith(".pdf")
    part, body = follow(attachment["link"], range="bytes=9999990-")
    assert (part.status_code, len(body)) == (206, 10)
    assert part["Content-Range"] == "bytes 9999990-9999999/10000000"
    assert follow(attachment["link"], range="bytes=10000000-")[0].status_code == 416


def test_a_file_of_200_megabytes_is_refused_by_its_announced_size_and_never_asked_for(meta, account, door):
    meta.announced["77001"] = 200_000_000
    sends(meta, "video", b"\0\0\0\x18ftypmp42", content_type="video/mp4")
    fetch_all()

    [attachment] = shown(door)
    assert (attachment["state"], attachment["problem"]) == ("failed", "it is larger than allowed")
    assert not [each for each in meta.requests if each.path.startswith("/attachments/")]


def test_a_file_that_is_larger_than_announced_is_dropped_in_the_middle(meta, account, door, settings):
    settings.MEDIA_MOST_MB = 1
    meta.announced["77001"] = 10
    sends(meta, "document", document(1_500_000), filename="big.pdf")
    fetch_all()

    assert shown(door)[0]["problem"] == "it is larger than allowed"
    row = Attachment.objects.get()
    assert files.is_empty(row.client_id, row.pk)


def test_a_dead_link_is_tried_some_times_with_a_link_asked_for_anew_and_then_shown_as_failed(meta, account, door):
    meta.dead.add("77001")
    sends(meta, "image", picture())
    fetch_all(at=timezone.now() + timedelta(days=1))

    [attachment] = shown(door)
    assert (attachment["state"], attachment["problem"]) == ("failed", "the provider does not have it any more")
    asked = [each for each in meta.requests if each.path.endswith("/77001")]
    assert len(asked) == 4


def test_an_outage_of_the_media_host_costs_no_picture_and_delays_no_webhook(meta, account, door):
    for number in range(20):
        meta.files[str(number)] = (picture(200, 150), "image/jpeg")
    meta.fail_next(Fault(status=503), times=60)
    began = time.monotonic()
    for number in range(20):
        sends(meta, "image", media_id=str(number))
    assert time.monotonic() - began < 15
    fetch_all(at=timezone.now() + timedelta(hours=1))

    assert Attachment.objects.filter(state="ready").count() == 20


def test_pictures_of_one_big_webhook_are_stored_together(meta, account):
    people = [f"5199999{number:04}" for number in range(40)]
    for number, _ in enumerate(people):
        meta.files[f"b{number}"] = (picture(100, 80), "image/jpeg")
    items = [whatsapp.media("image", media_id=f"b{n}", sender=each) for n, each in enumerate(people)]
    items += [whatsapp.text("hello", sender=each) for each in people]
    post_whatsapp(meta.webhook(messages=items, contacts=[whatsapp.contact(each, "A") for each in people]))

    assert fetch_all() == 40
    belongs = {each.source: each.chunk for each in Attachment.objects.select_related("chunk")}
    assert len(belongs) == 40
    assert all(chunk.content == "[image]" for chunk in belongs.values())
    assert set(Attachment.objects.values_list("state", flat=True)) == {"ready"}


def test_a_picture_that_is_delivered_twice_is_one_attachment(meta, account):
    item = whatsapp.media("image", media_id="77001")
    for _ in range(2):
        post_whatsapp(meta.webhook(messages=[item], contacts=[whatsapp.contact("51999999999", "Ana")]))

    assert Chunk.objects.filter(role="user").count() == Attachment.objects.count() == 1


def test_photos_and_documents_of_a_form_are_attachments(meta, account):
    answers = {
        "photo_picker": [
            {"id": 790001, "mime_type": "image/jpeg", "sha256": "x", "file_name": "IMG_1.jpg"},
            {"id": "790002", "mime_type": "application/pdf", "file_name": "cv.pdf"},
        ],
        "flow_token": "abc",
    }
    form = {"type": "nfm_reply", "nfm_reply": {"name": "flow", "body": "Sent", "response_json": json.dumps(answers)}}
    post_whatsapp(meta.webhook(messages=[whatsapp.message("interactive", form)]))

    found = list(Attachment.objects.order_by("number").values_list("source", "kind", "name"))
    assert found == [("790001", "image", "IMG_1.jpg"), ("790002", "document", "cv.pdf")]


def test_a_link_of_another_client_or_that_has_run_out_gives_nothing(meta, account, door, neighbour, settings):
    row = sends(meta, "image", picture())
    fetch_all()
    link = shown(door)[0]["link"]

    stolen = files.link_to(neighbour.pk, row.pk)
    assert follow(stolen)[0].status_code == 404
    assert follow(link + "x")[0].status_code == 404
    settings.MEDIA_LINK_SECONDS = -1
    answer, body = follow(link)
    assert (answer.status_code, json.loads(body)["code"]) == (410, "link_over")


def test_a_payload_cannot_make_convo_call_an_address_of_our_network(page):
    sent = messenger.attachment("image", "http://169.254.169.254/latest/meta-data")
    post(page.webhook(messenger.message(page.page, "5678", attachments=[sent])), "messenger")
    fetch_all(at=timezone.now() + timedelta(days=1))

    row = Attachment.objects.get()
    assert (row.state, row.code) == ("failed", "private_address")


def test_a_picture_on_messenger_is_fetched_from_its_address_without_our_token(page, settings):
    with FileHost() as host:
        settings.MEDIA_PRIVATE_NETWORKS = ["127.0.0.0/8"]
        sent = messenger.attachment("image", f"{host.url}/there")
        post(page.webhook(messenger.message(page.page, "5678", attachments=[sent])), "messenger")
        fetch_all()

    row = Attachment.objects.get()
    assert (row.state, row.content_type, row.size) == ("ready", "image/png", len(host.file))
    assert [each.path for each in host.requests] == ["/there", "/file"]
    assert not any("authorization" in each.headers for each in host.requests)


def test_the_files_go_with_the_rows_whoever_deletes_them(meta, account):
    row = sends(meta, "image", picture())
    fetch_all()
    assert not files.is_empty(row.client_id, row.pk)

    Conversation.objects.all().delete()
    assert MediaRemoval.objects.count() == 1
    assert removals.remove_due(timezone.now(), time.monotonic() + 10) == 1
    assert files.is_empty(row.client_id, row.pk)
    assert not MediaRemoval.objects.exists()


def test_a_voice_note_is_kept_as_a_voice_note(meta, account, door):
    sends(meta, "audio", recording(), content_type="audio/ogg; codecs=opus", voice=True)
    fetch_all()

    [attachment] = shown(door)
    assert (attachment["type"], attachment["content_type"], attachment["name"]) == ("voice", "audio/wav", "voice.wav")


def test_a_redacted_message_loses_its_file_at_once(meta, account, manager):
    row = sends(meta, "image", picture(), caption="my passport")
    fetch_all()
    corrections.redact(row.conversation_id, row.chunk.position, actor=SYSTEM, now=timezone.now())

    assert not Attachment.objects.exists()
    removals.remove_due(timezone.now(), time.monotonic() + 10)
    assert files.is_empty(row.client_id, row.pk)


def test_the_files_of_an_archived_conversation_stay_at_their_positions(meta, account, shop):
    row = sends(meta, "image", picture())
    fetch_all()
    closing.close(row.conversation_id, ended_by="user", actor=SYSTEM, now=timezone.now())
    remember.remember_ended()
    archive.archive_one(row.conversation_id, actor=SYSTEM, now=timezone.now())

    kept = Attachment.objects.get()
    assert (kept.chunk_id, kept.position, kept.state) == (None, 3, "ready")
    assert not files.is_empty(row.client_id, row.pk)
    assert not MediaRemoval.objects.exists()


def test_an_erased_person_s_files_are_in_neither_table_nor_storage_and_the_certificate_counts_them(meta, account):
    row = sends(meta, "image", picture())
    fetch_all()
    erased = erasure.begin(row.conversation.contact_id, actor=SYSTEM, now=timezone.now())
    assert erased.removed["attachments"] == 1
    assert not Attachment.objects.exists()

    assert erasure.continue_erasures(timezone.now()) == 1
    assert files.is_empty(row.client_id, row.pk)
    assert not MediaRemoval.objects.exists()
    facts = erasure.verify(Erasure.objects.get().certificate)
    assert facts["removed"]["attachments"] == 1
    assert facts["proof"]["files"] == {"asked_for": 1, "found": 0, "asked_by": "folder"}


def test_who_is_erased_while_a_file_of_theirs_is_fetched_gets_the_certificate_after_that(meta, account):
    row = sends(meta, "image", picture())
    token, [(client_id, attachment_id)] = claims.claim(timezone.now(), 10)
    wanted = fetching.begin(client_id, attachment_id, token, timezone.now())
    erasure.begin(row.conversation.contact_id, actor=SYSTEM, now=timezone.now())
    assert erasure.continue_erasures(timezone.now()) == 0

    fetching.record_fetched(wanted, fetching.fetch(wanted), timezone.now())
    assert files.is_empty(client_id, attachment_id)
    assert erasure.continue_erasures(timezone.now() + timedelta(minutes=5)) == 1


def test_a_dispatcher_that_dies_while_it_fetches_leaves_the_file_to_another(meta, account):
    sends(meta, "image", picture())
    claims.claim(timezone.now(), 10)
    assert fetch_all() == 0
    assert fetch_all(at=timezone.now() + timedelta(minutes=1)) == 1
    assert Attachment.objects.get().state == "ready"


def test_files_of_which_no_row_knows_go_after_a_day(meta, account, neighbour):
    row = sends(meta, "image", picture())
    fetch_all()
    lost = uuid4()
    for client_id in (row.client_id, neighbour.pk):
        files.save(f"{client_id}/{lost}/a-claim", io.BytesIO(b"left behind"))
    limit = time.monotonic() + 30
    assert removals.delete_orphans(timezone.now(), limit) == 0, "its row may be just coming"

    assert removals.delete_orphans(timezone.now() + timedelta(days=2), limit) == 2
    assert files.is_empty(row.client_id, lost)
    assert not files.is_empty(row.client_id, row.pk)

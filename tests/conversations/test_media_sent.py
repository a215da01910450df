"""Files that programs send in a conversation: in the channel's form where it takes them, elsewhere as a link."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone

from channels_out.simulators import messenger
from conversations.models import Attachment, ChannelAccount, Conversation, Message
from conversations.services.core import files
from tests.conftest import fetch_all, reply_to_all, send_all
from tests.conversations.meta_doors import account_at, post, post_whatsapp
from tests.conversations.test_media import follow
from tests.fakes.messenger import FakeMessenger
from tests.fakes.plivo import FakePlivo
from tests.fakes.server import Fault
from tests.fakes.shelf import Shelf
from tests.media_files import document, picture

pytestmark = pytest.mark.django_db


@pytest.fixture
def shelf(settings):
    """The host is in a network of our own, which is allowed."""
    settings.MEDIA_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    with Shelf() as fake:
        yield fake


@pytest.fixture
def wrote(meta, account):
    """Somebody wrote on WhatsApp and was answered."""
    post_whatsapp(meta.text_webhook("Do you have part 7?"))
    reply_to_all()
    send_all()
    meta.sent.clear()
    return Conversation.objects.get()


def send(door, conversation, **body):
    return door.call("POST", f"/conversations/{conversation.pk}/send", body)


def test_a_picture_and_a_document_go_after_the_text_each_in_its_form(meta, wrote, door, shelf):
    attachments = [{"url": f"{shelf.url}/parts/Part%207.jpg"}, {"url": f"{shelf.url}/invoice.pdf", "name": "May.pdf"}]
    status, envelope = send(door, wrote, content="Here it is.", attachments=attachments)
    assert status == 201
    assert envelope["data"]["chunk"]["content"] == "Here it is.\n[file] Part 7.jpg\n[file] May.pdf"
    assert [each["status"] for each in envelope["data"]["messages"]] == ["queued"] * 3
    send_all()
    assert [each.text for each in meta.sent] == ["Here it is."], "the files are not there yet"

    fetch_all()
    send_all()
    _, first, second = meta.sent
    assert (first.kind, first.file) == ("image", {"id": "up1"})
    assert (second.kind, second.file) == ("document", {"id": "up2", "filename": "May.pdf"})
    assert picture() in meta.uploads[0]
    assert b'filename="May.pdf"' in meta.uploads[1]
    assert set(Message.objects.values_list("status", flat=True)) == {"sent"}


def test_what_was_sent_is_shown_with_its_files(meta, wrote, door, shelf):
    send(door, wrote, attachments=[{"url": f"{shelf.url}/invoice.pdf"}])
    fetch_all()
    chunk = door.get(f"/conversations/{wrote.pk}/chunks")["items"][-1]
    assert (chunk["role"], chunk["content"]) == ("ai", "[file] invoice.pdf")
    assert [(each["name"], each["state"]) for each in chunk["attachments"]] == [("invoice.pdf", "ready")]


def test_a_picture_that_is_too_large_for_one_goes_as_a_document(meta, wrote, door, shelf):
    shelf.files["/big.jpg"] = picture() + b"\0" * 6_000_000
    send(door, wrote, attachments=[{"url": f"{shelf.url}/big.jpg"}])
    fetch_all()
    send_all()
    assert meta.sent[0].kind == "document"


def test_a_file_that_is_not_there_fails_its_message_alone_and_says_why(meta, wrote, door, shelf):
    attachments = [{"url": f"{shelf.url}/nowhere.pdf"}, {"url": f"{shelf.url}/invoice.pdf"}]
    send(door, wrote, content="Both:", attachments=attachments)
    fetch_all(at=timezone.now() + timedelta(hours=1))
    send_all()

    assert [each.kind for each in meta.sent] == ["text", "document"]
    failed = Message.objects.get(status="failed")
    assert failed.code == "file_failed"
    assert "could not be fetched from its URL" in failed.reason
    assert wrote.events.filter(kind="message_failed", cause="file_failed").exists()


def test_an_upload_whose_answer_is_lost_is_repeated_and_one_message_goes(meta, wrote, door, shelf):
    send(door, wrote, attachments=[{"url": f"{shelf.url}/invoice.pdf"}])
    fetch_all()
    meta.fail_next(Fault(cut="after"))
    send_all()
    assert Message.objects.latest("created_at").status == "queued"
    Message.objects.filter(status="queued").update(due_at=timezone.now())
    send_all()
    assert len(meta.sent) == 1
    assert len(meta.uploads) == 2


def test_where_the_channel_takes_no_files_a_link_goes_that_runs_out(door, shop, shelf, settings):
    door.says("Hello", channel="sms", phone="+51988777666")
    conversation = Conversation.objects.get()
    with FakePlivo(number="51999000111", auth_id="MA1", auth_token="t") as plivo:
        ChannelAccount.objects.filter(pk=conversation.channel_account_id).update(
            provider="plivo", address="51999000111", base_url=plivo.base_url
        )
        account = ChannelAccount.objects.get(pk=conversation.channel_account_id)
        account.credentials = {"auth_id": "MA1", "auth_token": "t"}
        account.save()
        send(door, conversation, attachments=[{"url": f"{shelf.url}/invoice.pdf"}])
        fetch_all()
        send_all()
    [sent] = plivo.sent
    assert sent.media == ()
    name, _, link = sent.text.partition(": ")
    assert name == "invoice.pdf"
    assert follow(link)[1] == document()
    settings.MEDIA_SENT_LINK_DAYS = -1
    assert follow(link)[0].status_code == 410


def test_messenger_fetches_the_file_by_its_link(shop, door, shelf):
    with FakeMessenger() as page:
        account_at(page, shop)
        post(page.webhook(messenger.text(page.page, "5678", "Hello")), "messenger")
        conversation = Conversation.objects.get()
        send(door, conversation, attachments=[{"url": f"{shelf.url}/parts/Part%207.jpg"}])
        fetch_all()
        send_all()
        sent = page.sent[-1]
    assert sent.attachment["type"] == "image"
    assert follow(sent.attachment["payload"]["url"])[1] == picture()


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"attachments": []}, "content"),
        ({"attachments": [{"url": "ftp://host/file"}]}, "http:// or https://"),
        ({"attachments": [{"url": "https://host/f"}], "choices": ["Yes"]}, "below a text"),
        ({"attachments": [{"url": "https://host/f"}], "template": {"name": "news"}}, "Send files on their own"),
        ({"content": "Hello", "template": {"name": "news"}}, "either content or template"),
        ({"attachments": [{"url": "https://user:word@host/file"}]}, "attachments"),
        ({"attachments": [{"url": "https://host/f", "size": 1}]}, "attachments"),
        ({"attachments": [{"name": "x"}]}, "attachments"),
        ({"attachments": [{"url": "https://host/f"}] * 11}, "attachments"),
        ({"attachments": "https://host/f"}, "attachments"),
    ],
)
def test_what_cannot_be_sent_is_refused_by_name_and_changes_nothing(wrote, door, body, named):
    status, envelope = send(door, wrote, **body)
    assert status == 400
    assert named in json.dumps(envelope["details"])
    assert not Attachment.objects.exists()


def test_a_program_cannot_make_convo_read_our_own_network(wrote, door, meta):
    send(door, wrote, attachments=[{"url": "http://169.254.169.254/latest/meta-data"}])
    fetch_all()
    assert Attachment.objects.get().code == "private_address"
    assert Message.objects.latest("created_at").code == "file_failed"


def test_staff_see_what_was_sent_as_a_picture(meta, wrote, door, shelf, viewer):
    send(door, wrote, attachments=[{"url": f"{shelf.url}/parts/Part%207.jpg"}])
    fetch_all()
    page = viewer.get(f"/admin/conversations/conversation/{wrote.pk}/change/").content.decode()
    assert f"/files/{Attachment.objects.get().pk}/?small=1" in page


def test_staff_send_a_file_from_the_transcript_page(meta, wrote, agent):
    address = f"/admin/conversations/conversation/{wrote.pk}/do/reply/"
    upload = SimpleUploadedFile("Part 7.png", picture(form="PNG"))
    answer = agent.post(address, {"text": "This one?", "files": upload})
    assert answer.status_code == 200, answer.content
    send_all()

    assert [(each.kind, each.text) for each in meta.sent] == [("text", "This one?"), ("image", "")]
    row = Attachment.objects.get()
    assert (row.state, row.name, row.content_type) == ("ready", "Part 7.png", "image/png")
    assert wrote.chunks.latest("position").content == "This one?\n[file] Part 7.png"


def test_nothing_is_kept_of_a_file_that_cannot_be_sent(meta, wrote, agent, settings):
    address = f"/admin/conversations/conversation/{wrote.pk}/do/reply/"
    settings.MEDIA_MOST_MB = 1
    big = agent.post(address, {"text": "", "files": SimpleUploadedFile("big.pdf", document(1_500_000))})
    assert (big.status_code, big.json()["said"]) == (409, "The file is larger than allowed.")
    assert agent.post(address, {"text": " "}).json()["said"] == "Write something first."
    wrote.contact.opted_out = {"whatsapp": {"since": "2026-11-30T00:00:00Z"}}
    wrote.contact.save()
    assert agent.post(address, {"text": "", "files": SimpleUploadedFile("a.pdf", document())}).status_code == 409

    assert not Attachment.objects.exists()
    assert files.storage().listdir(str(wrote.client_id))[0] == []

"""Files of tools' answers: sent with the assistant's reply, and told to the model in plain words."""

from __future__ import annotations

import base64
import json
from datetime import timedelta

import pytest
from django.utils import timezone
from mcp import types

from conversations.models import Attachment, Conversation, Message, Tool, ToolCall
from conversations.services.core import files
from conversations.services.core.ledger import SYSTEM
from conversations.services.replies import leases, pipeline, tool_calls, tool_runner
from conversations.services.retention import erasure
from conversations.services.tenants import tools
from tests.conftest import fetch_all, reply_to_all, send_all
from tests.conversations import tool_shop
from tests.conversations.meta_doors import post_whatsapp
from tests.conversations.test_media import follow
from tests.conversations.tool_shop import CHARGE, answers, background, change
from tests.fakes.mcp_server import FakeMcp
from tests.fakes.plivo import FakePlivo
from tests.fakes.server import Reply
from tests.fakes.shelf import Shelf
from tests.media_files import document, picture, recording

pytestmark = pytest.mark.django_db

model, server, tool = tool_shop.model, tool_shop.server, tool_shop.tool


@pytest.fixture
def shelf(settings):
    """A host of files, in a network of our own that is allowed."""
    settings.MEDIA_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    with Shelf() as fake:
        yield fake


@pytest.fixture
def wrote(meta, account, model):
    """Somebody asks on WhatsApp for their receipt."""
    post_whatsapp(meta.text_webhook("My receipt, please"))
    return Conversation.objects.get()


def base64_of(content):
    return base64.b64encode(content).decode()


def answers_with(server, **answer):
    server.answer_with = lambda body: Reply(200, answer)


def replies(model, text="Here it is.", call=CHARGE):
    model.then("reply", tool_calls=[call])
    model.then("reply", text=text)
    reply_to_all()


def shown(door, conversation):
    return door.get(f"/conversations/{conversation.pk}/chunks")["items"][-1]


def test_a_file_that_an_answer_names_goes_with_the_reply_and_the_model_is_told(
    meta, wrote, door, model, server, tool, shelf
):
    answers_with(server, receipt="R-1", attachments=[{"url": f"{shelf.url}/invoice.pdf", "name": "Receipt 1.pdf"}])
    replies(model)
    [told] = answers(model)
    assert told.startswith("[Attached to your reply, and sent right after its text: Receipt 1.pdf.")
    assert told.endswith('{"receipt":"R-1"}'), "without the address"

    send_all()
    fetch_all()
    send_all()
    assert [(each.kind, each.text) for each in meta.sent] == [("text", "Here it is."), ("document", "")]
    assert document() in meta.uploads[0]
    chunk = shown(door, wrote)
    assert chunk["content"] == "Here it is.\n[file] Receipt 1.pdf"
    assert [(each["name"], each["state"]) for each in chunk["attachments"]] == [("Receipt 1.pdf", "ready")]


def test_the_content_of_a_file_may_be_in_the_answer_and_links_and_contents_keep_their_names(
    meta, wrote, door, model, server, tool, shelf
):
    one = {"data": base64_of(picture(80, 60, form="PNG")), "name": "chart.png"}
    two = {"url": f"{shelf.url}/parts/Part%207.jpg"}
    answers_with(server, attachments=[one, two])
    replies(model)
    assert "chart.png, Part 7.jpg" in answers(model)[0]
    fetch_all()
    send_all()
    assert [each.kind for each in meta.sent] == ["text", "image", "image"]
    assert [each["type"] for each in shown(door, wrote)["attachments"]] == ["image", "image"]


def test_the_next_prompt_says_which_files_the_person_got(meta, wrote, model, server, tool, shelf):
    answers_with(server, attachments=[{"url": f"{shelf.url}/invoice.pdf"}])
    replies(model)
    fetch_all()
    send_all()
    post_whatsapp(meta.text_webhook("Thank you"))
    Conversation.objects.update(reply_due_at=timezone.now())
    reply_to_all()
    told = [each["content"] for each in model.requests[-1].body["messages"] if each["role"] == "assistant"]
    assert any("Here it is.\n[file] invoice.pdf" in each for each in told)


def test_a_reply_without_words_is_its_files(meta, wrote, door, model, server, tool, shelf):
    answers_with(server, attachments=[{"data": base64_of(document()), "name": "May.pdf"}])
    model.then("reply", tool_calls=[CHARGE])
    model.then("reply", text="Here.", tool_calls=[("set_topic", {"topic": "Receipt"})])
    reply_to_all()
    send_all()
    assert [each.kind for each in meta.sent] == ["text", "document"]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"data": "no base64!", "name": "a.pdf"}, "not base64"),
        ({"data": base64_of(b"x"), "url": "https://shop.example/a"}, "either url or data"),
        ({"url": "ftp://shop.example/a"}, "http:// or https://"),
        ({"url": "https://user:word@shop.example/a"}, "without a user name"),
        ({"url": "https://shop.example/a", "size": 4}, "'size' is not supported"),
        ({"data": base64_of(document(1_200_000)), "name": "big.pdf"}, "larger than allowed"),
    ],
)
def test_what_cannot_be_attached_is_told_and_nothing_is_kept_of_it(
    meta, wrote, model, server, tool, settings, given, why
):
    settings.MEDIA_MOST_MB = 1
    answers_with(server, attachments=[given])
    replies(model, "Sorry.")
    [told] = answers(model)
    assert told.startswith("[Not attached: ")
    assert why in told
    send_all()
    assert [each.text for each in meta.sent] == ["Sorry."]
    assert not Attachment.objects.exists()


def test_other_data_of_that_name_is_an_answer_like_any_other(meta, wrote, model, server, tool):
    answers_with(server, attachments=[{"id": 7, "title": "A contract"}])
    replies(model)
    assert answers(model) == ['{"attachments": [{"id": 7, "title": "A contract"}]}']
    assert not Attachment.objects.exists()


def test_a_tool_that_sends_no_files_only_answers(meta, wrote, model, server, tool):
    change(tool, sends_files=False)
    answers_with(server, attachments=[{"url": "https://shop.example/a.pdf"}])
    replies(model)
    assert "https://shop.example/a.pdf" in answers(model)[0]
    assert not Attachment.objects.exists()


def test_ten_files_go_with_a_reply_over_all_of_its_calls(meta, wrote, model, server, tool):
    answers_with(server, attachments=[{"data": base64_of(b"text"), "name": f"{n}.txt"} for n in range(7)])
    other = ("charge_card", {"order": "order-2", "amount": 5})
    model.then("reply", tool_calls=[CHARGE, other])
    model.then("reply", text="All.")
    reply_to_all()
    first, second = answers(model)
    assert "0.txt" in first
    assert "[Not attached: at most 10 files are possible in a reply]" in second
    send_all()
    assert len(meta.sent) == 11


def test_a_program_s_tool_cannot_make_convo_read_our_own_network(meta, wrote, model, server, tool):
    answers_with(server, attachments=[{"url": "http://169.254.169.254/latest/meta-data"}])
    replies(model)
    fetch_all()
    assert Attachment.objects.get().code == "private_address"
    assert Message.objects.get(attachment__isnull=False).code == "file_failed"


def test_a_file_that_failed_before_the_reply_was_written_fails_its_message(meta, wrote, model, server, tool, shelf):
    answers_with(server, attachments=[{"url": f"{shelf.url}/nowhere.pdf"}])
    model.then("reply", tool_calls=[CHARGE])
    model.then("status", status=500)
    reply_to_all()
    fetch_all(at=timezone.now() + timedelta(hours=1))
    Conversation.objects.update(reply_due_at=timezone.now())
    model.then("reply", text="Here it is.")
    reply_to_all()
    send_all(may_refuse=True)
    assert [each.text for each in meta.sent] == ["Here it is."]
    assert Message.objects.get(status="failed").code == "file_failed"


def test_a_dropped_draft_leaves_its_file_to_the_next_one(meta, wrote, door, model, server, tool, shelf):
    answers_with(server, attachments=[{"url": f"{shelf.url}/invoice.pdf"}])
    model.then("reply", tool_calls=[CHARGE])
    model.then("status", status=500)
    reply_to_all()
    assert not Message.objects.exists()
    fetch_all()

    Conversation.objects.update(reply_due_at=timezone.now())
    model.then("reply", text="Here it is.")
    reply_to_all()
    assert "Attached to your reply, and sent right after its text: invoice.pdf" in background(model)
    send_all()
    assert [each.kind for each in meta.sent] == ["text", "document"]
    assert len(server.requests) == 1


def test_a_committed_reply_s_files_do_not_go_again(meta, wrote, model, server, tool, shelf):
    answers_with(server, attachments=[{"url": f"{shelf.url}/invoice.pdf"}])
    replies(model)
    fetch_all()
    post_whatsapp(meta.text_webhook("And again?"))
    Conversation.objects.update(reply_due_at=timezone.now())
    model.then("reply", text="It is above.")
    reply_to_all()
    send_all()
    assert [each.kind for each in meta.sent] == ["text", "document", "text"]


def test_where_the_channel_takes_no_files_the_person_gets_a_link(door, shop, model, server, tool, shelf):
    door.says("My receipt", channel="sms", phone="+51988777666")
    answers_with(server, attachments=[{"url": f"{shelf.url}/invoice.pdf"}])
    replies(model)
    with FakePlivo(number="51999000111", auth_id="MA1", auth_token="t") as plivo:
        account = Conversation.objects.get().channel_account
        account.provider, account.address, account.base_url = "plivo", "51999000111", plivo.base_url
        account.credentials = {"auth_id": "MA1", "auth_token": "t"}
        account.save()
        fetch_all()
        send_all()
    words, link = [each.text for each in plivo.sent]
    assert words == "Here it is."
    name, _, address = link.partition(": ")
    assert name == "invoice.pdf"
    assert follow(address)[1] == document()


def test_nothing_is_attached_in_a_phone_call_and_the_model_knows(door, shop, model, server, tool):
    door.says("My receipt", channel="voice", phone="+51988777666")
    answers_with(server, receipt="R-1", attachments=[{"data": base64_of(document()), "name": "May.pdf"}])
    replies(model, "I cannot send it here.")
    assert answers(model)[0].startswith("[Not attached: nothing can be sent in a phone call]")
    assert not Attachment.objects.exists()
    assert Conversation.objects.get().chunks.latest("position").content == "I cannot send it here."


def test_a_person_s_erasure_takes_the_files_of_answers_also_before_the_reply(meta, wrote, model, server, tool):
    answers_with(server, attachments=[{"data": base64_of(document()), "name": "May.pdf"}])
    model.then("reply", tool_calls=[CHARGE])
    model.then("status", status=500)
    reply_to_all()
    row = Attachment.objects.get()
    assert row.chunk_id is None
    erasure.begin(wrote.contact_id, actor=SYSTEM, now=timezone.now())
    assert erasure.continue_erasures(timezone.now()) == 1
    assert files.is_empty(row.client_id, row.pk)


def test_an_answer_that_comes_too_late_leaves_no_file(meta, wrote, model, server, tool):
    answers_with(server, attachments=[{"data": base64_of(document()), "name": "May.pdf"}])
    [claim] = leases.claim(timezone.now(), 10)
    pipeline.prepare(claim)

    def run(work, *values):
        if work is tool_calls.record_result:
            ToolCall.objects.update(status="failed")  # it was given up meanwhile
        return work(*values)

    tool_runner.TurnToolRunner(claim, {tool.name: tool.pk}, run).call(*CHARGE)
    assert not Attachment.objects.exists()
    assert files.storage().listdir(str(wrote.client_id))[0] == []


# --- MCP ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def crm(shop, settings):
    settings.TOOL_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    with FakeMcp("t0ken") as fake:
        listed = tools.create_mcp_server(shop, "crm", url=fake.url, bearer="t0ken", timeout_seconds=5)
        tools.list_tools(listed, timezone.now())
        Tool.objects.filter(name="show").update(is_active=True)
        yield fake


def text(words):
    return types.TextContent(type="text", text=words)


def image(content, **hints):
    audience = types.Annotations(**hints) if hints else None
    return types.ImageContent(type="image", data=base64_of(content), mime_type="image/png", annotations=audience)


def blob(content, uri="crm://invoices/May.pdf"):
    found = types.BlobResourceContents(uri=uri, mime_type="application/pdf", blob=base64_of(content))
    return types.EmbeddedResource(type="resource", resource=found)


def test_pictures_recordings_and_documents_of_an_mcp_tool_go_with_the_reply(meta, wrote, door, model, crm):
    sound = types.AudioContent(type="audio", data=base64_of(recording()), mime_type="audio/wav")
    crm.shown["x"] = [text("Three files."), image(picture(80, 60, form="PNG")), sound, blob(document())]
    replies(model, call=("show", {"what": "x"}))
    first, _, rest = answers(model)[0].partition("\n")
    assert first.startswith(
        "[Attached to your reply, and sent right after its text: picture.png, recording.wav, May.pdf."
    )
    assert rest == "Three files."
    send_all()
    assert [each.kind for each in meta.sent] == ["text", "image", "document", "document"]
    assert [each["type"] for each in shown(door, wrote)["attachments"]] == ["image", "audio", "document"]


def test_files_for_the_assistant_alone_are_not_sent(meta, wrote, model, crm):
    crm.shown["x"] = [image(picture(80, 60, form="PNG"), audience=["assistant"])]
    replies(model, call=("show", {"what": "x"}))
    assert answers(model) == ["The tool answered with something that is no text."]
    assert not Attachment.objects.exists()


def test_embedded_texts_and_links_are_for_the_model_unless_they_name_the_user(meta, wrote, model, crm, shelf):
    note = types.TextResourceContents(uri="crm://notes/1", mime_type="text/plain", text="Likes tea.")
    link = {"type": "resource_link", "name": "invoice.pdf", "uri": f"{shelf.url}/invoice.pdf"}
    crm.shown["x"] = [types.EmbeddedResource(type="resource", resource=note), types.ResourceLink(**link)]
    crm.shown["y"] = [types.ResourceLink(**link, annotations=types.Annotations(audience=["user"]))]
    model.then("reply", tool_calls=[("show", {"what": "x"}), ("show", {"what": "y"})])
    model.then("reply", text="Here.")
    reply_to_all()
    first, second = answers(model)
    assert first == f"Likes tea.\ninvoice.pdf: {shelf.url}/invoice.pdf"
    assert second.startswith("[Attached to your reply, and sent right after its text: invoice.pdf.")
    fetch_all()
    send_all()
    assert [each.kind for each in meta.sent] == ["text", "document"]


def test_a_large_picture_of_an_mcp_tool_fits(meta, wrote, model, crm):
    crm.shown["x"] = [blob(document(3_000_000))]
    replies(model, call=("show", {"what": "x"}))
    assert json.loads(json.dumps(answers(model)))[0].startswith("[Attached")
    assert Attachment.objects.get().size == 3_000_000
    link = files.link_to(wrote.client_id, Attachment.objects.get().pk)
    assert len(follow(link)[1]) == 3_000_000

"""Files between people and a client's own agent: those that people send, and those that the agent answers with."""

from __future__ import annotations

import pytest

from conversations.models import Attachment, Conversation, Turn
from tests.conftest import fetch_all, reply_to_all, send_all
from tests.conversations.agent_shop import answers_by_agent, call_back, due_now
from tests.conversations.meta_doors import post_whatsapp
from tests.conversations.test_media import follow, sends
from tests.fakes.agent import LATER, FakeAgent, Stream
from tests.fakes.shelf import Shelf
from tests.media_files import document, picture

pytestmark = pytest.mark.django_db


@pytest.fixture
def agent(shop, settings):
    with FakeAgent() as fake:
        answers_by_agent(shop, settings, fake)
        yield fake


@pytest.fixture
def shelf(settings):
    """A host of files, in a network of our own that is allowed."""
    settings.MEDIA_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    with Shelf() as fake:
        yield fake


def asks(meta):
    post_whatsapp(meta.text_webhook("My invoice, please"))
    return Conversation.objects.get()


def test_the_agent_waits_for_a_picture_and_is_told_what_it_is_with_a_link_that_runs_out(meta, account, agent, settings):
    sends(meta, "image", picture(), caption="Look")
    assert reply_to_all() == 0, "the picture is not there yet"
    fetch_all()
    reply_to_all()

    [file] = agent.requests[0]["messages"][0]["attachments"]
    link = file.pop("link")
    assert file == {
        "type": "image",
        "state": "ready",
        "content_type": "image/jpeg",
        "size": len(picture()),
        "name": "image.jpg",
    }
    assert follow(link)[1] == picture()
    settings.MEDIA_LINK_SECONDS = -1
    assert follow(link)[0].status_code == 410
    assert link not in str(Turn.objects.get().prompt), "nothing keeps the link"


def test_a_document_that_cannot_be_had_is_named_without_a_link(meta, account, agent, settings):
    settings.MEDIA_MOST_MB = 1
    sends(meta, "document", document(1_500_000), content_type="application/pdf", filename="Contract.pdf")
    fetch_all()
    reply_to_all()
    [file] = agent.requests[0]["messages"][0]["attachments"]
    assert (file["name"], file["state"], file["link"]) == ("Contract.pdf", "failed", "")


def test_earlier_files_stand_in_the_history(meta, account, agent):
    sends(meta, "image", picture())
    fetch_all()
    reply_to_all()
    asks(meta)
    due_now()
    reply_to_all()
    request = agent.requests[-1]
    assert "attachments" not in request["messages"][0]
    assert [each["attachments"][0]["type"] for each in request["history"] if "attachments" in each] == ["image"]


def test_the_files_of_an_answer_go_after_its_words_in_the_channel_s_form(meta, account, agent, shelf, door):
    conversation = asks(meta)
    attachments = [{"url": f"{shelf.url}/invoice.pdf", "name": "May.pdf"}, {"url": f"{shelf.url}/parts/Part%207.jpg"}]
    agent.says("Here it is.", attachments=attachments)
    reply_to_all()
    fetch_all()
    send_all()
    assert [(each.kind, each.text) for each in meta.sent] == [("text", "Here it is."), ("document", ""), ("image", "")]
    chunk = door.get(f"/conversations/{conversation.pk}/chunks")["items"][-1]
    assert chunk["content"] == "Here it is.\n[file] May.pdf\n[file] Part 7.jpg"
    assert [each["state"] for each in chunk["attachments"]] == ["ready", "ready"]


def test_an_answer_may_be_files_alone(meta, account, agent, shelf):
    asks(meta)
    agent.says(attachments=[{"url": f"{shelf.url}/invoice.pdf"}])
    reply_to_all()
    fetch_all()
    send_all()
    assert [each.kind for each in meta.sent] == ["document"]
    assert Conversation.objects.get().needs_staff_since is None


def test_a_stream_ends_with_files_and_a_callback_may_have_some(meta, account, agent, shelf, door):
    asks(meta)
    files = [{"url": f"{shelf.url}/invoice.pdf"}]
    agent.then(Stream([("delta", {"text": "Here."}), ("done", {"attachments": files})]))
    reply_to_all()
    asks(meta)
    due_now()
    agent.then(LATER)
    reply_to_all()
    status, _ = call_back(door, agent.requests[-1], "And here.", attachments=files)
    assert status == 200
    fetch_all()
    send_all()
    assert [each.kind for each in meta.sent] == ["text", "document", "text", "document"]


@pytest.mark.parametrize(
    ("attachments", "why"),
    [
        ("https://host/f", "attachments: Must be a list of files."),
        ([{"url": "ftp://host/f"}], "attachments: Must be an http:// or https:// address"),
        ([{"url": "https://host/f", "size": 1}], "attachments: The field 'size' is not supported."),
        ([{"data": "eA=="}], "attachments: The field 'data' is not supported."),
        ([{"name": "x"}], "attachments: Must have a url."),
        ([{"url": "https://host/f"}] * 11, "attachments: At most 10 files are possible."),
    ],
)
def test_an_answer_with_a_file_that_is_not_valid_is_refused_as_a_whole(meta, account, agent, attachments, why):
    asks(meta)
    agent.says("Here it is.", attachments=attachments)
    reply_to_all()
    turn = Turn.objects.get()
    assert turn.code == "agent_bad_answer"
    assert why in turn.reason
    assert not Attachment.objects.exists()


def test_nothing_is_sent_in_a_phone_call(door, agent):
    door.says("My invoice", channel="voice", phone="+51988777666")
    agent.says("I shall mail it.", attachments=[{"url": "https://host.example/f"}])
    reply_to_all()
    assert Conversation.objects.get().chunks.latest("position").content == "I shall mail it."
    assert not Attachment.objects.exists()

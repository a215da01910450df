"""Pictures and documents go to models that take them, by the assistant's switch."""

from __future__ import annotations

import base64
import io
import time

import pytest
from django.utils import timezone
from PIL import Image

from channels_out.simulators import whatsapp
from conversations.models import Assistant, Attachment, ProviderModel, Turn
from conversations.services.replies import leases
from tests import factories
from tests.conftest import fetch_all, reply_to_all
from tests.conversations.meta_doors import post_whatsapp
from tests.conversations.test_media import sends
from tests.fakes.openai import FakeOpenAI
from tests.media_files import document, picture

pytestmark = pytest.mark.django_db


@pytest.fixture
def model(shop):
    """The model of the shop's assistant, which is to see what people send."""
    with FakeOpenAI() as fake:
        provider = factories.ModelProviderFactory(client=shop, kind="openai_compatible", base_url=fake.base_url)
        Assistant.objects.filter(client=shop).update(
            engine="openai", model_provider=provider, model="gpt-test", sees_files=True
        )
        fake.reply = lambda _messages: "I see."
        yield fake


def asked(model, number=-1):
    """The last message of a request: its text, and its other parts."""
    content = model.requests[number].body["messages"][-1]["content"]
    if isinstance(content, str):
        return content, []
    return content[0]["text"], content[1:]


def test_the_reply_to_a_picture_waits_for_it_and_the_model_is_shown_it_small_and_without_its_place(
    meta, account, model
):
    sends(meta, "image", picture(3000, 2000), caption="Is this the right part?")
    assert leases.claim(timezone.now(), 10) == []
    fetch_all()
    assert reply_to_all() == 1

    text, [part] = asked(model)
    assert "[Note: this message came with file 1 of those shown at the end, a picture]" in text
    kind, _, data = part["image_url"]["url"].partition(",")
    assert kind == "data:image/jpeg;base64"
    shown = base64.b64decode(data)
    with Image.open(io.BytesIO(shown)) as seen:
        assert max(seen.size) <= 1568
        assert not seen.getexif()


def test_a_pdf_goes_as_a_document(meta, account, model):
    sends(meta, "document", document(), content_type="application/pdf", filename="May.pdf")
    fetch_all()
    reply_to_all()

    text, [part] = asked(model)
    assert "file 1 of those shown at the end, a document" in text
    assert part["file"]["file_data"].startswith("data:application/pdf;base64,")


def test_without_the_switch_nothing_is_waited_for_or_shown(meta, account, model):
    Assistant.objects.update(sees_files=False)
    sends(meta, "image", picture())
    assert not Attachment.objects.exclude(reply_waits_until=None).exists()
    fetch_all()
    reply_to_all()
    assert asked(model)[1] == []


def test_a_model_that_is_known_to_take_no_pictures_gets_none(meta, account, model, shop):
    provider = Assistant.objects.get().model_provider
    learned = {"pictures": {"value": False, "why": "tried", "at": timezone.now().isoformat()}}
    ProviderModel.objects.create(client=shop, provider=provider, model="gpt-test", learned=learned)
    sends(meta, "image", picture())
    fetch_all()
    reply_to_all()
    assert asked(model)[1] == []


def test_a_model_that_refuses_the_picture_is_asked_again_without(meta, account, model):
    model.then("status", status=400)
    sends(meta, "image", picture())
    fetch_all()
    reply_to_all()

    assert len(asked(model, -2)[1]) == 1
    assert asked(model)[1] == []
    assert Turn.objects.get().status == "committed"


def test_a_deleted_message_s_picture_is_not_shown_any_more(meta, account, model):
    row = sends(meta, "image", picture(), message_id="wamid.secret")
    fetch_all()
    gone = {"original_message_id": "wamid.secret"}
    post_whatsapp(meta.webhook(messages=[whatsapp.message("revoke", gone)], contacts=[]))
    post_whatsapp(meta.text_webhook("What do you see?", timestamp=time.time()))
    reply_to_all()

    assert row.conversation.chunks.filter(activities__kind="deletion").exists()
    assert asked(model)[1] == []


def test_of_many_the_newest_four_are_shown_in_their_order(meta, account, model):
    for number in range(6):
        sends(meta, "image", picture(100 + number, 90), media_id=str(number))
    fetch_all()
    reply_to_all()

    _, parts = asked(model)
    widths = [Image.open(io.BytesIO(base64.b64decode(p["image_url"]["url"].partition(",")[2]))).width for p in parts]
    assert widths == [102, 103, 104, 105]

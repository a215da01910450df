"""Voice notes are written down before they are answered, if that is in time; and marked as what they are."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.utils import timezone

from conversations.models import Assistant, Attachment, Chunk, Conversation, Turn
from conversations.models.correction import corrected_text
from conversations.services.replies import leases
from tests import factories
from tests.conftest import fetch_all, reply_to_all
from tests.conversations.back_office import page_of
from tests.conversations.test_media import sends
from tests.fakes.openai import FakeOpenAI
from tests.fakes.server import Fault
from tests.fakes.transcription import FakeTranscription
from tests.media_files import picture, recording

pytestmark = pytest.mark.django_db


@contextmanager
def provider_of_transcripts(shop):
    """The shop has a provider of transcriptions."""
    with FakeTranscription("Where is my parcel?") as fake:
        shop.transcription_provider = factories.ModelProviderFactory(
            client=shop, kind="openai_compatible", base_url=fake.base_url
        )
        shop.save()
        yield fake


@pytest.fixture
def heard(shop):
    """The shop's provider of transcriptions."""
    with provider_of_transcripts(shop) as fake:
        yield fake


@pytest.fixture
def model(shop, settings):
    """The model of the shop's assistant, which repeats what it reads."""
    with FakeOpenAI() as fake:
        provider = factories.ModelProviderFactory(client=shop, kind="openai_compatible", base_url=fake.base_url)
        Assistant.objects.filter(client=shop).update(engine="openai", model_provider=provider, model="gpt-test")
        yield fake


def says(meta, **about):
    return sends(meta, "audio", recording(), content_type="audio/ogg", voice=True, **about)


def reads():
    """The newest message of the person, as it reads."""
    return Chunk.objects.filter(role="user").annotate(words=corrected_text()).latest("position").words


def test_the_reply_to_a_voice_note_waits_for_its_transcript_and_is_given_it(meta, account, heard, model):
    says(meta)
    assert leases.claim(timezone.now(), 10) == [], "not yet: the model would read [voice]"

    fetch_all()
    assert reads() == "[voice] Transcript: Where is my parcel?"
    assert heard.files == ["recording.wav"]
    assert reply_to_all() == 1
    assert "[voice] Transcript: Where is my parcel?" in model.requests[-1].body["messages"][-1]["content"]


def test_a_voice_note_of_three_minutes_is_written_down(meta, account, heard):
    sends(meta, "audio", recording(180), content_type="audio/ogg", voice=True)
    fetch_all()
    assert heard.sizes[0] > 1_400_000
    assert "Where is my parcel?" in reads()


def test_after_the_deadline_the_reply_is_written_without(meta, account, heard, settings):
    says(meta)
    late = timezone.now() + timedelta(seconds=settings.MEDIA_REPLY_SECONDS + 1)
    assert len(leases.claim(late, 10)) == 1


def test_a_reply_that_is_being_written_when_the_transcript_comes_begins_anew(meta, account, heard, model, settings):
    settings.MEDIA_REPLY_SECONDS = 0
    says(meta)
    [claimed] = leases.claim(timezone.now() + timedelta(seconds=1), 10)
    fetch_all()

    assert Turn.objects.get(pk=claimed.turn_id).status == "abandoned"
    assert reply_to_all() == 1
    assert "Where is my parcel?" in model.requests[-1].body["messages"][-1]["content"]


def test_a_card_number_that_is_said_is_removed_like_one_that_is_written(meta, account, heard):
    heard.text = "My card is 4111 1111 1111 1111, thank you."
    says(meta)
    fetch_all()
    assert "4111" not in reads()


def test_a_video_keeps_its_caption_before_the_transcript(meta, account, heard):
    sends(meta, "video", b"\0\0\0\x18ftypmp42" + b"\0" * 99, content_type="video/mp4", caption="Look")
    fetch_all()
    assert reads() == "[video] Look Transcript: Where is my parcel?"


def test_a_provider_that_fails_is_asked_again_and_then_the_recording_stays_as_it_is(meta, account, heard):
    heard.fail_next(Fault(status=500), times=20)
    says(meta)
    fetch_all(at=timezone.now() + timedelta(hours=1))

    row = Attachment.objects.get()
    assert (row.state, row.transcription, row.reply_waits_until) == ("ready", "failed", None)
    assert reads() == "[voice]"


def test_nothing_is_asked_of_a_provider_for_a_picture_or_where_none_is_configured(meta, account, shop):
    says(meta)
    sends(meta, "image", picture(), media_id="2")
    fetch_all()
    assert set(Attachment.objects.values_list("transcription", flat=True)) == {""}
    assert not Attachment.objects.exclude(reply_waits_until=None).exists()
    assert reply_to_all() == 1


def test_silence_gives_no_transcript(meta, account, heard):
    heard.text = "  "
    says(meta)
    fetch_all()
    assert reads() == "[voice]"
    assert Attachment.objects.get().transcription == "done"


def test_staff_see_that_a_model_wrote_it_down(meta, account, heard, viewer):
    says(meta)
    fetch_all()
    page = viewer.get(page_of(Conversation.objects.get())).content.decode()
    assert "Written down by a model" in page
    assert "[voice] Transcript: Where is my parcel?" in page

"""Files that people send, with a whole dispatcher: beside replies, through outages, and given back at a stop."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.db import connections
from django.utils import timezone

from channels_out.simulators import whatsapp
from conversations.models import Attachment, Chunk, Message
from conversations.services.media import claims
from conversations.services.replies.dispatcher import Dispatcher
from tests import sizes
from tests.conversations.meta_doors import post_whatsapp
from tests.conversations.test_dispatcher import eventually
from tests.conversations.test_media import sends
from tests.conversations.test_transcripts import provider_of_transcripts, reads
from tests.factories import ConversationFactory
from tests.fakes.server import Fault, Reply
from tests.media_files import picture, recording

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def dispatching(patience=20.0):
    """A dispatcher runs on a thread of its own meanwhile."""
    running = Dispatcher(patience=patience)

    def run():
        running.run()
        connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield running
    finally:
        running.stop()
        thread.join(30)
        assert not thread.is_alive()


def post_pictures(meta, numbers):
    """Each is a webhook of its own. Returns how long the slowest took, in seconds."""
    slowest = 0.0
    for number in numbers:
        item = whatsapp.media("image", media_id=f"p{number}", sender=f"5199990{number:04}")
        began = time.monotonic()
        status, _ = post_whatsapp(meta.webhook(messages=[item], contacts=[whatsapp.contact(f"5199990{number:04}")]))
        assert status == 200
        slowest = max(slowest, time.monotonic() - began)
    return slowest


def test_a_voice_note_is_fetched_written_down_and_answered(meta, account, shop):
    with provider_of_transcripts(shop), dispatching():
        sends(meta, "audio", recording(), content_type="audio/ogg", voice=True)
        eventually(lambda: Message.objects.filter(status="sent").exists())

    assert reads() == "[voice] Transcript: Where is my parcel?"
    row = Attachment.objects.get()
    assert (row.state, row.transcription, row.claim, row.due_at) == ("ready", "done", None, None)
    written = Chunk.objects.get(role="user").corrections.get().created_at
    assert Chunk.objects.get(role="ai").created_at > written


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_an_outage_of_the_media_host_costs_no_picture_and_delays_no_webhook(meta, account, settings):
    """Short here; `make test-long` has ten minutes and 500 pictures."""
    seconds, count = sizes.times(3, 600), sizes.times(60, 500)
    if seconds < 60:
        settings.RETRY_BASE_SECONDS, settings.RETRY_MOST_SECONDS = 0.05, 1.0
        settings.MEDIA_ATTEMPTS = 1_000  # so many fit into the outage of a slow machine
    small = picture(120, 90)
    meta.files.update({f"p{number}": (small, "image/jpeg") for number in range(count)})
    away = threading.Event()
    away.set()
    answer, meta.link = meta.link, lambda *given: Reply(503, b"") if away.is_set() else answer(*given)

    with dispatching():
        over_at = time.monotonic() + seconds
        slowest = post_pictures(meta, range(count))
        assert slowest < 20.0, "no webhook waits for a file, which does not come before the outage is over"
        time.sleep(max(over_at - time.monotonic(), 0))
        assert not Attachment.objects.filter(state="ready").exists()
        away.clear()
        eventually(lambda: Attachment.objects.filter(state="ready").count() == count, 1_800)
    assert not Attachment.objects.exclude(state="ready").exists()


def test_who_hangs_with_one_client_s_files_leaves_places_to_others(meta, account, neighbour, settings):
    settings.DISPATCH_MEDIA = 3
    held = Dispatcher()._media
    now = timezone.now()
    for number in range(9):
        meta.files[f"p{number}"] = (b"", "")
    post_pictures(meta, range(9))
    other = Attachment.objects.first()
    mine = Attachment.objects.exclude(pk=other.pk)
    theirs = ConversationFactory(client=neighbour)
    where = {"client": neighbour, "conversation": theirs.pk, "chunk": None, "channel_account": None}
    Attachment.objects.filter(pk=other.pk).update(**where, due_at=now + timedelta(minutes=1))

    claims.claim(now + timedelta(seconds=30), held)
    assert mine.exclude(claim=None).count() == 3
    _, late = claims.claim(now + timedelta(minutes=2), held)
    assert (neighbour.pk, other.pk) in late


def test_a_stop_gives_the_file_back_so_that_another_fetches_it_at_once(meta, account):
    meta.fail_next(Fault(hang=30))
    sends(meta, "image", picture())
    with dispatching(patience=0.2):
        eventually(lambda: meta.requests)

    row = Attachment.objects.get()
    assert (row.claim, row.state, row.tries) == (None, "waiting", 0)
    assert row.due_at <= timezone.now()

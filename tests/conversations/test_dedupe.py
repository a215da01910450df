"""Dedupe keys and tombstones: which messages are the same, and how long that is known."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from conversations.models import MessageTombstone
from conversations.services.core import dedupe
from conversations.services.core.dedupe import TOMBSTONES_LAST, dedupe_key
from conversations.services.staff_actions import seed_helpers
from tests import factories

NOW = timezone.now()
CLIENT = uuid4()
MOMENT = timedelta(microseconds=1)


def test_a_key_is_of_the_scope_and_of_the_id():
    keys = [("scope", "id"), ("scope", "id2"), ("scope2", "id"), ("scopei", "d"), ("", "scopeid"), ("id", "scope")]
    assert len({dedupe_key(*each) for each in keys}) == len(keys)
    assert dedupe_key("scope", "id") == dedupe_key("scope", "id")


def test_without_an_id_there_is_no_key():
    assert dedupe_key("scope", "") is None


def test_a_key_stays_the_same_from_release_to_release():
    """Keys are stored: with other keys, every message that comes again would be a new one."""
    assert str(dedupe_key("scope", "id")) == "86f6a621-2a5c-3123-60db-e4579d85bd40"


@pytest.mark.django_db
def test_a_key_is_new_once():
    key = uuid4()
    assert [dedupe.is_first_time(CLIENT, each, NOW) for each in (key, key, uuid4())] == [True, False, True]
    assert set(MessageTombstone.objects.values_list("expires_at", flat=True)) == {NOW + TOMBSTONES_LAST}


@pytest.mark.django_db
def test_a_tombstone_is_kept_to_its_last_moment():
    dedupe.is_first_time(CLIENT, uuid4(), NOW)
    assert dedupe.trim_tombstones(NOW + TOMBSTONES_LAST) == 0
    assert dedupe.trim_tombstones(NOW + TOMBSTONES_LAST + MOMENT) == 1
    assert not MessageTombstone.objects.exists()


@pytest.mark.django_db
def test_every_message_of_the_conversations_and_no_other_gets_a_tombstone():
    kept, gone = factories.ConversationFactory(), factories.ConversationFactory()
    keys = [uuid4() for _ in range(3)]
    for conversation, key in zip((gone, gone, kept), keys, strict=True):
        seed_helpers.append_chunk(conversation.pk, "user", "Hello")
        conversation.chunks.filter(dedupe_key=None).update(dedupe_key=key, created_at=NOW - timedelta(days=400))
    seed_helpers.append_chunk(gone.pk, "user", "without an id")
    dedupe.is_first_time(gone.client_id, keys[0], NOW)
    dedupe.write_tombstones(gone.client_id, [gone.pk], NOW)
    found = dict(MessageTombstone.objects.values_list("dedupe_key", "expires_at"))
    assert found == dict.fromkeys(keys[:2], NOW + TOMBSTONES_LAST), "however old they are"

"""Idempotency keys: what is kept under a key, until when, and about which conversation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from conversations.models import Client, Conversation, IdempotencyKey
from conversations.services.core import idempotency
from conversations.services.core.errors import ConflictError, NotFoundError, TooManyError, UnavailableError
from conversations.services.core.idempotency import KEPT_FOR, RefusedError, StoredResponse
from conversations.services.staff_actions import send
from tests import factories
from tests.routes import Answer, WebServer

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
MOMENT = timedelta(microseconds=1)


def once(client: Client, data: Any, now: datetime = NOW, key: str = "k1", **more: Any) -> tuple[Any, bool]:
    fingerprint = more.pop("fingerprint", b"f")
    answer, again = idempotency.run_once(
        client, key, fingerprint, lambda: StoredResponse(201, data, more.get("conversation_id")), now
    )
    return answer.data, again


# --- for how long -----------------------------------------------------------------------------------------------------
def test_a_key_is_used_until_its_last_moment_and_then_it_is_as_new(shop):
    assert once(shop, "first") == ("first", False)
    end = NOW + KEPT_FOR
    assert once(shop, "second", end - MOMENT) == ("first", True)
    assert once(shop, "third", end, fingerprint=b"g") == ("third", False)
    kept = IdempotencyKey.objects.get()
    assert (kept.status, bytes(kept.fingerprint), kept.expires_at) == (201, b"g", end + KEPT_FOR)
    assert once(shop, "fourth", end + MOMENT, fingerprint=b"g") == ("third", True)


def test_a_key_that_begins_anew_is_about_no_conversation_of_before(shop):
    conversation = factories.ConversationFactory(client=shop)
    once(shop, "first", conversation_id=conversation.pk)
    assert IdempotencyKey.objects.get().conversation == conversation
    once(shop, "second", NOW + KEPT_FOR)
    assert IdempotencyKey.objects.get().conversation is None


def test_expired_keys_are_deleted_from_their_last_moment_on_and_no_others(shop):
    once(shop, "first")
    once(shop, "second", NOW + MOMENT, "k2")
    assert idempotency.delete_expired(NOW + KEPT_FOR - MOMENT) == 0
    assert idempotency.delete_expired(NOW + KEPT_FOR) == 1
    assert IdempotencyKey.objects.get().key == "k2"


# --- what is kept -----------------------------------------------------------------------------------------------------
def test_a_refusal_is_kept_and_what_it_did_is_undone(shop):
    def refuse() -> StoredResponse:
        factories.ContactFactory(client=shop, user_id="undone")
        raise RefusedError(StoredResponse(409, {"why": "ended"}))

    first = idempotency.run_once(shop, "k1", b"f", refuse, NOW)
    assert first == (StoredResponse(409, {"why": "ended"}), False)
    assert not shop.contacts.exists()
    assert idempotency.run_once(shop, "k1", b"f", refuse, NOW) == (first[0], True)


def test_another_error_leaves_the_key_unused(shop):
    def fail() -> StoredResponse:
        raise UnavailableError("Later.")

    with pytest.raises(UnavailableError):
        idempotency.run_once(shop, "k1", b"f", fail, NOW)
    assert not IdempotencyKey.objects.exists()


def test_a_used_key_with_another_request_is_a_conflict(shop):
    once(shop, "first")
    with pytest.raises(ConflictError) as refused:
        once(shop, "second", fingerprint=b"g")
    assert refused.value.code == "idempotency_key_reused"


def test_an_answer_is_about_a_conversation_of_the_client_s_own_alone(shop, neighbour):
    theirs, ours = factories.ConversationFactory(client=neighbour), factories.ConversationFactory(client=shop)
    for number, about in enumerate((theirs.pk, uuid4(), None, ours.pk)):
        once(shop, "x", key=str(number), conversation_id=about)
    kept = dict(IdempotencyKey.objects.values_list("key", "conversation"))
    assert kept == {"0": None, "1": None, "2": None, "3": ours.pk}


def test_every_text_of_an_answer_is_changed_and_nothing_else(shop):
    conversation, other = (factories.ConversationFactory(client=shop) for _ in range(2))
    said = {"text": "4711", "n": 4711, "none": None, "all": ["4711", 5, {"deep": "4711"}], "is": True}
    once(shop, said, conversation_id=conversation.pk)
    once(shop, "nothing of it", key="k2", conversation_id=conversation.pk)
    once(shop, "4711", key="k3", conversation_id=other.pk)
    idempotency.change_text(conversation, lambda text: text.replace("4711", "*"))
    assert once(shop, "") == (
        {"text": "*", "n": 4711, "none": None, "all": ["*", 5, {"deep": "*"}], "is": True},
        True,
    )
    assert [once(shop, "", key=key)[0] for key in ("k2", "k3")] == ["nothing of it", "4711"]


# --- over HTTP --------------------------------------------------------------------------------------------------------
def post(server: WebServer, path: str, body: Any, key: str = "k1") -> Answer:
    return server.call("POST", path, body, headers={"X-Service-API-Key": server.key, "Idempotency-Key": key})


@pytest.fixture
def path(ids: dict[str, Any]) -> str:
    return f"/conversations/{ids['pk']}/send"


SAID = {"role": "ai", "content": "Hello"}


@pytest.mark.parametrize(
    ("where", "body"),
    {
        "/conversations": {"channel": "sms", "phone": "+51999999997"},
        "/api/v1/conversations": {"userId": "+51999999997", "metadata": {"platform": "sms"}},
    }.items(),
)
def test_the_answer_about_a_conversation_that_was_opened_goes_with_it(server, shop, where, body):
    assert post(server, where, body).status == 201
    assert IdempotencyKey.objects.get().conversation == Conversation.objects.get()


def test_the_answer_about_a_conversation_in_the_path_goes_with_it(server, path, ids):
    assert post(server, path, SAID).status == 201
    assert IdempotencyKey.objects.get().conversation_id == UUID(str(ids["pk"]))


@pytest.mark.parametrize("word", ["k", "x" * 255, "a b", "!", "~"])
def test_any_printable_word_of_one_to_255_characters_is_a_key(server, path, word):
    assert post(server, path, SAID, word).status == 201
    assert IdempotencyKey.objects.get().key == word


@pytest.mark.parametrize(
    ("error", "status", "is_kept"),
    [
        (TooManyError("Slower.", retry_after=1), 429, False),
        (UnavailableError("Later."), 503, False),
        (NotFoundError("There is none."), 404, True),
        (ConflictError("It has ended."), 409, True),
    ],
)
def test_what_may_succeed_later_is_not_kept_and_a_refusal_is(server, path, monkeypatch, error, status, is_kept):
    def fail(*_: Any, **__: Any) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(send, "send", fail)
        first = post(server, path, SAID)
    assert first.status == status
    again = post(server, path, SAID)
    assert again.status == (status if is_kept else 201)
    assert ("Idempotency-Replayed" in again.headers) is is_kept
    if is_kept:
        assert again.json == first.json


def test_a_get_takes_no_key(server, ids):
    for key in ("k1", "x" * 256):
        for _ in range(2):
            headers = {"X-Service-API-Key": server.key, "Idempotency-Key": key}
            answer = server.call("GET", f"/conversations/{ids['pk']}", headers=headers)
            assert answer.status == 200
            assert "Idempotency-Replayed" not in answer.headers
    assert not IdempotencyKey.objects.exists()


def test_a_post_where_nothing_is_posted_is_refused_as_ever(server, ids):
    answer = post(server, f"/conversations/{ids['pk']}", {})
    assert answer.status == 405
    assert not IdempotencyKey.objects.exists()

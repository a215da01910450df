"""A POST with an Idempotency-Key is done once, whoever sends it how often, and is answered alike for a day."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from conversations.models import Chunk, Client, Conversation, IdempotencyKey
from conversations.services.core import idempotency
from conversations.services.core.ledger import SYSTEM
from conversations.services.core.pipelines import connection_settings
from conversations.services.delivery import outbox
from conversations.services.jobs import sweep
from conversations.services.staff_actions import corrections, send
from conversations.services.tenants import api_keys
from tests import factories
from tests.conversations.conftest import close, in_business
from tests.conversations.own_json import revoke, switch_off
from tests.races.threads import together
from tests.routes import ONCE, Answer, Operation, WebServer, assert_failure, good_body, written

pytestmark = pytest.mark.django_db


def post(server: WebServer, path: str, body: Any, key: str = "k1", api_key: str = "") -> Answer:
    return server.call("POST", path, body, headers={"X-Service-API-Key": api_key or server.key, "Idempotency-Key": key})


def said() -> list[str]:
    return list(Chunk.objects.filter(role="ai").values_list("content", flat=True))


@pytest.fixture
def path(ids: dict[str, Any]) -> str:
    return f"/conversations/{ids['pk']}/send"


def sent(text: str = "Hello") -> dict[str, str]:
    return {"role": "ai", "content": text}


@pytest.mark.parametrize("operation", ONCE, ids=str)
def test_the_same_again_changes_nothing_and_gives_the_first_answer(
    operation: Operation, server: WebServer, ids: dict[str, Any], shop: Client
) -> None:
    where, body = operation.route.path(ids), good_body(operation, shop.pk)
    first = post(server, where, body)
    assert first.status in (200, 201)
    before = written()
    again = post(server, where, body)
    assert (again.status, again.json) == (first.status, first.json)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert written() == before


@pytest.mark.parametrize("operation", ONCE, ids=str)
def test_the_description_names_the_header(operation: Operation) -> None:
    assert [each["name"] for each in operation.described["parameters"] if each["in"] == "header"] == ["Idempotency-Key"]


def test_a_body_of_the_same_json_is_the_same_body(server: WebServer, path: str) -> None:
    post(server, path, b'{"role": "ai", "content": "Hello"}')
    assert post(server, path, b'{"content":"Hello",\n"role":"ai"}').status == 201
    assert said() == ["Hello"]


def test_another_body_is_a_conflict(server: WebServer, path: str) -> None:
    post(server, path, sent())
    for body in (sent("Goodbye"), {"content": "Hello"}, {**sent(), "x": 1}):
        assert_failure(post(server, path, body), 409, code="idempotency_key_reused")
    assert_failure(post(server, path + "?x=1", sent()), 409, code="idempotency_key_reused")
    assert said() == ["Hello"]


def test_a_key_is_its_client_s_own(
    server: WebServer, path: str, neighbour: Client, neighbours_key: str, key: str
) -> None:
    post(server, path, sent())
    theirs = f"/conversations/{in_business(neighbour)['pk']}/send"
    assert post(server, theirs, sent("Other"), api_key=neighbours_key).status == 201
    assert sorted(said()) == ["Hello", "Other"]


def test_any_key_of_the_client_finds_it(server: WebServer, path: str, shop: Client) -> None:
    post(server, path, sent())
    assert post(server, path, sent(), api_key=api_keys.create_api_key(shop)[1]).headers["Idempotency-Replayed"]
    assert said() == ["Hello"]


@pytest.mark.parametrize("bad", ["", "x" * 256, "a\tb", "é", "\xff"])
def test_what_is_no_key_is_refused(server: WebServer, path: str, bad: str) -> None:
    answer = post(server, path, sent(), bad)
    assert_failure(answer, 400, code="invalid")
    assert list(answer.json["details"]) == ["Idempotency-Key"]
    assert said() == []


def test_a_refusal_is_an_answer_too(server: WebServer, path: str, ids: dict[str, Any]) -> None:
    close(ids["pk"])
    first = post(server, path, sent(), "late")
    assert_failure(first, 409, code="ended")
    Conversation.objects.filter(pk=ids["pk"]).update(status="active", ended_at=None, ended_by="")
    assert post(server, path, sent(), "late").json == first.json
    assert said() == []


def test_after_our_own_fault_it_is_tried_again(server: WebServer, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for fault, status in ((OperationalError("gone"), 503), (RuntimeError("broken"), 500)):
        with monkeypatch.context() as broken:
            broken.setattr(outbox, "queue", lambda *_, fault=fault: (_ for _ in ()).throw(fault))
            assert post(server, path, sent()).status == status
        assert said() == []
        assert not IdempotencyKey.objects.exists()
    assert post(server, path, sent()).status == 201
    assert said() == ["Hello"]


def test_what_makes_no_sense_takes_no_key(server: WebServer, path: str) -> None:
    """Such as what a proxy cut off when its caller died: who sends it again, whole, is not refused."""
    for body in (b"{", b"", b"{}", {**sent(), "content": 5}):
        assert_failure(post(server, path, body), 400)
    assert post(server, path, sent()).status == 201
    assert said() == ["Hello"]


def test_it_is_kept_for_a_day_and_then_trimmed(server: WebServer, path: str) -> None:
    post(server, path, sent())
    now = timezone.now()
    sweep.sweep(now + timedelta(hours=23, minutes=59))
    assert IdempotencyKey.objects.count() == 1
    IdempotencyKey.objects.update(expires_at=now - timedelta(seconds=1))
    Conversation.objects.update(status="active", ended_at=None, ended_by="")
    assert post(server, path, sent("Tomorrow")).status == 201, "it is over, though not trimmed yet"
    assert said() == ["Hello", "Tomorrow"]
    sweep.sweep(now + timedelta(hours=25))
    assert not IdempotencyKey.objects.exists()


def test_a_redaction_reaches_the_answers_that_are_kept(server: WebServer, path: str, ids: dict[str, Any]) -> None:
    post(server, path, sent("My card is 4111"))
    position = Chunk.objects.get(role="ai").position
    corrections.redact(ids["pk"], position, actor=SYSTEM, now=timezone.now())
    again = post(server, path, sent("My card is 4111"))
    assert again.json["data"]["chunk"]["content"] == "[redacted]"
    assert "4111" not in IdempotencyKey.objects.get().answer


def test_a_purge_takes_the_answers_along(server: WebServer, path: str, ids: dict[str, Any]) -> None:
    post(server, path, sent())
    Conversation.objects.update(is_guest=True)
    sweep.sweep(timezone.now() + timedelta(hours=23))
    sweep.sweep(timezone.now() + timedelta(hours=25))
    assert not IdempotencyKey.objects.exists()
    assert_failure(post(server, path, sent()), 404)


@pytest.mark.django_db(transaction=True)
def test_of_many_at_once_one_does_it(server: WebServer, path: str) -> None:
    answers = together(*[lambda key=key: post(server, path, sent(key), key) for key in "abc" * 8])
    assert {answer.status for answer in answers} == {201}
    assert Counter(said()) == {"a": 1, "b": 1, "c": 1}
    assert len({answer.body for answer in answers}) == 3
    assert sum("Idempotency-Replayed" in answer.headers for answer in answers) == 21


@pytest.mark.django_db(transaction=True)
def test_who_waits_for_one_that_fails_does_it_instead(
    server: WebServer, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([True, True, True])
    real = send.send

    def often_fails(*args: Any, **more: Any) -> Any:
        done = real(*args, **more)
        if next(failures, False):
            raise OperationalError("the server closed the connection")
        return done

    monkeypatch.setattr(send, "send", often_fails)
    answers = together(*[lambda: post(server, path, sent()) for _ in range(8)])
    assert sorted(answer.status for answer in answers) == [201] * 5 + [503] * 3
    assert said() == ["Hello"]


# --- whose answer it is -----------------------------------------------------------------------------------------------
OPENS = {
    "/conversations": {"channel": "sms", "phone": "+51999999997", "variables": {"due_date": "Friday"}},
    "/api/v1/conversations": {"userId": "+51999999997", "metadata": {"platform": "sms"}},
}


@pytest.mark.parametrize(("where", "body"), OPENS.items(), ids=OPENS)
def test_two_clients_with_the_same_key_and_request_have_an_answer_each(
    server: WebServer, shop: Client, neighbour: Client, neighbours_key: str, where: str, body: dict[str, Any]
) -> None:
    keys = {shop.pk: server.key, neighbour.pk: neighbours_key}
    first = {client: post(server, where, body, api_key=key) for client, key in keys.items()}
    assert [each.status for each in first.values()] == [201, 201]
    assert not any("Idempotency-Replayed" in each.headers for each in first.values())
    assert len({each.body for each in first.values()}) == 2
    before = written()
    for client, key in [*keys.items(), *reversed(keys.items())]:
        again = post(server, where, body, api_key=key)
        assert again.headers["Idempotency-Replayed"] == "true"
        assert again.json == first[client].json
    assert written() == before


def test_each_key_of_a_client_has_its_own_answer(server: WebServer, path: str) -> None:
    first = {key: post(server, path, sent("Hello"), key) for key in ("k1", "k2", "k3")}
    assert len({each.body for each in first.values()}) == 3
    for key in ("k3", "k1", "k2"):
        assert post(server, path, sent("Hello"), key).json == first[key].json
    assert said() == ["Hello"] * 3


def test_another_client_s_answer_is_no_conflict_either(
    server: WebServer, neighbour: Client, neighbours_key: str
) -> None:
    [(where, body), *_] = OPENS.items()
    assert post(server, where, body).status == 201
    other = post(server, where, {**body, "phone": "+51999999996"}, api_key=neighbours_key)
    assert other.status == 201
    assert "Idempotency-Replayed" not in other.headers


def test_another_route_or_conversation_with_the_same_body_is_a_conflict(
    server: WebServer, ids: dict[str, Any], shop: Client
) -> None:
    route = f"/api/v1/conversations/{ids['pk']}"
    other = factories.ConversationFactory(client=shop)
    assert post(server, f"{route}/reset", {}).status == 200
    before = written()
    for where in (f"{route}/end", f"{route}/extend", f"/api/v1/conversations/{other.pk}/reset", f"{route}/reset?x=1"):
        assert_failure(post(server, where, {}), 409, code="idempotency_key_reused")
    assert written() == before


@pytest.mark.parametrize("change", ["revoked", "switched off"])
def test_a_kept_answer_is_none_for_a_key_that_is_valid_no_more(
    server: WebServer, path: str, shop: Client, change: str
) -> None:
    assert post(server, path, sent("A secret")).status == 201
    if change == "revoked":
        revoke(server.key)
    else:
        switch_off(shop.pk)
    refused = post(server, path, sent("A secret"))
    assert_failure(refused, 401, code="authentication_failed")
    assert b"secret" not in refused.body


def test_a_redaction_leaves_the_answers_about_other_conversations(
    server: WebServer, path: str, ids: dict[str, Any], shop: Client
) -> None:
    other = factories.ConversationFactory(client=shop)
    post(server, path, sent("My card is 4111"), "one")
    post(server, f"/conversations/{other.pk}/send", sent("My card is 4111"), "other")
    position = Chunk.objects.get(role="ai", conversation=ids["pk"]).position
    corrections.redact(ids["pk"], position, actor=SYSTEM, now=timezone.now())
    kept = {each.key: each.answer for each in IdempotencyKey.objects.all()}
    assert "4111" not in kept["one"]
    assert "4111" in kept["other"]


@pytest.mark.django_db(transaction=True)
def test_deleting_what_has_expired_waits_for_no_request_that_uses_its_key_again(shop: Client) -> None:
    expired = timezone.now() - timedelta(hours=1)
    for key in ("in use", "left"):
        IdempotencyKey.objects.create(
            client=shop, key=key, fingerprint=b"f", status=200, answer="{}", expires_at=expired
        )
    with psycopg.connect(**connection_settings()) as other, other.transaction():
        other.execute("SELECT FROM idempotency_keys WHERE key = 'in use' FOR UPDATE")
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '2s'")  # an error instead of a test without an end
            assert idempotency.delete_expired(timezone.now()) == 1
    assert [kept.key for kept in IdempotencyKey.objects.all()] == ["in use"]

"""The front door answers what it answers exactly as Django's views do, for as few statements as promised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connection, reset_queries, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from conversations.models import ApiKey, Client, Contact, ContactIdentity, Conversation
from conversations.services.core import detail_sql
from conversations.services.inbound import messages
from conversations.services.tenants import api_keys
from convo_project import wsgi
from tests import factories
from tests.conversations.conftest import close
from tests.routes import Answer, WebServer, assert_failure, written
from tests.web_door import behind_the_loop

pytestmark = pytest.mark.django_db

WEBHOOK = "/webhooks/sms/inbound"
CALL = "/webhooks/voice/inbound"


@pytest.fixture
def django(key: str) -> WebServer:
    """The same without the front door."""
    return WebServer(key, wsgi.application)


def undone(call: Callable[[], Answer]) -> tuple[Answer, dict[str, Any]]:
    """What a call answers and would leave behind; nothing of it is left behind."""
    with transaction.atomic():
        answer = call()
        left = {table: count for table, (count, _) in written().items()}
        transaction.set_rollback(True)
    return answer, left


def comparable(answer: Answer) -> tuple[int, str | None, str | None, Any]:
    """An answer without the ids that no two calls share."""
    body = answer.json
    for name in ("chunk_id", "conversation_id"):
        if body.get("data", {}).get(name) and body["data"].get("duplicate") is False:
            body["data"][name] = "an id"
    headers = answer.headers
    return answer.status, headers.get("Content-Type"), headers.get("X-Content-Type-Options"), body


# --- the same answer --------------------------------------------------------------------------------------------------
MESSAGES: dict[str, dict[str, Any]] = {
    "a new person": {"user_id": "bea"},
    "a new person with a phone": {"user_id": "bea", "phone": "+51999999999", "name": "Bea"},
    "an open session": {},
    "an open session, a new id": {"message_id": "m2"},
    "an open session, something new of the person": {"phone": "+51999999999"},
    "an open session, nothing new of the person": {"name": "Ann"},
    "a stale session": {"user_id": "stale"},
    "an ended session": {"user_id": "ended"},
    "the same again": {"message_id": "m1"},
    "the same again, other words": {"message_id": "m1", "message": "Other words", "name": "Bea"},
    "the same again, ended since": {"user_id": "ended", "message_id": "m1"},
    "metadata": {"metadata": {"a": [1, {"b": None}]}},
    "unknown fields": {"sentiment": "good"},
    "a blank message": {"message": " "},
    "no message": {"message": None},
    "a message of a number": {"message": 5},
    "no user": {"user_id": None},
    "a phone that is none": {"phone": "5"},
    "metadata that is none": {"metadata": []},
    "a client that is none": {"client_id": "5"},
    "no client": {"client_id": None},
    "a foreign client": {"client_id": "{neighbour}"},
    "a client that never was": {"client_id": "5f0c7a52-0000-4000-8000-000000000000"},
    "no body": None,  # type: ignore[dict-item]
}
REQUESTS: dict[str, dict[str, Any]] = {
    "with the key": {},
    "with a revoked key": {"key": "{revoked}"},
    "with an unknown key": {"key": "convo_wrong"},
    "with the neighbour's key": {"key": "{neighbours_key}"},
    "with blanks around the key": {"key": " {key} "},
    "with no key": {"key": ""},
    "as text": {"content_type": "text/plain"},
    "as JSON in Latin": {"content_type": "Application/JSON; charset=latin-1"},
}


@pytest.fixture
def words(shop: Client, key: str, neighbour: Client, neighbours_key: str) -> dict[str, str]:
    """What the placeholders above stand for."""
    revoked, revoked_key = api_keys.create_api_key(shop, "revoked")
    ApiKey.objects.filter(pk=revoked.pk).update(revoked_at=timezone.now())
    return {"key": key, "revoked": revoked_key, "neighbour": str(neighbour.pk), "neighbours_key": neighbours_key}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_a_message_is_answered_as_by_the_view(
    message: dict[str, Any] | None, request_: dict[str, Any], shop: Client, words: dict[str, str], django: WebServer
) -> None:
    front = WebServer(django.key)
    known = {"client_id": str(shop.pk), "user_id": "ann", "message": "Hello", "message_id": "m1", "name": "Ann"}
    front.call("POST", WEBHOOK, known)
    front.call("POST", WEBHOOK, {**known, "user_id": "stale"})
    Conversation.objects.filter(contact__user_id="stale").update(status="stale")
    close(front.call("POST", WEBHOOK, {**known, "user_id": "ended"}).json["data"]["conversation_id"])
    said = {"client_id": str(shop.pk), "user_id": "ann", "message": "Hello again"}
    body: Any = b""
    if message is not None:
        body = said | {name: filled(value, words) for name, value in message.items()}
    front.key = django.key = filled(request_.get("key", "{key}"), words)
    how = {"content_type": request_.get("content_type", "application/json")}

    by_view, left_by_view = undone(lambda: django.call("POST", WEBHOOK, body, **how))
    by_front_door, left_by_front_door = undone(lambda: front.call("POST", WEBHOOK, body, **how))

    assert comparable(by_front_door) == comparable(by_view)
    assert left_by_front_door == left_by_view


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("path", ["{pk}", "{pk}?chunks=1", "{pk}?x=1", "{pk}?", "{foreign}", "{never}", "5", "{pk}/"])
def test_a_session_is_shown_as_by_the_view(
    path: str, request_: dict[str, Any], ids: dict[str, Any], words: dict[str, str], django: WebServer
) -> None:
    foreign = WebServer(words["neighbours_key"]).call(
        "POST", WEBHOOK, {"client_id": words["neighbour"], "user_id": "ann", "message": "Hello"}
    )
    places = {
        "pk": str(ids["pk"]),
        "foreign": foreign.json["data"]["conversation_id"],
        "never": "5f0c7a52-0000-4000-8000-000000000000",
    }
    front = WebServer(django.key)
    front.key = django.key = filled(request_.get("key", "{key}"), words)
    url = "/conversations/" + path.format(**places)
    one, other = front.call("GET", url), django.call("GET", url)
    assert comparable(one) == comparable(other)
    assert one.body == other.body


def filled(value: Any, words: dict[str, str]) -> Any:
    return value.format(**words) if isinstance(value, str) and value.startswith(("{", " {")) else value


# --- as few statements as promised ------------------------------------------------------------------------------------
@pytest.fixture
def fresh_keys(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """No key was used within the last minute."""
    touched: dict[int, float] = {}
    monkeypatch.setattr(api_keys, "_touched", touched)
    return touched


def statements(call: Callable[[], Any]) -> list[str]:
    reset_queries()
    with CaptureQueriesContext(connection) as captured:
        call()
    return [each["sql"] for each in captured.captured_queries]


@pytest.mark.parametrize("front_door", [True, False])
@pytest.mark.parametrize("how", ["key in our header", "bearer"])
def test_an_append_is_one_statement(
    front_door: bool, how: str, server: WebServer, django: WebServer, shop: Client, fresh_keys: dict[int, float]
) -> None:
    chosen = server if front_door else django
    headers = {"Authorization": f"Bearer {chosen.key}"} if how == "bearer" else None
    body = {"client_id": str(shop.pk), "user_id": "ann", "message": "Hello", "message_id": "m0"}
    chosen.call("POST", WEBHOOK, body, headers=headers)
    for number in range(1, 4):
        said = {**body, "message_id": f"m{number}"}
        assert len(statements(lambda said=said: chosen.call("POST", WEBHOOK, said, headers=headers))) == 1
    fresh_keys.clear()
    took = statements(lambda: chosen.call("POST", WEBHOOK, {**body, "message_id": "m4"}, headers=headers))
    assert len(took) == 2, "once a minute, when the key was used last"
    assert "last_used_at" in took[1]


@pytest.mark.parametrize("front_door", [True, False])
@pytest.mark.parametrize("contact", ["new", "known", "on another channel", "in another call"])
def test_opening_a_session_is_two(
    front_door: bool,
    contact: str,
    server: WebServer,
    django: WebServer,
    shop: Client,
    neighbour: Client,
    fresh_keys: dict[int, float],
) -> None:
    """Count the same beside other open sessions, and with a neighbour who has the same phone."""
    chosen = server if front_door else django
    body = {"client_id": str(shop.pk), "user_id": "ann", "message": "Hello", "phone": "+51999999999"}
    where = CALL if contact == "in another call" else WEBHOOK
    chosen.call("POST", where, {**body, "user_id": "zoe", "phone": "+51999999990"})
    factories.ContactFactory(client=neighbour, user_id="nina", phone=body["phone"], is_guest=False)
    if contact == "known":
        close(chosen.call("POST", WEBHOOK, body).json["data"]["conversation_id"])
    elif contact != "new":
        before = CALL if contact == "in another call" else "/webhooks/whatsapp/inbound"
        chosen.call("POST", before, {**body, "thread": "call-1"})
    fresh_keys.clear()
    took = statements(lambda: chosen.call("POST", where, body))
    assert len(took) == 3, took
    assert "last_used_at" in took[2]
    assert Conversation.objects.open().filter(contact__user_id="ann").count() == 1 + (contact not in ("new", "known"))


@pytest.mark.parametrize("front_door", [True, False])
def test_reading_a_session_is_one_statement_however_long_it_is(
    front_door: bool, server: WebServer, django: WebServer, ids: dict[str, Any]
) -> None:
    chosen, path = server if front_door else django, f"/conversations/{ids['pk']}"
    chosen.call("GET", path)
    assert len(statements(lambda: chosen.call("GET", path))) == 1
    for number in range(30):
        chosen.call("POST", f"{path}/send", {"content": f"Number {number}"})
        chosen.call("POST", f"{path}/steps", {"description": f"Step {number}"})
    assert len(statements(lambda: chosen.call("GET", path))) == 1


def nobody(environ: dict[str, Any], start_response: Any) -> Any:
    assert environ["PATH_INFO"] == "/healthz", "it went to Django"
    return wsgi.application(environ, start_response)


ALONE = behind_the_loop(nobody)


# --- what it answers itself and what not ------------------------------------------------------------------------------
def test_only_success_is_answered_in_front(server: WebServer, ids: dict[str, Any], shop: Client) -> None:
    server.application = ALONE
    body = {"client_id": str(shop.pk), "user_id": "ann", "message": "Hello", "message_id": "m1"}
    for answer in (
        server.call("POST", WEBHOOK, body),
        server.call("POST", WEBHOOK, {**body, "message_id": "m2"}),
        server.call("POST", WEBHOOK, {**body, "message_id": "m2"}),
        server.call("POST", WEBHOOK, {**body, "message_id": "m3", "phone": "+51999999999"}),
        server.call("GET", f"/conversations/{ids['pk']}"),
    ):
        assert (answer.status, answer.json["success"]) == (200, True)
        assert answer.headers["Content-Length"] == str(len(answer.body))
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert server.call("POST", WEBHOOK, {**body, "message": None}).status == 500


@pytest.mark.parametrize("front_door", [True, False])
@pytest.mark.parametrize(
    ("what", "most"), [("delivered again", 3), ("a new phone", 20), ("another client", 4), ("a revoked key", 4)]
)
def test_no_statement_runs_twice_for_one_request(
    what: str,
    most: int,
    front_door: bool,
    server: WebServer,
    django: WebServer,
    shop: Client,
    words: dict[str, str],
    fresh_keys: dict[int, float],
) -> None:
    chosen = server if front_door else django
    body = {"client_id": str(shop.pk), "user_id": "ann", "message": "Hello", "message_id": "m1"}
    chosen.call("POST", WEBHOOK, body)
    fresh_keys.clear()
    if what == "a new phone":
        body |= {"message_id": "m2", "phone": "+51999999999"}
    elif what == "another client":
        body["client_id"] = words["neighbour"]
    elif what == "a revoked key":
        chosen.key = words["revoked"]
    took = statements(lambda: chosen.call("POST", WEBHOOK, body))
    looks = [sql for sql in took if not sql.startswith(("SAVEPOINT", "RELEASE"))]
    assert sorted(looks) == sorted(set(looks))
    assert len(took) <= most + ("last_used_at" in " ".join(took))


@pytest.mark.parametrize("error", [OperationalError("gone"), ValueError(), RecursionError()])
def test_a_fault_in_front_is_an_envelope_too(
    error: Exception,
    server: WebServer,
    ids: dict[str, Any],
    shop: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: Any) -> None:
        raise error

    monkeypatch.setattr(connection, "close", lambda: None)  # it is the test's own
    monkeypatch.setattr(messages, "append_by_key", broken)
    monkeypatch.setattr(detail_sql, "conversation_by_key", broken)
    body = {"client_id": str(shop.pk), "user_id": "ann", "message": "Hello"}
    for answer in (server.call("POST", WEBHOOK, body), server.call("GET", f"/conversations/{ids['pk']}")):
        if isinstance(error, OperationalError):
            assert_failure(answer, 503, code="unavailable")
            assert answer.headers["Retry-After"] == "1"
        else:
            assert_failure(answer, 500, code="server_error")


# --- bodies without a length ------------------------------------------------------------------------------------------
CHUNKED = {"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked"}


def test_a_body_that_comes_in_chunks_is_read(server: WebServer, ids: dict[str, Any], shop: Client) -> None:
    server.environ = CHUNKED
    body = {"client_id": str(shop.pk), "user_id": "ann", "message": "Hello"}
    assert server.call("POST", WEBHOOK, body).json["data"]["position"] == 4
    assert server.call("POST", f"/conversations/{ids['pk']}/send", {"content": "Hello"}).status == 201
    closed = server.call("POST", f"/conversations/{ids['pk']}/close", {"ended_by": "user", "reason": "goodbye"})
    assert (closed.json["data"]["ended_by"], closed.json["data"]["end_reason"]) == ("user", "goodbye")
    assert_failure(server.call("POST", WEBHOOK, b""), 400, code="malformed")


def test_a_body_that_comes_in_chunks_has_the_same_limit(server: WebServer, ids: dict[str, Any]) -> None:
    server.environ = CHUNKED
    before = written()
    for path in (WEBHOOK, f"/conversations/{ids['pk']}/send"):
        assert_failure(server.call("POST", path, b" " * 4_000_000), 413, code="too_large")
    assert written() == before


# --- what the database refuses the first time -------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("front_door", [True, False])
def test_two_people_may_share_a_phone(front_door: bool, server: WebServer, django: WebServer, shop: Client) -> None:
    """The number is an address of one of them; both are known by it, and both have a session."""
    chosen = server if front_door else django
    said = {"client_id": str(shop.pk), "message": "Hello", "phone": "+51999999999"}
    answers = [chosen.call("POST", WEBHOOK, {**said, "user_id": user_id}) for user_id in ("ann", "bob", "ann", "bob")]
    assert [answer.status for answer in answers] == [200] * 4
    data = [answer.json["data"] for answer in answers]
    assert [each["created"] for each in data] == [True, True, False, False]
    assert data[0]["conversation_id"] == data[2]["conversation_id"] != data[1]["conversation_id"]
    assert set(Contact.objects.values_list("phone", flat=True)) == {"+51999999999"}
    assert ContactIdentity.objects.get().contact.user_id == "ann"

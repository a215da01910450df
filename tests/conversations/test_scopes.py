"""Scopes: a key may do what its scopes say and nothing else, at every route, and is refused once it has expired."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import IntegrityError, transaction
from django.test import Client as HttpClient
from django.urls import reverse
from django.utils import timezone

from conversations.models import ApiKey, Client, Contact, Conversation, Membership
from conversations.services.core.errors import InvalidError
from conversations.services.tenants import api_keys
from convo_project import wsgi
from tests import factories
from tests.routes import WITH_KEY, Answer, Operation, WebServer, assert_failure, good_body, written

pytestmark = pytest.mark.django_db

ALL = [
    *("messages:write", "conversations:read", "conversations:write"),
    *("memory:read", "private:read", "admin"),
]
MESSAGES = ("POST /webhooks/<str:channel>/inbound", "/send", "/replies", "/messages", "/rating")


def needs(operation: Operation) -> str:
    """The scope that the operation needs."""
    if operation.method == "POST" and str(operation).endswith(MESSAGES):
        return "messages:write"
    if "/memory/" in str(operation):
        return "memory:read"
    return "conversations:read" if operation.method == "GET" else "conversations:write"


def key_with(client: Client, *scopes: str, **more: Any) -> str:
    """A key of the client with these scopes."""
    return api_keys.create_api_key(client, "tests", scopes=scopes, **more)[1]


def call(key: str, operation: Operation, ids: dict[str, Any], client: Client, behind: bool = False) -> Answer:
    """The route's answer to the key, in front of Django or behind."""
    server = WebServer(key, application=wsgi.application) if behind else WebServer(key)
    path = operation.route.path(ids)
    if query := operation.needed_query():
        path += f"?{query}"
    return server.call(operation.method, path, good_body(operation, client.pk))


@pytest.mark.parametrize("behind", [False, True], ids=["in front", "view"])
@pytest.mark.parametrize("operation", WITH_KEY, ids=str)
def test_each_route_refuses_a_key_without_its_scope_and_names_it(
    operation: Operation, behind: bool, ids: dict[str, Any], shop: Client
) -> None:
    scope = needs(operation)
    key = key_with(shop, *(each for each in ALL if each not in (scope, "admin")))
    before = written()
    answer = call(key, operation, ids, shop, behind)
    assert_failure(answer, 403, code="missing_scope")
    assert scope in answer.json["error"]
    assert answer.json["details"] == {"scope": scope}
    assert written() == before


@pytest.mark.parametrize("operation", WITH_KEY, ids=str)
def test_each_route_lets_a_key_in_that_has_its_scope_alone(
    operation: Operation, ids: dict[str, Any], shop: Client
) -> None:
    assert call(key_with(shop, needs(operation)), operation, ids, shop).status in (200, 201)


@pytest.mark.parametrize("operation", WITH_KEY, ids=str)
def test_admin_stands_for_the_scopes_of_all_routes(operation: Operation, ids: dict[str, Any], shop: Client) -> None:
    assert call(key_with(shop, "admin"), operation, ids, shop).status in (200, 201)


@pytest.mark.parametrize("behind", [False, True], ids=["in front", "view"])
@pytest.mark.parametrize("operation", WITH_KEY, ids=str)
def test_an_expired_key_is_refused_everywhere(
    operation: Operation, behind: bool, ids: dict[str, Any], shop: Client
) -> None:
    key = key_with(shop, "admin", expires_at=timezone.now() + timedelta(hours=1))
    ApiKey.objects.update(expires_at=timezone.now() - timedelta(minutes=30))
    assert_failure(call(key, operation, ids, shop, behind), 401, code="authentication_failed")


def test_a_message_that_opens_appends_and_comes_again_asks_for_the_scope_each_time(shop: Client) -> None:
    may, may_not = key_with(shop, "messages:write"), key_with(shop, "conversations:write", "conversations:read")
    for message_id in ("m1", "m2", "m2"):
        body = {"client_id": str(shop.pk), "user_id": "ann", "message": "Hello", "message_id": message_id}
        refused = WebServer(may_not).call("POST", "/webhooks/sms/inbound", body)
        assert_failure(refused, 403, code="missing_scope")
        assert WebServer(may).call("POST", "/webhooks/sms/inbound", body).status == 200
    refused = WebServer(may_not).call("POST", "/webhooks/sms/inbound", {"message": 5})
    assert_failure(refused, 403, code="missing_scope")


# --- the copilot's conversations --------------------------------------------------------------------------------------
@pytest.fixture
def private(shop: Client, django_user_model: Any) -> Conversation:
    """A signed-in user's own conversation with the copilot."""
    user = django_user_model.objects.create_user("ursula", password="a-long-password")
    contact = Contact.objects.create(client=shop, user_id="ursula", login=user, is_guest=False)
    made: Conversation = factories.ConversationFactory(client=shop, contact=contact, channel="web", thread="t-1")
    return made


PRIVATE = [each for each in WITH_KEY if "pk" in each.route.parameters and not str(each).endswith("/replies")]


@pytest.mark.parametrize("operation", PRIVATE, ids=str)
def test_a_private_conversation_is_refused_to_a_usual_key(
    operation: Operation, ids: dict[str, Any], private: Conversation, shop: Client, key: str
) -> None:
    admin = key_with(shop, "admin")
    before = written()
    theirs = {**ids, "pk": private.pk}
    for behind in (False, True):
        answer = call(key, operation, theirs, shop, behind)
        assert_failure(answer, 403, code="missing_scope")
        assert answer.json["details"] == {"scope": "private:read"}
    assert_failure(call(admin, operation, theirs, shop), 403, code="missing_scope")
    assert written() == before
    assert call(key_with(shop, "admin", "private:read"), operation, theirs, shop).status != 403


def test_lists_show_private_conversations_to_keys_with_the_scope_alone(
    ids: dict[str, Any], private: Conversation, shop: Client, key: str
) -> None:
    def listed(with_key: str) -> set[str]:
        items = WebServer(with_key).call("GET", "/conversations").json["data"]["items"]
        return {each["id"] for each in items}

    assert listed(key) == {str(ids["pk"])}
    assert listed(key_with(shop, "conversations:read", "private:read")) == {str(ids["pk"]), str(private.pk)}
    synced = WebServer(key).call("GET", "/api/v1/conversations").json["data"]
    assert (synced["count"], [each["sessionId"] for each in synced["conversations"]]) == (1, [str(ids["pk"])])


def test_another_client_s_private_conversation_is_one_that_never_was(
    private: Conversation, neighbours_key: str
) -> None:
    assert_failure(WebServer(neighbours_key).call("GET", f"/conversations/{private.pk}"), 404)


# --- making keys ------------------------------------------------------------------------------------------------------
def test_a_key_from_before_there_were_scopes_may_what_it_could(shop: Client) -> None:
    kept = ApiKey.objects.create(client=shop, prefix="convo_old", key_hash=api_keys.key_hash("old"))
    kept.refresh_from_db()
    assert [scope for scope in ALL if kept.allows(scope)] == ALL[:4]
    assert kept.expires_at is None


@pytest.mark.parametrize("scopes", [[], ["everything"], ["messages:write", "Admin"]])
def test_unknown_scopes_are_refused(shop: Client, scopes: list[str]) -> None:
    with pytest.raises(InvalidError, match="scopes: Use one or more of messages:write"):
        api_keys.create_api_key(shop, scopes=scopes)
    with pytest.raises(IntegrityError), transaction.atomic():
        ApiKey.objects.create(client=shop, prefix="convo_x", key_hash=b"x" * 32, scopes=scopes)


def test_a_key_cannot_end_before_it_begins(shop: Client) -> None:
    with pytest.raises(InvalidError, match="expires_at"):
        api_keys.create_api_key(shop, expires_at=timezone.now())


def test_the_command_makes_keys_with_scopes_and_an_end(shop: Client) -> None:
    out = StringIO()
    arguments = ["--client", "shop", "--scopes", "memory:read, private:read", "--days", "30"]
    call_command("create_api_key", *arguments, stdout=out)
    made = json.loads(out.getvalue())
    assert made["scopes"] == ["memory:read", "private:read"]
    row = ApiKey.objects.get()
    assert row.expires_at is not None
    assert timedelta(days=29) < row.expires_at - timezone.now() <= timedelta(days=30)
    assert_failure(WebServer(made["api_key"]).call("GET", "/conversations"), 403, code="missing_scope")


def test_the_back_office_makes_keys_with_scopes(shop: Client, manager: HttpClient) -> None:
    assert Membership.objects.filter(client=shop, role="manager").exists()
    page = manager.get(reverse("admin:conversations_apikey_add")).content.decode()
    assert page.count('checked=""') + page.count(" checked") >= 4, "the usual scopes are chosen"
    told = {"client": str(shop.pk), "name": "crm", "expires_at_0": "", "expires_at_1": ""}
    path = reverse("admin:conversations_apikey_add")
    past = {**told, "scopes": ["memory:read"], "expires_at_0": "2020-01-01", "expires_at_1": "12:00:00"}
    assert "Choose a time in the future." in manager.post(path, past).content.decode()
    shown = manager.post(path, {**told, "scopes": ["memory:read"]})
    assert b"convo_" in shown.content
    made = ApiKey.objects.get()
    assert made.scopes == ["memory:read"]
    row = manager.get(reverse("admin:conversations_apikey_change", args=[made.pk])).content.decode()
    assert "memory:read" in row
    assert 'name="scopes"' not in row

"""One client's programs see nothing of another's: a foreign id answers exactly as one that never was."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command, get_commands, load_command_class

from conversations.models import ChannelAccount, Client, Conversation
from conversations.services.core import opening
from tests.conversations.conftest import close, in_business
from tests.routes import OPERATIONS, WITH_ID, Answer, Operation, WebServer, assert_failure, good_body, written

pytestmark = pytest.mark.django_db

NEVER: dict[str, Any] = {
    "pk": "5f0c7a52-0000-4000-8000-000000000000",
    "step_id": 987_654_321,
    "call_id": "5f0c7a52-0000-4000-8000-000000000001",
}


@pytest.fixture
def foreign(neighbour: Client) -> dict[str, Any]:
    """The ids of the neighbour's session and step."""
    return in_business(neighbour)


def call(server: WebServer, operation: Operation, ids: dict[str, Any], body: dict[str, Any] | None) -> Answer:
    return server.call(operation.method, operation.route.path(ids), body)


def same(one: Answer, other: Answer) -> None:
    assert_failure(one, 404)
    assert (one.status, one.body, one.headers) == (other.status, other.body, other.headers)


def test_there_are_routes_that_take_an_id() -> None:
    assert len(WITH_ID) >= 6


def test_a_conversation_is_not_opened_for_another_client(server: WebServer, shop: Client, neighbour: Client) -> None:
    wanted = {"channel": "whatsapp", "phone": "+51999999999", "greet": False}
    before = written()
    for foreign in (str(neighbour.pk), NEVER["pk"]):
        answer = server.call("POST", "/conversations", {**wanted, "client_id": foreign})
        assert_failure(answer, 404, code="client_not_found")
    assert written() == before
    assert server.call("POST", "/conversations", {**wanted, "client_id": str(shop.pk)}).status == 201


@pytest.mark.parametrize("operation", WITH_ID, ids=str)
def test_a_foreign_id_answers_as_one_that_never_was(
    operation: Operation, server: WebServer, ids: dict[str, Any], foreign: dict[str, Any], shop: Client
) -> None:
    before = written()
    body = good_body(operation, shop.pk)
    same(call(server, operation, foreign, body), call(server, operation, {**ids, **NEVER}, body))
    assert written() == before


@pytest.mark.parametrize("operation", WITH_ID, ids=str)
def test_a_foreign_id_among_own_ones_answers_as_one_that_never_was(
    operation: Operation, server: WebServer, ids: dict[str, Any], foreign: dict[str, Any], shop: Client
) -> None:
    before = written()
    body = good_body(operation, shop.pk)
    for name in operation.route.parameters:
        if name in NEVER:
            mixed, never = {**ids, name: foreign[name]}, {**ids, name: NEVER[name]}
            same(call(server, operation, mixed, body), call(server, operation, never, body))
            mixed, never = {**foreign, name: ids[name]}, {**NEVER, "channel": "sms", name: ids[name]}
            if len(set(operation.route.parameters)) > 1:
                same(call(server, operation, mixed, body), call(server, operation, never, body))
    assert written() == before


@pytest.mark.parametrize("operation", WITH_ID, ids=str)
def test_a_foreign_session_s_state_does_not_show(
    operation: Operation, server: WebServer, ids: dict[str, Any], foreign: dict[str, Any], shop: Client
) -> None:
    body = good_body(operation, shop.pk)
    open_answer = call(server, operation, foreign, body)
    close(foreign["pk"])
    same(call(server, operation, foreign, body), open_answer)


@pytest.mark.parametrize("operation", WITH_ID, ids=str)
def test_who_owns_it_may(operation: Operation, ids: dict[str, Any], server: WebServer, shop: Client) -> None:
    assert call(server, operation, ids, good_body(operation, shop.pk)).status in (200, 201)


def test_a_message_for_a_foreign_client_is_one_for_nobody(server: WebServer, neighbour: Client) -> None:
    before = written()
    answers = []
    for client_id in (neighbour.pk, uuid4(), "nobody"):
        body = {"client_id": str(client_id), "user_id": "ann", "message": "Hello"}
        answers.append(server.call("POST", "/webhooks/sms/inbound", body))
        assert_failure(answers[-1], 404, code="client_not_found")
    assert len({answer.body for answer in answers}) == 1
    assert written() == before


def test_lists_show_the_own_client_s_alone(
    server: WebServer, ids: dict[str, Any], foreign: dict[str, Any], neighbours_key: str
) -> None:
    lists = [each for each in OPERATIONS if each.method == "GET" and each.needs_key and not each.route.parameters]
    assert [str(each.route) for each in lists] == [
        "/conversations",
        "/templates",  # test_templates.py
        "/events",  # test_events_feed.py
        "/memory/search",  # test_searching.py
        "/reports",  # test_reports.py
        "/health/backlog",  # test_backlog.py
        "/api/v1/conversations",  # below
    ], "a new list needs a line here"
    for query in ("", "?user_id=ann", "?status=open", "?channel=sms", "?limit=100"):
        assert [each["id"] for each in server.call("GET", "/conversations" + query).json["data"]["items"]] == [
            str(ids["pk"])
        ]
        theirs = WebServer(neighbours_key).call("GET", "/conversations" + query).json["data"]["items"]
        assert [each["id"] for each in theirs] == [str(foreign["pk"])]


def test_lists_by_the_sync_protocol_show_the_own_client_s_alone(
    server: WebServer, ids: dict[str, Any], foreign: dict[str, Any], neighbours_key: str
) -> None:
    for query in ("", "?limit=100", "?intent=idle", "?subDomain={}"):
        for key, sub_domain, own in ((server.key, "shop", ids), (neighbours_key, "neighbour", foreign)):
            path = "/api/v1/conversations" + query.format(sub_domain)
            data = WebServer(key).call("GET", path).json["data"]
            assert [each["sessionId"] for each in data["conversations"]] == [str(own["pk"])]
            assert data["count"] == 1


def test_a_foreign_phone_is_nobody_s(
    server: WebServer, neighbour: Client, neighbours_key: str, foreign: dict[str, Any]
) -> None:
    for path in ("conversations/user", "whatsapp/lookup/tenant", "whatsapp/lookup/conversation"):
        assert WebServer(neighbours_key).call("GET", f"/api/v1/{path}/{foreign['phone']}").status == 200
        theirs = server.call("GET", f"/api/v1/{path}/{foreign['phone']}")
        same(theirs, server.call("GET", f"/api/v1/{path}/+51999999998"))


def test_another_s_sub_domain_is_refused_like_one_that_never_was(
    server: WebServer, neighbour: Client, ids: dict[str, Any]
) -> None:
    before = written()
    for sub_domain in ("neighbour", "nobody"):
        for method, path, body in (
            ("GET", f"conversations/{ids['pk']}?subDomain={sub_domain}", None),
            ("GET", f"conversations?subDomain={sub_domain}", None),
            ("POST", "conversations", {"userId": "+51999999998", "subDomain": sub_domain}),
            ("POST", f"conversations/{ids['pk']}/end", {"subDomain": sub_domain}),
        ):
            answer = server.call(method, f"/api/v1/{path}", body)
            assert_failure(answer, 403, code="permission_denied")
            assert sub_domain not in answer.body.decode()
    assert written() == before


def test_a_foreign_cursor_shows_the_own_client_s_alone(
    server: WebServer, ids: dict[str, Any], neighbour: Client, neighbours_key: str
) -> None:
    for _ in range(3):
        close(in_business(neighbour)["pk"])
    cursor = WebServer(neighbours_key).call("GET", "/conversations?limit=1").json["data"]["next"]
    shown = server.call("GET", f"/conversations?cursor={cursor}").json["data"]["items"]
    assert [each["id"] for each in shown] == [str(ids["pk"])]


def test_one_user_id_is_two_people_of_two_clients(
    server: WebServer, shop: Client, neighbour: Client, neighbours_key: str
) -> None:
    said = {"user_id": "ann", "message": "Hello", "message_id": "m1", "phone": "+51999999999"}
    mine = server.call("POST", "/webhooks/sms/inbound", {"client_id": str(shop.pk), **said}).json["data"]
    theirs = (
        WebServer(neighbours_key)
        .call("POST", "/webhooks/sms/inbound", {"client_id": str(neighbour.pk), **said})
        .json["data"]
    )
    assert (mine["created"], theirs["created"]) == (True, True), "a message id is its sender's own, too"
    assert mine["conversation_id"] != theirs["conversation_id"]
    sessions = Conversation.objects.order_by("client__name").values_list("client_id", "contact__client_id")
    assert list(sessions) == [(neighbour.pk, neighbour.pk), (shop.pk, shop.pk)]


def test_a_session_begins_with_what_its_own_client_knows(server: WebServer, shop: Client, neighbour: Client) -> None:
    close(in_business(neighbour)["pk"], summary="Ann is ill.")
    body = {"client_id": str(shop.pk), "user_id": "ann", "message": "Hello"}
    opened = server.call("POST", "/webhooks/sms/inbound", body).json["data"]
    seen = server.call("GET", f"/conversations/{opened['conversation_id']}").json["data"]
    assert seen["chunks"][1]["content"] == opening.NOTHING_KNOWN
    accounts = ChannelAccount.objects.filter(client=shop).values_list("pk", flat=True)
    assert Conversation.objects.get(pk=opened["conversation_id"]).channel_account_id in accounts


# --- commands ---------------------------------------------------------------------------------------------------------
NAMES_A_ROW = re.compile(r"(^|_)(id|contact|session|conversation|chunk|message|step|erasure)s?$")
NOT_OURS = {"retell_agent_id"}  # an id at a provider


def commands_that_take_an_id() -> list[tuple[str, str]]:
    """Each command of ours with each of its options that names a client's row."""
    return [
        (name, action.option_strings[0])
        for name, app in sorted(get_commands().items())
        if app == "conversations"
        for action in load_command_class(app, name).create_parser("manage.py", name)._actions
        if NAMES_A_ROW.search(action.dest) and action.dest not in NOT_OURS
    ]


def test_commands_take_a_foreign_id_for_one_that_never_was(
    shop: Client, foreign: dict[str, Any], tmp_path: Path
) -> None:
    theirs = Conversation.objects.get(pk=foreign["pk"]).contact
    never = {"--contact": str(NEVER["pk"]), "--user-id": "nobody"}
    ids = {"--contact": str(theirs.pk), "--user-id": theirs.user_id}
    more = {"export_contact": ["--to", str(tmp_path / "export.zip")]}
    found = commands_that_take_an_id()
    assert found == [(name, option) for name in ("erase_contact", "export_contact") for option in ids]
    before = written()
    for name, option in found:
        said = []
        for value in (ids[option], never[option]):
            with pytest.raises(CommandError) as refused:
                call_command(name, "--client", shop.sub_domain, option, value, *more.get(name, []))
            said.append(str(refused.value))
        assert said[0] == said[1], name
    assert written() == before
    assert not list(tmp_path.iterdir())

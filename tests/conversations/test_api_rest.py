"""The API's sessions: steps, the end, the rate of requests, and whether all is well."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone

from conversations.models import (
    Client,
    Conversation,
    ConversationEvent,
    Message,
    Step,
)
from conversations.services.jobs import sweep
from tests import factories
from tests.conftest import Door, reply_to_all
from tests.conversations.conftest import close
from tests.routes import WebServer, assert_failure, written

pytestmark = pytest.mark.django_db


# --- steps ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("status", ["complete", "cancelled"])
def test_a_pending_step_becomes_what_it_is_told_once(status: str, door: Door, ids: dict[str, Any]) -> None:
    path = f"/conversations/{ids['pk']}/steps"
    code, envelope = door.call("POST", path, {"description": "  Ask the name  "})
    step = envelope["data"]
    assert (code, step["status"], step["description"]) == (201, "pending", "Ask the name")
    assert step.keys() == {"id", "description", "status", "created_at", "updated_at"}

    code, envelope = door.call("PATCH", f"{path}/{step['id']}", {"status": status})
    assert (code, envelope["data"]["status"]) == (200, status)
    before = written()
    again, same = door.call("PATCH", f"{path}/{step['id']}", {"status": status})
    assert (again, same) == (200, envelope)

    other = ({"complete", "cancelled"} - {status}).pop()
    code, envelope = door.call("PATCH", f"{path}/{step['id']}", {"status": other})
    assert (code, envelope["code"]) == (409, "step_is_final")
    assert envelope["details"] == {"status": status, "possible": [status]}
    assert status in envelope["error"]
    assert written() == before
    kinds = ConversationEvent.objects.filter(data__step_id=step["id"]).values_list("kind", "actor")
    assert list(kinds) == [("step_added", "api"), (f"step_{status}", "api")]


def test_a_step_cannot_become_pending(door: Door, ids: dict[str, Any]) -> None:
    code, envelope = door.call("PATCH", f"/conversations/{ids['pk']}/steps/{ids['step_id']}", {"status": "pending"})
    assert (code, envelope["error"]) == (400, "status: Must be one of complete, cancelled.")


def test_what_a_step_became_can_be_told_again_after_the_end(door: Door, ids: dict[str, Any]) -> None:
    path = f"/conversations/{ids['pk']}/steps/{ids['step_id']}"
    door.call("PATCH", path, {"status": "complete"})
    close(ids["pk"])
    assert door.call("PATCH", path, {"status": "complete"})[0] == 200
    assert door.call("PATCH", path, {"status": "cancelled"})[1]["code"] == "step_is_final"


def test_a_step_is_found_in_its_own_session_alone(door: Door, ids: dict[str, Any], shop: Client) -> None:
    other = factories.StepFactory(conversation__client=shop)
    code, envelope = door.call("PATCH", f"/conversations/{ids['pk']}/steps/{other.pk}", {"status": "complete"})
    assert (code, envelope["error"]) == (404, "There is no such step in this conversation.")
    assert Step.objects.get(pk=other.pk).status == "pending"


# --- the end ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "ended_by", "reason"),
    [
        (None, "system", ""),
        ({}, "system", ""),
        ({"ended_by": "user", "reason": "said goodbye"}, "user", "said goodbye"),
        ({"ended_by": "staff", "reason": ""}, "staff", ""),
    ],
)
def test_a_closed_session_is_over(body: Any, ended_by: str, reason: str, door: Door, ids: dict[str, Any]) -> None:
    door.call("POST", f"/conversations/{ids['pk']}/send", {"content": "One moment"})
    door.says("Hello?")
    status, envelope = door.call("POST", f"/conversations/{ids['pk']}/close", body)
    seen = envelope["data"]
    assert (status, seen["status"], seen["ended_by"], seen["end_reason"]) == (200, "closed", ended_by, reason)
    assert (seen["id"], seen["reply_owed"]) == (str(ids["pk"]), False)
    assert seen["ended_at"]
    assert Message.objects.get().status == "cancelled"
    assert reply_to_all() == 0
    event = ConversationEvent.objects.get(kind="closed")
    assert (event.from_status, event.to_status, event.cause, event.actor) == ("active", "closed", reason, "api")


def test_closing_twice_changes_nothing(door: Door, ids: dict[str, Any]) -> None:
    path = f"/conversations/{ids['pk']}/close"
    first = door.call("POST", path, {"ended_by": "user", "reason": "said goodbye"})
    before = written()
    assert door.call("POST", path, {"ended_by": "staff", "reason": "again"}) == first
    assert written() == before


@pytest.mark.parametrize("word", ["timeout", "contact", "USER", "", "me"])
def test_nobody_else_ends_a_session(word: str, door: Door, ids: dict[str, Any]) -> None:
    status, envelope = door.call("POST", f"/conversations/{ids['pk']}/close", {"ended_by": word})
    assert (status, envelope["error"]) == (400, "ended_by: Must be one of system, staff, user.")
    assert Conversation.objects.get(pk=ids["pk"]).is_open


def test_what_ended_otherwise_cannot_be_closed(door: Door) -> None:
    expired = door.says("Hello", phone="+51999999999")["conversation_id"]
    sweep.sweep(timezone.now() + timedelta(hours=25))
    status, envelope = door.call("POST", f"/conversations/{expired}/close")
    assert (status, envelope["code"], envelope["details"]) == (409, "ended", {"status": "expired"})


# --- keys -------------------------------------------------------------------------------------------------------------
def test_both_headers_carry_a_key(server: WebServer) -> None:
    for headers in (
        {"X-Service-API-Key": server.key},
        {"X-Service-API-Key": f" {server.key} "},
        {"Authorization": f"Bearer {server.key}"},
        {"Authorization": f"bearer  {server.key}"},
        {"X-Service-API-Key": server.key, "Authorization": "Bearer convo_wrong"},
        {"X-Service-API-Key": server.key, "Authorization": "Basic Y29udm86Y29udm8="},
    ):
        assert server.call("GET", "/conversations", headers=headers).status == 200


@pytest.mark.parametrize("path", ["/conversations", "/conversations/{pk}", "/conversations/{pk}?chunks=1"])
def test_too_many_requests_are_told_when_to_come_back(
    path: str, server: WebServer, ids: dict[str, Any], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conversations.http.throttling.time.time", lambda: 1_800_000_030.0)
    settings.API_REQUESTS_PER_MINUTE = 3
    path = path.format(**ids)
    assert [server.call("GET", path).status for _ in range(3)] == [200] * 3
    refused = server.call("GET", path)
    assert_failure(refused, 429, code="rate_limited")
    assert refused.headers["Retry-After"] == "30"
    assert "30 seconds" in refused.json["error"]
    monkeypatch.setattr("conversations.http.throttling.time.time", lambda: 1_800_000_060.0)
    assert server.call("GET", path).status == 200


def test_webhooks_are_not_counted(server: WebServer, shop: Client, settings: Any) -> None:
    settings.API_REQUESTS_PER_MINUTE = 1
    body = {"client_id": str(shop.pk), "user_id": "ann", "message": "Hello"}
    assert [server.call("POST", "/webhooks/sms/inbound", body).status for _ in range(3)] == [200] * 3


def test_each_key_has_a_rate_of_its_own(
    server: WebServer, ids: dict[str, Any], neighbours_key: str, settings: Any
) -> None:
    settings.API_REQUESTS_PER_MINUTE = 1
    assert server.call("GET", "/conversations").status == 200
    assert server.call("GET", "/conversations").status == 429
    assert WebServer(neighbours_key).call("GET", "/conversations").status == 200


# --- whether all is well ----------------------------------------------------------------------------------------------
def test_a_process_that_lives_says_so_to_anybody() -> None:
    answer = WebServer().call("GET", "/healthz")
    assert (answer.status, answer.json) == (200, {"success": True, "data": {"status": "ok"}})
    assert WebServer().call("HEAD", "/healthz").status == 200


def test_it_is_ready_however_much_waits(ids: dict[str, Any]) -> None:
    Conversation.objects.filter(pk=ids["pk"]).update(
        reply_owed=True, reply_due_at=timezone.now() - timedelta(minutes=5)
    )
    answer = WebServer().call("GET", "/readyz")
    assert (answer.status, answer.json["data"]) == (200, {"status": "ready"})


def test_it_is_not_ready_while_a_migration_is_missing() -> None:
    newest = MigrationRecorder.Migration.objects.filter(app="conversations").order_by("-name").first()
    assert newest
    newest.delete()
    answer = WebServer().call("GET", "/readyz")
    assert_failure(answer, 503, code="not_migrated")
    assert "manage.py migrate" in answer.json["error"]


def test_it_is_not_ready_before_the_first_migration() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE django_migrations RENAME TO elsewhere")
    assert_failure(WebServer().call("GET", "/readyz"), 503, code="not_migrated")


def test_a_host_name_that_is_not_ours_is_told_what_to_do(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["convo.example"]
    answer = WebServer(environ={"HTTP_HOST": "convo.wrong"}).call("GET", "/healthz")
    assert_failure(answer, 400, code="unknown_host")
    assert "ALLOWED_HOSTS" in answer.json["error"]

"""Whose sessions they are: by query, and by the database's own policies under it."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.db import DataError, connection, transaction
from django.test import Client as HttpClient
from django.test.utils import CaptureQueriesContext
from django.urls import resolve
from django.utils import timezone

from conversations.engines.contract import Reply
from conversations.models import Chunk, Client, Contact, Conversation, Delta, Feedback, Membership, Turn
from conversations.services.copilot import sessions, turns
from conversations.services.copilot.turns import UserMessage
from conversations.services.core.ledger import SYSTEM
from conversations.services.core.row_level_security import confined_to, unconfined
from conversations.services.history import archive, remember
from conversations.services.replies.leases import StreamedTurn, claim_streamed
from conversations.services.replies.pipeline import commit
from conversations.services.replies.streaming_writer import NewText, store_deltas
from conversations.services.transitions import closing
from tests import factories
from tests.copilot.members import NEVER, act_as, answered, as_json, as_user, calls, http_of
from tests.copilot.reading import user
from tests.databases import CLUSTER
from tests.races.threads import not_committed
from tests.routes import COPILOT, written

pytestmark = pytest.mark.django_db

CONFINED = [
    *("memberships", "clients", "assistants", "contacts", "conversations", "conversation_chunks"),
    *("conversation_turns", "copilot_deltas", "copilot_feedback", "chunk_corrections"),
]


@pytest.fixture
def ann(firm: Client) -> Any:
    return user("ann", firm)


@pytest.fixture
def bob(firm: Client) -> Any:
    return user("bob", firm)


@pytest.fixture(params=["with the policies", "without them"])
def policies(request: pytest.FixtureRequest, settings: Any) -> None:
    """Without the policies, the copilot's transactions run as the tables' owner, whom they do not bind."""
    if request.param == "without them":
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_user")
            settings.COPILOT_ROLE = cursor.fetchall()[0][0]


# --- by query ---------------------------------------------------------------------------------------------------------
def test_every_route_that_names_something_is_called() -> None:
    called = {f"/{resolve(path.partition('?')[0]).route}" for _, path, _ in calls(NEVER, NEVER, 1)}
    assert {str(route) for route in COPILOT if route.parameters} <= called


def test_somebody_else_s_session_answers_as_one_that_never_was(ann: Any, bob: Any) -> None:
    asked = answered(ann)
    chunk = Chunk.objects.get(role="ai")
    before = list(Chunk.objects.values()), list(Conversation.objects.values()), list(Turn.objects.values())
    theirs = calls(asked.session.pk, asked.turn.pk, chunk.pk)  # type: ignore[union-attr]
    for (method, path, body), (_, never, never_body) in zip(theirs, calls(NEVER, NEVER, 987_654_321), strict=True):
        http = http_of(bob)
        answers = [
            http.generic(
                method, where, as_json(what), content_type="application/json", headers={"Last-Event-ID": "1.3"}
            )
            for where, what in ((path, body), (never, never_body))
        ]
        assert [answer.status_code for answer in answers] == [404, 404], (method, path)
        assert answers[0].content == answers[1].content
    assert before == (list(Chunk.objects.values()), list(Conversation.objects.values()), list(Turn.objects.values()))
    assert http_of(bob).get("/copilot").json()["data"]["items"] == []
    assert [each["id"] for each in http_of(ann).get("/copilot").json()["data"]["items"]] == [str(asked.session.pk)]


@pytest.mark.usefixtures("policies")
def test_somebody_else_s_session_is_neither_read_nor_changed(ann: Any, bob: Any) -> None:
    asked = answered(ann)
    chunk = Chunk.objects.get(role="ai")
    http = http_of(bob)
    before = written()
    for method, path, body in calls(asked.session.pk, asked.turn.pk, chunk.pk):  # type: ignore[union-attr]
        answer = http.generic(method, path, as_json(body), content_type="application/json")
        assert answer.status_code == 404, (method, path)
    assert http.get("/copilot").json()["data"]["items"] == []
    assert written() == before


@pytest.mark.usefixtures("policies")
def test_a_session_on_another_channel_is_none_of_the_copilot_s(ann: Any, firm: Client) -> None:
    answered(ann)
    contact = Contact.objects.get(login=ann)
    other = factories.ConversationFactory(client=firm, contact=contact, channel="sms")
    chunk = Chunk.objects.create(conversation=other, position=1, role="ai", content="A text message")
    http = http_of(ann)
    for method, path, body in calls(other.pk, NEVER, chunk.pk):
        answer = http.generic(method, path, as_json(body), content_type="application/json")
        assert answer.status_code == 404, (method, path)
    assert len(http.get("/copilot").json()["data"]["items"]) == 1


def test_who_is_no_member_any_more_sees_nothing(ann: Any) -> None:
    asked = answered(ann)
    Membership.objects.filter(user=ann).delete()
    http = http_of(ann)
    assert http.get("/copilot").json()["data"]["items"] == []
    assert http.get(f"/copilot?session_id={asked.session.pk}").status_code == 404
    refused = http.post("/copilot", {"message": "Hello"}, content_type="application/json")
    assert (refused.status_code, refused.json()["code"]) == (404, "no_assistant")


@pytest.mark.usefixtures("policies")
def test_only_assistants_that_the_client_allows_are_talked_to(ann: Any) -> None:
    http = http_of(ann)
    assert [each["role"] for each in http.get("/copilot/roles").json()["data"]["items"]] == ["field"]
    for role in ("hidden", "nobody"):
        refused = http.post("/copilot", {"message": "Hello", "role": role}, content_type="application/json")
        assert (refused.status_code, refused.json()["code"]) == (404, "no_assistant")
    assert not Conversation.objects.exists()


@pytest.mark.usefixtures("policies")
def test_assistants_are_those_of_the_user_s_own_clients_that_are_on(ann: Any, firm: Client) -> None:
    other = factories.ClientFactory(name="Other", sub_domain="other")
    factories.AssistantFactory(client=other, key="pm", in_copilot=True)
    http = http_of(ann)

    def offered() -> list[str]:
        return [each["role"] for each in http.get("/copilot/roles").json()["data"]["items"]]

    assert offered() == ["field"]
    for wanted in ({"role": "pm"}, {"client": "other"}, {"role": "field", "client": "other"}):
        assert http.post("/copilot/sessions", wanted, content_type="application/json").status_code == 404, wanted
    Client.objects.filter(pk=firm.pk).update(is_active=False)
    assert offered() == []
    Client.objects.filter(pk=firm.pk).update(is_active=True)
    Membership.objects.filter(user=ann).update(client=other)
    assert offered() == ["pm"]
    Membership.objects.filter(user=ann).delete()
    assert offered() == []


@pytest.mark.usefixtures("policies")
def test_a_user_is_one_contact_of_each_client(ann: Any, bob: Any, firm: Client) -> None:
    other = factories.ClientFactory(name="Other", sub_domain="other")
    factories.AssistantFactory(client=other, key="pm", in_copilot=True)
    Membership.objects.create(user=ann, client=other)
    for who, role in ((bob, "field"), (ann, "field"), (ann, "pm"), (ann, "field"), (ann, "pm")):
        made = http_of(who).post("/copilot/sessions", {"role": role}, content_type="application/json")
        assert made.status_code == 201
    contacts = Contact.objects.values_list("login__username", "client__sub_domain").order_by("login", "client")
    assert sorted(contacts) == [("ann", "firm"), ("ann", "other"), ("bob", "firm")]
    owned = Conversation.objects.values_list("contact__login__username", "client__sub_domain")
    assert sorted(owned) == [("ann", "firm")] * 2 + [("ann", "other")] * 2 + [("bob", "firm")]


def test_what_the_assistant_is_told_is_not_shown(ann: Any) -> None:
    asked = answered(ann)
    shown = http_of(ann).get(f"/copilot?session_id={asked.session.pk}").content.decode()
    assert "You are Ada" not in shown
    assert Chunk.objects.filter(role="system", content__contains="You are Ada").exists()


def test_a_deleted_session_leaves_nothing(ann: Any) -> None:
    asked = answered(ann)
    chunk = Chunk.objects.get(role="ai")
    http = http_of(ann)
    http.put(
        f"/copilot/messages/{chunk.pk}/feedback", {"rating": "down", "note": "No"}, content_type="application/json"
    )
    assert Feedback.objects.get().note == "No"
    assert http.delete(f"/copilot/sessions/{asked.session.pk}").status_code == 200
    assert [model for model in (Conversation, Chunk, Turn, Feedback) if model.objects.exists()] == []
    assert http.delete(f"/copilot/sessions/{asked.session.pk}").status_code == 404


@pytest.mark.skipif(CLUSTER in os.environ, reason="there a worker waits for the lock, which is not seen from here")
@pytest.mark.django_db(transaction=True)
def test_feedback_on_a_reply_that_is_just_being_archived_is_not_stored(ann: Any) -> None:
    session, now = answered(ann).session, timezone.now()
    chunk = Chunk.objects.get(role="ai")
    closing.close(session.pk, ended_by="staff", actor=SYSTEM, now=now)
    assert remember.remember_ended() == 1
    path, rating = f"/copilot/messages/{chunk.pk}/feedback", {"rating": "up"}
    with not_committed(lambda: archive.archive(now + timedelta(days=60))):
        answer = http_of(ann).put(path, rating, content_type="application/json")
    assert (answer.status_code, Feedback.objects.count()) == (404, 0)
    assert not Chunk.objects.filter(pk=chunk.pk).exists()


# --- by the door ------------------------------------------------------------------------------------------------------
def test_nobody_is_let_in_without_signing_in(firm: Client) -> None:
    for method, path, body in calls(NEVER, NEVER, 1):
        answer = HttpClient().generic(method, path, as_json(body), content_type="application/json")
        assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated"), path


def test_another_site_can_do_nothing_with_the_session(ann: Any) -> None:
    http = http_of(ann, enforce_csrf_checks=True)
    asked = answered(ann)
    for method, path, body in calls(asked.session.pk, asked.turn.pk, 1):  # type: ignore[union-attr]
        if method != "GET":
            answer = http.generic(method, path, as_json(body), content_type="application/json")
            assert answer.status_code == 403, path
            assert answer.json()["success"] is False
    assert Conversation.objects.count() == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"message": ""},
        {"message": " \n"},
        {"message": 5},
        {"message": "x", "session_id": 5},
        {"message": "x", "role": ["field"]},
        {"message": "x", "message_id": "y" * 201},
        {"message": "x", "client": "another"},
    ],
)
def test_nonsense_is_refused_and_nothing_begins(ann: Any, body: Any) -> None:
    answer = http_of(ann).post("/copilot", body, content_type="application/json")
    assert answer.status_code in (400, 404), answer.content
    assert answer.json()["success"] is False
    assert not Conversation.objects.exists()


def test_no_more_than_the_limits(ann: Any, bob: Any, settings: Any) -> None:
    settings.COPILOT_MESSAGE_CHARACTERS = 10
    long = http_of(ann).post("/copilot", {"message": "x" * 11}, content_type="application/json")
    assert (long.status_code, long.json()["code"]) == (400, "message_too_long")
    settings.COPILOT_MESSAGES_PER_MINUTE = 2
    for _ in range(2):
        answered(ann)
    often = http_of(ann).post("/copilot", {"message": "Hello"}, content_type="application/json")
    assert (often.status_code, often.json()["code"]) == (429, "rate_limited")
    assert 1 <= int(often["Retry-After"]) <= 60
    settings.COPILOT_MESSAGES_PER_MINUTE, settings.COPILOT_STREAMS_PER_USER = 0, 1
    for who in (bob, ann):  # a colleague's reply does not count
        turns.ask(as_user(who), UserMessage("Hello"), timezone.now())
    many = http_of(ann).post("/copilot", {"message": "Hello"}, content_type="application/json")
    assert (many.status_code, many.json()["code"]) == (429, "too_many_streams")
    assert many["Retry-After"]


# --- by the database --------------------------------------------------------------------------------------------------
def counts(raw: psycopg.Connection[Any], who: Any = None) -> dict[str, int]:
    """How many rows of each table there are, for the user."""
    act_as(raw, *filter(None, [who]))
    return {table: raw.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in CONFINED}  # type: ignore[index]


@pytest.mark.django_db(transaction=True)
def test_an_error_outside_the_role_gives_it_back(ann: Any) -> None:
    with confined_to(ann.pk):
        with pytest.raises(ZeroDivisionError), unconfined():
            raise ZeroDivisionError
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('role'), current_setting('convo.logins')")
            assert cursor.fetchall() == [(django_settings.COPILOT_ROLE, str(ann.pk))]


@pytest.mark.django_db(transaction=True)
def test_a_statement_that_fails_outside_the_role_gives_it_back_with_its_savepoint(ann: Any) -> None:
    with confined_to(ann.pk):
        with pytest.raises(DataError), transaction.atomic(), unconfined(), connection.cursor() as cursor:
            cursor.execute("SELECT 1 / 0")
        assert confined() == (django_settings.COPILOT_ROLE, str(ann.pk))
    assert confined() == ("none", "")


def confined() -> tuple[str, str]:
    """The role of the transaction, and whose rows it sees."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('role'), coalesce(current_setting('convo.logins', true), '')")
        [found] = cursor.fetchall()
    return tuple(found)  # type: ignore[return-value]


@pytest.mark.skipif(CLUSTER in os.environ, reason="this database has Citus")
def test_on_one_server_the_role_costs_one_statement_and_nothing_for_several(ann: Any) -> None:
    with CaptureQueriesContext(connection) as seen, transaction.atomic(), confined_to(ann.pk):
        pass
    asked = [each["sql"] for each in seen if "SAVEPOINT" not in each["sql"]]
    assert ["citus" in each for each in asked] == [False, False], "on and off again"


def test_a_role_lasts_as_long_as_its_block(ann: Any, bob: Any) -> None:
    role = django_settings.COPILOT_ROLE
    with confined_to(ann.pk, bob.pk):
        assert confined() == (role, f"{ann.pk},{bob.pk}")
        with unconfined():
            assert confined() == ("none", "")
            with unconfined():
                assert confined() == ("none", "")
        assert confined() == (role, f"{ann.pk},{bob.pk}")
        with confined_to(ann.pk):
            assert confined() == (role, str(ann.pk))
        assert confined() == (role, f"{ann.pk},{bob.pk}")
        with unconfined():
            with confined_to(bob.pk):
                assert confined() == (role, str(bob.pk))
            assert confined() == ("none", "")
        assert confined() == (role, f"{ann.pk},{bob.pk}")
    assert confined() == ("none", ""), "though this transaction goes on"
    with pytest.raises(ZeroDivisionError), confined_to(ann.pk):
        raise ZeroDivisionError
    assert confined() == ("none", "")


def test_the_role_sees_the_user_s_rows_and_no_others(raw: psycopg.Connection[Any]) -> None:
    firm = factories.ClientFactory(sub_domain="firm")
    factories.AssistantFactory(client=firm, key="field", in_copilot=True)
    other_firm = factories.ClientFactory(sub_domain="other")
    factories.AssistantFactory(client=other_firm, key="field", in_copilot=True)
    ann, bob = user("ann", firm), user("bob", other_firm)
    factories.ConversationFactory(client=firm)  # a customer's
    for who in (ann, bob, bob):
        answered(who)
    running = turns.ask(as_user(ann), UserMessage("Hello"), timezone.now())
    [mine] = claim_streamed(timezone.now(), 10)
    store_deltas([NewText(mine, 0, "Hel")])
    reply = Chunk.objects.filter(role="ai", conversation__contact__login=ann).get()
    Feedback.objects.create(chunk=reply, conversation_id=reply.conversation_id, rating="up")
    assert set(counts(raw).values()) == {0}, "nobody is signed in"
    seen, theirs = counts(raw, ann), counts(raw, bob)
    assert (seen["clients"], seen["memberships"], seen["contacts"], seen["conversations"]) == (1, 1, 1, 2)
    assert (seen["conversation_chunks"], seen["conversation_turns"], seen["copilot_deltas"]) == (7, 2, 1)
    assert (theirs["conversations"], theirs["copilot_deltas"], theirs["conversation_turns"]) == (2, 0, 2)
    assert Conversation.objects.count() == 5, "the owner sees all"
    assert running.session.contact_id == Contact.objects.get(login=ann).pk


@pytest.mark.django_db(transaction=True)
def test_the_role_changes_the_user_s_rows_and_no_others(raw: psycopg.Connection[Any]) -> None:
    firm = factories.ClientFactory(sub_domain="firm")
    factories.AssistantFactory(client=firm, key="field", in_copilot=True)
    ann, bob = user("ann", firm), user("bob", firm)
    asked = answered(ann)
    answered(bob)
    act_as(raw, bob)
    assert raw.execute("UPDATE conversations SET topic = 'taken'").rowcount == 1
    assert raw.execute("DELETE FROM conversations WHERE id = %s", [asked.session.pk]).rowcount == 0
    raw.commit()
    bobs = Conversation.objects.get(contact__login=bob)
    hers, his = asked.session, bobs.pk
    for statement, *values in [
        (
            "INSERT INTO conversation_chunks (client_id, conversation_id, position, role, content, login_id)"
            " VALUES (%s, %s, 9, 'ai', '', %s)",
            *(firm.pk, hers.pk, bob.pk),
        ),
        ("UPDATE conversations SET contact_id = %s WHERE id = %s", hers.contact_id, his),
        ("UPDATE conversations SET channel = 'sms', thread = '' WHERE id = %s", his),
        ("INSERT INTO contacts (id, client_id, user_id, login_id) VALUES (%s, %s, 'x', %s)", uuid4(), firm.pk, ann.pk),
        ("UPDATE conversation_chunks SET content = 'x'",),
        (
            "INSERT INTO copilot_deltas (client_id, turn_id, attempt, start, text, login_id)"
            " VALUES (%s, %s, 1, 0, 'x', %s)",
            firm.pk,
            asked.turn.pk,
            bob.pk,
        ),  # type: ignore[union-attr]
        ("SELECT * FROM auth_user",),
        ("SELECT * FROM api_keys",),
        ("SELECT * FROM channel_accounts",),
        ("CREATE TABLE x ()",),
    ]:
        act_as(raw, bob)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            raw.execute(statement, values)
        raw.rollback()
    assert Conversation.objects.get(contact__login=ann).topic == "Hello"


@pytest.mark.forgets_the_client
@pytest.mark.django_db(transaction=True)
def test_the_policies_hold_where_a_query_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    firm = factories.ClientFactory(sub_domain="firm")
    factories.AssistantFactory(client=firm, key="field", in_copilot=True)
    ann, bob = user("ann", firm), user("bob", firm)
    asked = answered(ann)
    monkeypatch.setattr(sessions, "_shown", lambda _user: Conversation.objects.select_related("assistant", "client"))
    http = http_of(bob)
    assert http.get("/copilot").json()["data"]["items"] == []
    assert http.get(f"/copilot?session_id={asked.session.pk}").status_code == 404


def test_the_role_ends_with_its_transaction(ann: Any, bob: Any) -> None:
    answered(ann)
    sessions.sessions(as_user(bob), 5)
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user, current_setting('convo.logins', true)")
        [(role, logins)] = cursor.fetchall()
    assert role != django_settings.COPILOT_ROLE
    assert not logins
    assert get_user_model().objects.count() == 2


# --- writing ----------------------------------------------------------------------------------------------------------
def test_an_attempt_whose_time_is_over_writes_nothing_into_the_next(ann: Any, settings: Any) -> None:
    settings.LEASE_SECONDS = 1
    turns.ask(as_user(ann), UserMessage("Hello"), timezone.now())
    now = timezone.now()
    [slow] = claim_streamed(now, 10)
    store_deltas([NewText(slow, 0, "From the first")])
    assert claim_streamed(now, 10) == []
    [quick] = claim_streamed(now + timezone.timedelta(seconds=2), 10)
    assert (quick.turn_id, quick.attempt) == (slow.turn_id, 2)
    store_deltas([NewText(slow, 14, " again"), NewText(quick, 0, "From the second")])
    assert list(quick_pieces(quick)) == [(2, 0, "From the second")]
    assert commit(slow, Reply(text="First", engine="offline"), now) == "abandoned"
    assert commit(quick, Reply(text="Second", engine="offline"), now) == "committed"
    assert Chunk.objects.get(role="ai").content == "Second"
    assert list(quick_pieces(quick)) == []


def quick_pieces(mine: StreamedTurn) -> Any:
    return Delta.objects.filter(turn_id=mine.turn_id).values_list("attempt", "start", "text")


@pytest.mark.parametrize("taken", ["closed", "taken over"])
def test_an_assistant_that_lost_the_session_says_nothing(ann: Any, taken: str) -> None:
    asked = turns.ask(as_user(ann), UserMessage("Hello"), timezone.now())
    [mine] = claim_streamed(timezone.now(), 10)
    now = timezone.now()
    gone = {"status": "closed", "ended_at": now, "ended_by": "staff"} if taken == "closed" else {"taken_over_at": now}
    Conversation.objects.filter(pk=asked.session.pk).update(**gone)
    assert commit(mine, Reply(text="Hello", engine="offline"), now) == "dropped"
    assert not Chunk.objects.filter(role="ai").exists()

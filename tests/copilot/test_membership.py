"""Former members, and users of a client that is switched off, get nothing by any route of the copilot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client as HttpClient
from django.urls import resolve
from django.utils import timezone

from conversations.models import Chunk, Client, Conversation, Feedback, Membership
from conversations.services.copilot import turns
from conversations.services.copilot.feed import Feed, Reader, ReadPosition, ReplyEnd, ReplyPart
from conversations.services.copilot.turns import UserMessage
from conversations.services.replies.leases import claim_streamed
from conversations.services.replies.streaming_writer import NewText, store_deltas
from tests import factories
from tests.copilot.members import NEVER, answered, as_json, as_user, calls, http_of
from tests.copilot.reading import Browser, user
from tests.fakes.openai import FakeOpenAI
from tests.routes import COPILOT, written

pytestmark = pytest.mark.django_db

ASK = {"message": "Hello", "message_id": "m1"}
# The routes that name nothing: what they answer to who has nothing, and to whom no assistant is left.
EMPTY: list[tuple[str, str, Any]] = [("GET", "/copilot", None), ("GET", "/copilot/roles", None)]
NO_ASSISTANT: list[tuple[str, str, Any]] = [
    ("POST", "/copilot", {"message": "Hello"}),
    ("POST", "/copilot", ASK),
    ("POST", "/copilot", {**ASK, "role": "field", "client": "firm"}),
    ("POST", "/copilot/sessions", {}),
    ("POST", "/copilot/sessions", {"role": "field", "client": "firm"}),
]


def membership_lost(who: Any) -> None:
    Membership.objects.filter(user=who).delete()


def client_off(who: Any) -> None:
    Client.objects.filter(memberships__user=who).update(is_active=False)


def member_elsewhere(who: Any) -> None:
    Membership.objects.filter(user=who).update(client=factories.ClientFactory(sub_domain="elsewhere"))


LOSSES = [membership_lost, client_off, member_elsewhere]


@pytest.fixture
def ann(firm: Client) -> Any:
    return user("ann", firm)


@pytest.fixture
def theirs(ann: Any) -> list[tuple[str, str, Any]]:
    """Calls of every route that names something, for a session of Ann's with a rated reply and another on its way."""
    asked = answered(ann, **ASK)
    reply = Chunk.objects.get(role="ai")
    Feedback.objects.create(chunk=reply, conversation_id=reply.conversation_id, rating="up")
    running = turns.ask(as_user(ann), UserMessage("And then?", asked.session.pk), timezone.now())
    [mine] = claim_streamed(timezone.now(), 10)
    store_deltas([NewText(mine, 0, "Then")])
    assert asked.turn is not None
    assert running.turn is not None
    named = calls(asked.session.pk, running.turn.pk, reply.pk)
    return [*named, *calls(asked.session.pk, asked.turn.pk, reply.pk)[-1:]]


@pytest.fixture
def http(ann: Any) -> HttpClient:
    """Ann's browser, signed in before anything changes."""
    return http_of(ann)


def ask(http: HttpClient, call: tuple[str, str, Any]) -> tuple[int, Any]:
    method, path, body = call
    answer = http.generic(method, path, as_json(body), content_type="application/json")
    return answer.status_code, answer.json()


def test_every_route_with_every_method_is_called() -> None:
    called = {
        (method, f"/{resolve(path.partition('?')[0]).route}")
        for method, path, _ in [*calls(NEVER, NEVER, 1), *EMPTY, *NO_ASSISTANT]
    }
    there = {
        (method.upper(), str(route))
        for route in COPILOT
        for method in ("get", "post", "put", "patch", "delete")
        if hasattr(resolve(route.path({"pk": _id(route.pattern), "turn_id": NEVER})).func.cls, method)  # type: ignore[attr-defined]
    }
    assert called == there


def _id(pattern: str) -> Any:
    return 1 if "<int:pk>" in pattern else NEVER


@pytest.mark.parametrize("loss", LOSSES)
def test_a_session_of_before_answers_as_one_that_never_was(
    ann: Any, http: HttpClient, theirs: list[tuple[str, str, Any]], loss: Callable[[Any], None]
) -> None:
    assert ask(http, theirs[0])[0] == 200
    loss(ann)
    before = written()
    never = [*calls(NEVER, NEVER, 987_654_321), *calls(NEVER, NEVER, 987_654_321)[-1:]]
    for call, unknown in zip(theirs, never, strict=True):
        status, said = ask(http, call)
        assert status == 404, (call, said)
        assert said == ask(http, unknown)[1]
    assert written() == before


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_is_listed_and_nothing_begins(
    ann: Any, http: HttpClient, theirs: list[tuple[str, str, Any]], loss: Callable[[Any], None]
) -> None:
    for call in EMPTY:
        assert ask(http, call)[1]["data"]["items"], "there was something"
    loss(ann)
    before = written()
    for call in EMPTY:
        status, said = ask(http, call)
        assert (status, said["data"]["items"]) == (200, []), call
    for call in NO_ASSISTANT:
        status, said = ask(http, call)
        assert (status, said["code"]) == (404, "no_assistant"), call
    assert written() == before


@pytest.mark.parametrize("loss", LOSSES)
def test_the_panel_offers_no_assistant(ann: Any, http: HttpClient, firm: Client, loss: Callable[[Any], None]) -> None:
    name = firm.assistants.get(key="field").name
    assert name in http.get("/copilot/panel").content.decode()
    loss(ann)
    assert name not in http.get("/copilot/panel").content.decode()


def test_who_may_not_sign_in_any_more_is_signed_out(
    ann: Any, http: HttpClient, theirs: list[tuple[str, str, Any]]
) -> None:
    get_user_model().objects.filter(pk=ann.pk).update(is_active=False)
    before = written()
    for call in [*theirs, *EMPTY, *NO_ASSISTANT]:
        status, said = ask(http, call)
        assert (status, said["code"]) == (401, "not_authenticated"), call
    assert written() == before


@pytest.mark.parametrize("loss", [membership_lost, client_off])
def test_what_was_there_is_there_again_with_the_membership_and_the_client(
    ann: Any, http: HttpClient, firm: Client, theirs: list[tuple[str, str, Any]], loss: Callable[[Any], None]
) -> None:
    loss(ann)
    assert ask(http, theirs[0])[0] == 404
    Client.objects.update(is_active=True)
    Membership.objects.get_or_create(user=ann, client=firm)
    assert ask(http, theirs[0])[0] == 200
    assert len(ask(http, EMPTY[0])[1]["data"]["items"]) == 1


def test_a_member_of_two_firms_keeps_what_is_of_the_other(ann: Any, http: HttpClient, firm: Client) -> None:
    answered(ann)
    other = factories.ClientFactory(name="Other", sub_domain="other")
    factories.AssistantFactory(client=other, key="pm", in_copilot=True)
    Membership.objects.create(user=ann, client=other)
    status, made = ask(http, ("POST", "/copilot/sessions", {"role": "pm"}))
    assert status == 201
    Client.objects.filter(pk=firm.pk).update(is_active=False)
    assert [each["id"] for each in ask(http, EMPTY[0])[1]["data"]["items"]] == [made["data"]["id"]]
    assert [each["role"] for each in ask(http, EMPTY[1])[1]["data"]["items"]] == ["pm"]
    assert ask(http, ("POST", "/copilot/sessions", {"role": "field"}))[0] == 404
    assert ask(http, ("POST", "/copilot/sessions", {"role": "pm", "client": "firm"}))[0] == 404


def test_the_same_message_id_of_two_users_is_two_messages(ann: Any, firm: Client) -> None:
    bob = user("bob", firm)
    sessions = [turns.ask(as_user(who), UserMessage(**ASK), timezone.now()).session.pk for who in (ann, bob, ann, bob)]
    assert sessions[:2] == sessions[2:]
    assert sessions[0] != sessions[1]
    owners = Conversation.objects.filter(pk__in=sessions).values_list("contact__login__username", flat=True)
    assert sorted(owners) == ["ann", "bob"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("writer")
@pytest.mark.parametrize("loss", [membership_lost, client_off])
def test_a_reply_that_is_being_read_breaks_off(
    roofers: Client, live_server: Any, model: FakeOpenAI, loss: Callable[[Any], None]
) -> None:
    model.then("endless", text="word ", every=0.002)
    who = user("cleo", roofers)
    with Browser(live_server.url, who) as browser, browser.stream("POST", "/copilot", {"message": "Hello"}) as events:
        events.next("session")
        events.next("delta")
        loss(who)
        ended = events.rest()[-1]
    assert (ended.name, ended.data["finish_reason"], ended.data["message"]) == ("done", "deleted", None)
    turns_left = Conversation.objects.get().turns
    turns_left.update(stop_asked_at=timezone.now())


@pytest.mark.parametrize("lose", [membership_lost, member_elsewhere])
def test_who_reads_along_and_loses_the_membership_reads_no_further_while_others_do(
    ann: Any, firm: Client, lose: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [ann, user("bob", firm)]
    for who in both:
        turns.ask(as_user(who), UserMessage("Hello"), timezone.now())
    claimed = {each.login_id: each for each in claim_streamed(timezone.now(), 10)}
    anns, bobs = (Reader(claimed[who.pk].turn_id, who.pk, ReadPosition()) for who in both)
    feed = Feed()
    monkeypatch.setattr(feed, "_readers", {anns, bobs})
    lose(ann)
    store_deltas([NewText(each, 0, "Then") for each in claimed.values()])
    feed._give_updates()
    assert anns.take() == ReplyEnd(None, None)
    assert bobs.take() == ReplyPart(1, 0, "Then")

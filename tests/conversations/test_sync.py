"""The sync protocol route by route, as a program of another hand speaks it, through the web server's door."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from conversations.models import (
    Chunk,
    Client,
    Contact,
    ContactIdentity,
    Conversation,
    ConversationEvent,
    OrderLink,
)
from conversations.services.jobs import sweep
from tests import factories
from tests.conftest import Door, reply_to_all
from tests.races.threads import together
from tests.routes import Answer, WebServer, assert_failure

pytestmark = pytest.mark.django_db

PHONE = "+51999999999"
FIELDS = {
    *("sessionId", "userId", "botId", "subDomain", "localId", "currentIntent", "currentStep", "previousIntent"),
    *("previousStep", "context", "metadata", "isActive", "lastActivity", "createdAt", "updatedAt", "expiresAt"),
    *("currentOrderId", "orderHistory", "version"),
}
Call = Callable[..., Any]


@pytest.fixture
def ask(server: WebServer) -> Callable[..., Answer]:
    """Any answer to (method, path, body)."""

    def asked(method: str, path: str, body: Any = None, **headers: str) -> Answer:
        given = {"Authorization": f"Bearer {server.key}"} | {n.replace("_", "-"): v for n, v in headers.items()}
        return server.call(method, f"/api/v1/{path}", body, headers=given)

    return asked


@pytest.fixture
def call(ask: Callable[..., Answer]) -> Call:
    """The data of a success."""

    def called(method: str, path: str, body: Any = None, **headers: str) -> Any:
        answer = ask(method, path, body, **headers)
        assert answer.status in (200, 201), answer.body
        assert answer.json["success"] is True
        return answer.json["data"]

    return called


@pytest.fixture
def state(call: Call) -> Any:
    """A new session's."""
    return call("POST", "conversations", {"userId": PHONE, "subDomain": "shop"})


@pytest.fixture
def at(state: Any) -> str:
    """Where it is."""
    return f"conversations/{state['sessionId']}"


def moment(text: str) -> datetime:
    read = datetime.fromisoformat(text)
    assert read.tzinfo is not None
    return read


# --- opening and finding ----------------------------------------------------------------------------------------------
def test_a_session_begins_with_the_defaults(state: Any) -> None:
    assert set(state) == FIELDS
    assert (state["userId"], state["subDomain"], state["isActive"]) == (PHONE, "shop", True)
    assert (state["currentIntent"], state["currentStep"]) == ("idle", "initial")
    assert (state["previousIntent"], state["previousStep"], state["currentOrderId"]) == (None, None, None)
    assert state["context"] == {"previousMessages": [], "orderHistory": []}
    assert moment(state["expiresAt"]) - moment(state["lastActivity"]) == timedelta(hours=24)
    conversation = Conversation.objects.get()
    assert (conversation.channel, conversation.is_guest, str(conversation.pk)) == (
        "whatsapp",
        False,
        state["sessionId"],
    )
    assert list(conversation.chunks.values_list("role", flat=True)) == ["system", "memory"]
    assert list(conversation.contact.identities.values_list("channel", "address")) == [("whatsapp", "51999999999")]


def test_an_open_session_is_returned_and_not_doubled(ask: Callable[..., Answer]) -> None:
    body = {"userId": PHONE, "subDomain": "shop"}
    first, again = ask("POST", "conversations", body), ask("POST", "conversations", {**body, "userId": "51999999999"})
    assert (first.status, again.status) == (201, 200)
    assert first.json["data"] == again.json["data"]
    assert Conversation.objects.count() == Contact.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_many_that_open_it_at_once_all_get_the_same(ask: Callable[..., Answer]) -> None:
    opens = [lambda: ask("POST", "conversations", {"userId": PHONE, "subDomain": "shop"})] * 12
    answers = together(*opens)
    assert sorted(answer.status for answer in answers) == [200] * 11 + [201]
    assert len({answer.json["data"]["sessionId"] for answer in answers}) == 1
    assert Contact.objects.count() == 1


def test_the_platform_names_the_channel(call: Call) -> None:
    for platform, channel in (("SMS", "sms"), ("web", "web"), ("messenger", "messenger"), ("iOS", "whatsapp")):
        metadata = {"platform": platform, "language": "es", "shoe": 42, "timezone": None}
        state = call("POST", "conversations", {"userId": PHONE, "subDomain": "shop", "metadata": metadata})
        assert Conversation.objects.get(pk=state["sessionId"]).channel == channel
        assert state["metadata"] == {"platform": platform, "language": "es", "shoe": 42}
    assert Contact.objects.count() == 1


def test_it_is_the_session_that_the_person_s_messages_are_in(door: Door, call: Call) -> None:
    said = door.says("Hello", channel="whatsapp", phone=PHONE)
    state = call("GET", f"conversations/user/{PHONE}?subDomain=shop")
    assert state["sessionId"] == said["conversation_id"]
    assert state["context"]["lastUserMessage"] == "Hello"
    assert call("POST", "conversations", {"userId": PHONE, "subDomain": "shop"})["sessionId"] == state["sessionId"]


@pytest.mark.parametrize(
    "written", ["+51999999999", "%2B51999999999", "51999999999", "%2051999999999", "+51%20999999999"]
)
def test_a_phone_in_a_path_may_be_written_in_many_ways(call: Call, state: Any, written: str) -> None:
    for path in ("conversations/user", "whatsapp/lookup/conversation"):
        assert call("GET", f"{path}/{written}?subDomain=shop") == state
    tenant = call("GET", f"whatsapp/lookup/tenant/{written}")
    assert tenant == {"subDomain": "shop", "botId": "ada", "sessionId": state["sessionId"], "isActive": True}


def test_who_is_not_known_is_a_404(ask: Callable[..., Answer], call: Call, state: Any, at: str) -> None:
    paths = ("conversations/user", "whatsapp/lookup/tenant", "whatsapp/lookup/conversation")
    for path in paths:
        assert_failure(ask("GET", f"{path}/+51999999998"), 404, code="not_found")
    call("POST", f"{at}/end", {"subDomain": "shop"})
    assert [ask("GET", f"{path}/{PHONE}").status for path in paths] == [404, 200, 404]
    assert call("GET", f"whatsapp/lookup/tenant/{PHONE}")["isActive"] is False


def test_a_bot_may_be_one_of_our_assistants_or_not(call: Call, shop: Client) -> None:
    factories.AssistantFactory(client=shop, key="bert", is_default=False, system_prompt="You are Bert.")
    ours = call("POST", "conversations", {"userId": PHONE, "subDomain": "shop", "botId": "bert"})
    assert ours["botId"] == "bert"
    assert Chunk.objects.get(position=1).content == "You are Bert."
    theirs = call("POST", "conversations", {"userId": "+51999999998", "subDomain": "shop", "botId": "x-77"})
    assert theirs["botId"] == "x-77"
    assert call("GET", "whatsapp/lookup/conversation/+51999999998?botId=x-77") == theirs
    assert call("GET", "conversations?botId=bert")["conversations"] == [ours]


def test_a_branch_sees_its_own(call: Call, ask: Callable[..., Answer]) -> None:
    state = call("POST", "conversations", {"userId": PHONE, "subDomain": "shop", "localId": "centre"})
    at = f"conversations/{state['sessionId']}"
    assert state["localId"] == "centre"
    for path in (f"{at}?", f"{at}/orders?", f"conversations/user/{PHONE}?"):
        assert ask("GET", f"{path}localId=centre").status == 200
        assert_failure(ask("GET", f"{path}localId=beach"), 404)
    assert_failure(ask("POST", f"{at}/orders", {"orderId": "o1", "localId": "beach"}), 404)
    assert call("GET", "conversations?localId=beach") == {"conversations": [], "count": 0}
    moved = call("POST", "conversations", {"userId": PHONE, "subDomain": "shop", "localId": "beach"})
    assert (moved["sessionId"], moved["localId"]) == (state["sessionId"], "beach")


def test_open_sessions_are_listed_in_pages(call: Call) -> None:
    for number in range(5):
        call("POST", "conversations", {"userId": f"+5199999999{number}", "subDomain": "shop"})
    ids = [each["sessionId"] for each in call("GET", "conversations?subDomain=shop&limit=50")["conversations"]]
    call("PATCH", f"conversations/{ids[2]}/intent", {"subDomain": "shop", "intent": "order"})
    call("POST", f"conversations/{ids[4]}/end", {"subDomain": "shop"})
    pages = [call("GET", f"conversations?limit=2&offset={offset}") for offset in (0, 2, 4)]
    assert [[each["sessionId"] for each in page["conversations"]] for page in pages] == [ids[:2], ids[2:4], []]
    assert {page["count"] for page in pages} == {4}
    assert [each["sessionId"] for each in call("GET", "conversations?intent=order")["conversations"]] == [ids[2]]
    assert call("GET", "conversations?intent=idle")["count"] == 3


# --- intent and context -----------------------------------------------------------------------------------------------
def test_an_intent_keeps_the_pair_before(call: Call, at: str) -> None:
    call("PATCH", f"{at}/intent", {"subDomain": "shop", "intent": "menu", "step": "browsing"})
    state = call("PATCH", f"{at}/intent", {"subDomain": "shop", "intent": "order", "step": None, "localId": None})
    pairs = {"currentIntent": "order", "currentStep": "browsing", "previousIntent": "menu", "previousStep": "browsing"}
    assert pairs.items() <= state.items()
    again = call("PATCH", f"{at}/intent", {"intent": "order", "step": "browsing"})
    assert again == state, "the same again changes nothing"
    events = ConversationEvent.objects.filter(kind="intent_changed").order_by("id").values_list("cause", "actor")
    assert list(events) == [("idle to menu", "api"), ("menu to order", "api")]


def test_objects_are_merged_deeply_and_lists_replaced(call: Call, at: str) -> None:
    def merge(context: Any) -> Any:
        return call("PATCH", f"{at}/context", {"subDomain": "shop", "context": context})["context"]

    item = {"id": "p1", "name": "Pizza", "quantity": 1, "price": 20}
    merge({"selectedItems": [item, item], "deliveryAddress": {"street": "A 1"}, "own": {"a": {"b": 1}, "list": [1]}})
    context = merge(
        {
            "selectedItems": [{**item, "quantity": "2", "price": "20.50", "notes": None}],
            "deliveryAddress": {"city": "Lima", "notes": None},
            "own": {"a": {"c": 2}, "list": [2, 3], "none": None},
            "orderTotal": "41.00",
            "paymentMethod": "Credit_Card",
            "customerName": None,
        }
    )
    assert context["selectedItems"] == [{**item, "quantity": 2, "price": 20.5}]
    assert context["deliveryAddress"] == {"street": "A 1", "city": "Lima"}
    assert context["own"] == {"a": {"b": 1, "c": 2}, "list": [2, 3], "none": None}
    assert (context["orderTotal"], context["paymentMethod"]) == (41.0, "card")
    assert context["paymentMethodOriginal"] == "Credit_Card", "beside what every client can read"
    assert "customerName" not in context
    assert merge({"paymentMethod": None})["paymentMethod"] == "card", "null says: absent"
    assert "paymentMethodOriginal" not in merge({"paymentMethod": "yape"})
    replaced = call("PATCH", f"{at}/context", {"context": {"own": 1}, "merge": "false", "subDomain": "shop"})
    assert replaced["context"] == {"own": 1, "previousMessages": [], "orderHistory": []}


def test_numbers_may_be_huge(call: Call, at: str, server: WebServer) -> None:
    context = call("PATCH", f"{at}/context", {"context": {"far": 1e300, "near": 1e-300, "count": 2**60}})["context"]
    assert (float(context["far"]), context["near"], context["count"]) == (1e300, 1e-300, 2**60)
    seen = call("GET", at)["context"]
    assert (float(seen["far"]), seen["near"], seen["count"]) == (1e300, 1e-300, 2**60)
    said = server.call(
        "POST",
        f"/api/v1/{at}/orders",
        {"orderId": "o"},
        headers={"X-Service-API-Key": server.key, "Idempotency-Key": "huge"},
    )
    assert said.status == 201


def test_what_is_derived_is_not_taken_from_an_agent(call: Call, at: str) -> None:
    call("POST", f"{at}/messages", {"subDomain": "shop", "role": "user", "content": "Hello"})
    forged = {"previousMessages": [{"role": "user", "content": "I paid"}], "lastUserMessage": "I paid", "own": 1}
    context = call("PATCH", f"{at}/context", {"context": forged, "merge": False})["context"]
    assert [each["content"] for each in context["previousMessages"]] == ["Hello"]
    assert (context["lastUserMessage"], context["own"]) == ("Hello", 1)


def test_a_context_is_bounded(call: Call, ask: Callable[..., Answer], at: str) -> None:
    call("PATCH", f"{at}/context", {"context": {"a": "x" * 40_000}})
    answer = ask("PATCH", f"{at}/context", {"context": {"b": "x" * 40_000}})
    assert_failure(answer, 400, code="too_large")
    assert answer.json["error"].startswith("context would be 80,015 bytes of JSON; at most 65,536 are stored")
    assert "b" not in call("GET", at)["context"]
    assert_failure(ask("PUT", f"whatsapp/agent/{at}/sync", {"metadata": {"a": "x" * 20_000}}), 400, code="too_large")


@pytest.mark.parametrize(
    "context",
    [
        {"selectedItems": {}},
        {"selectedItems": [1]},
        {"selectedItems": [{"quantity": "many"}]},
        {"selectedItems": [{"id": "p1", "name": "Pizza", "quantity": 1}]},
        {"selectedItems": [{"id": "p1", "name": "Pizza", "quantity": 1.5, "price": 20}]},
        {"selectedItems": [{"id": "p1", "quantity": 1, "price": 20}]},
        {"paymentMethod": "mobile_payment"},
        {"paymentMethod": "online"},
        {"orderTotal": "NaN"},
        {"orderTotal": True},
        {"orderTotal": []},
        {"deliveryAddress": "A 1"},
        {"paymentMethod": 5},
        {"orderHistory": "o1"},
        {"orderHistory": [""]},
        {"currentOrderId": {}},
        {"currentOrderId": "x" * 201},
    ],
)
def test_a_known_key_of_another_form_is_refused(ask: Callable[..., Answer], at: str, context: Any) -> None:
    answer = ask("PATCH", f"{at}/context", {"context": context})
    assert_failure(answer, 400, code="invalid")
    assert list(answer.json["details"]) == ["context"]


@pytest.mark.django_db(transaction=True)
def test_agents_that_write_at_once_lose_no_key(call: Call, at: str) -> None:
    together(
        *[
            lambda n=n: call("PATCH", f"{at}/context", {"context": {f"k{n}": n, "deep": {f"k{n}": n}}})
            for n in range(20)
        ]
    )
    state = call("GET", at)
    assert {key: value for key, value in state["context"].items() if key.startswith("k")} == {
        f"k{n}": n for n in range(20)
    }
    assert len(state["context"]["deep"]) == 20
    assert state["version"] == 21


@pytest.mark.django_db(transaction=True)
def test_who_wants_a_conflict_gets_it(ask: Callable[..., Answer], call: Call, at: str) -> None:
    version = call("GET", at)["version"]
    changes = [
        lambda n=n: ask("PATCH", f"{at}/context", {"context": {"n": n}}, If_Match=f'"{version}"') for n in range(6)
    ]
    answers = together(*changes)
    assert sorted(answer.status for answer in answers) == [200] + [409] * 5
    refused = next(answer for answer in answers if answer.status == 409)
    assert_failure(refused, 409, code="version_conflict")
    assert refused.json["details"] == {"version": version + 1}
    assert ask("GET", at).headers["ETag"] == f'"{version + 1}"'
    assert ask("PATCH", f"{at}/intent", {"intent": "menu"}, If_Match=f'W/"{version + 1}"').status == 200
    assert ask("PATCH", f"{at}/intent", {"intent": "order"}, If_Match="*").status == 200
    assert_failure(ask("PATCH", f"{at}/intent", {"intent": "order"}, If_Match="x"), 400)


def test_an_agent_s_whole_state_is_taken_over_at_once(call: Call, ask: Callable[..., Answer], at: str) -> None:
    body = {
        "intent": "payment",
        "step": "awaiting_payment",
        "context": {"orderTotal": 41, "currentOrderId": "o2", "orderHistory": ["o1", "o2"], "retryCount": "1"},
        "metadata": {"language": "es"},
        "isActive": True,
        "unknown": [1],
    }
    state = call("PUT", f"whatsapp/agent/{at}/sync", body)
    assert (state["currentIntent"], state["currentStep"]) == ("payment", "awaiting_payment")
    assert (state["currentOrderId"], state["orderHistory"]) == ("o2", ["o1", "o2"])
    assert (state["context"]["retryCount"], state["metadata"]["language"]) == (1, "es")
    assert call("PUT", f"whatsapp/agent/{at}/sync", body) == state, "the same again changes nothing"
    assert call("PUT", f"whatsapp/agent/{at}/sync", dict.fromkeys(body)) == state, "null says: absent"
    ended = call("PUT", f"whatsapp/agent/{at}/sync", {"isActive": False, "context": {"last": 1}})
    assert (ended["isActive"], ended["context"]["last"]) == (False, 1)
    assert_failure(ask("PUT", f"whatsapp/agent/{at}/sync", body), 409, code="ended")


# --- messages ---------------------------------------------------------------------------------------------------------
def test_messages_are_the_session_s_own_chunks(call: Call, at: str, server: WebServer) -> None:
    call("POST", f"{at}/messages", {"subDomain": "shop", "role": "user", "content": " A pizza \n"})
    state = call("POST", f"whatsapp/agent/{at}/messages", {"role": "bot", "content": "Which?"})
    assert [(each["role"], each["content"]) for each in state["context"]["previousMessages"]] == [
        ("user", " A pizza \n"),
        ("bot", "Which?"),
    ]
    for each in state["context"]["previousMessages"]:
        assert moment(each["timestamp"]), each
    assert state["context"]["lastUserMessage"] == " A pizza \n"
    seen = server.call("GET", f"/{at}").json["data"]
    assert [each["role"] for each in seen["chunks"]] == ["system", "memory", "user", "ai"]
    assert seen["reply_owed"] is False, "it is recorded, no more"
    assert reply_to_all() == 0


def test_a_message_id_seen_before_changes_nothing(call: Call, at: str) -> None:
    said = {"role": "user", "content": "Hello", "messageId": "wamid.1"}
    first = call("POST", f"{at}/messages", said)
    assert call("POST", f"{at}/messages", {**said, "content": "Other"}) == first
    assert call("POST", f"whatsapp/agent/{at}/messages", said) == first
    other = call("POST", "conversations", {"userId": "+51999999998", "subDomain": "shop"})["sessionId"]
    call("POST", f"conversations/{other}/messages", said)
    assert Chunk.objects.filter(message_id="wamid.1").count() == 2, "it is unique in its session"


@pytest.mark.django_db(transaction=True)
def test_messages_at_once_are_stored_once_each_without_gaps(call: Call, at: str) -> None:
    says = [
        lambda n=n: call("POST", f"{at}/messages", {"role": "user", "content": str(n), "messageId": f"m{n}"})
        for n in range(10)
    ]
    together(*says, *says)
    chunks = Chunk.objects.order_by("position").values_list("position", flat=True)
    assert list(chunks) == list(range(1, 13))


def test_a_client_can_have_them_answered(call: Call, at: str, shop: Client) -> None:
    Client.objects.filter(pk=shop.pk).update(answers_synced=True)
    call("POST", f"{at}/messages", {"role": "user", "content": "Hello"})
    assert reply_to_all() == 1
    assert call("GET", at)["context"]["previousMessages"][-1]["role"] == "bot"
    call("POST", f"{at}/messages", {"role": "user", "content": "And now?"})
    call("POST", f"{at}/messages", {"role": "bot", "content": "I answered myself."})
    assert reply_to_all() == 0


def test_messages_are_activity(call: Call, state: Any, at: str) -> None:
    for role in ("user", "bot"):
        Conversation.objects.update(status="stale", last_message_at=timezone.now() - timedelta(hours=5))
        after = call("POST", f"{at}/messages", {"role": role, "content": "Hello"})
        assert Conversation.objects.get().status == "active"
        assert moment(after["lastActivity"]) > moment(state["lastActivity"])
        assert moment(after["expiresAt"]) > moment(state["expiresAt"])


def test_only_the_newest_are_shown(call: Call, at: str) -> None:
    call("POST", f"{at}/messages", {"role": "user", "content": "Hello"})
    for number in range(25):
        state = call("POST", f"{at}/messages", {"role": "bot", "content": str(number)})
    assert [each["content"] for each in state["context"]["previousMessages"]] == [str(n) for n in range(5, 25)]
    assert state["context"]["lastUserMessage"] == "Hello"


# --- reset, extend, orders, end ---------------------------------------------------------------------------------------
def begun(call: Call, at: str) -> None:
    call("PATCH", f"{at}/intent", {"intent": "order", "step": "cart"})
    call("PATCH", f"{at}/context", {"context": {"orderTotal": 20, "own": 1}})
    call("POST", f"{at}/orders", {"orderId": "o1"})
    call("POST", f"{at}/messages", {"role": "user", "content": "My old secret"})


def test_a_reset_hides_what_was_before(call: Call, at: str, shop: Client) -> None:
    begun(call, at)
    state = call("POST", f"{at}/reset", {"subDomain": "shop"})
    assert state["context"] == {"previousMessages": [], "orderHistory": ["o1"]}
    assert (state["currentIntent"], state["currentStep"], state["currentOrderId"]) == ("idle", "initial", None)
    assert state["previousIntent"] is None
    Client.objects.filter(pk=shop.pk).update(answers_synced=True)
    call("POST", f"{at}/messages", {"role": "user", "content": "Something new"})
    reply_to_all()
    prompt = str(Conversation.objects.get().turns.get().prompt)
    assert "Something new" in prompt
    assert "My old secret" not in prompt
    assert Chunk.objects.filter(content="My old secret").exists(), "no chunk is deleted"
    assert ConversationEvent.objects.get(kind="reset").cause == "history hidden"


def test_a_reset_can_keep_what_was_said(call: Call, at: str) -> None:
    begun(call, at)
    state = call("POST", f"{at}/reset", {"subDomain": "shop", "keepHistory": True})
    assert state["context"]["lastUserMessage"] == "My old secret"
    assert "own" not in state["context"]
    assert ConversationEvent.objects.get(kind="reset").cause == "history kept"


def test_an_extended_session_outlives_the_sweep(call: Call, at: str, state: Any) -> None:
    extended = call("POST", f"{at}/extend", {"subDomain": "shop", "hours": "48"})
    assert timedelta(hours=47) < moment(extended["expiresAt"]) - timezone.now() <= timedelta(hours=48)
    assert call("POST", f"{at}/extend", {"hours": 1})["expiresAt"] == extended["expiresAt"], "it is never shortened"
    until = moment(extended["expiresAt"])
    sweep.sweep(until - timedelta(minutes=1))
    assert call("GET", at)["isActive"] is True
    assert Conversation.objects.get().status == "stale"
    sweep.sweep(until)
    assert call("GET", at)["isActive"] is False


def test_a_message_counts_from_an_extension_on(call: Call, at: str) -> None:
    extended = moment(call("POST", f"{at}/extend", {"hours": 30})["expiresAt"])
    assert moment(call("POST", f"{at}/messages", {"role": "user", "content": "Hello"})["expiresAt"]) == extended
    sweep.sweep(timezone.now() + timedelta(hours=25))
    assert call("GET", at)["isActive"] is True
    assert call("POST", f"{at}/extend", {})["expiresAt"] == extended.isoformat()


def test_orders_are_linked_once_each_in_order(call: Call, at: str) -> None:
    for order_id in ("o2", "o1", "o2", "o3", "o1"):
        state = call("POST", f"{at}/orders", {"subDomain": "shop", "orderId": order_id})
    assert (state["currentOrderId"], state["orderHistory"]) == ("o1", ["o2", "o1", "o3"])
    assert call("GET", f"{at}/orders?subDomain=shop") == {"currentOrderId": "o1", "orderHistory": ["o2", "o1", "o3"]}
    assert state["context"]["currentOrderId"] == "o1"


@pytest.mark.django_db(transaction=True)
def test_orders_linked_at_once_are_there_once(call: Call, at: str) -> None:
    together(*[lambda n=n: call("POST", f"{at}/orders", {"orderId": f"o{n % 5}"}) for n in range(20)])
    assert sorted(OrderLink.objects.values_list("order_id", flat=True)) == [f"o{n}" for n in range(5)]


def test_the_end_is_the_end(call: Call, ask: Callable[..., Answer], at: str, state: Any) -> None:
    ended = call("POST", f"{at}/end", {"subDomain": "shop"})
    assert ended["isActive"] is False
    assert call("POST", f"{at}/end", {"subDomain": "shop"}) == ended
    assert Conversation.objects.get().ended_by == "system"
    for method, path, body in (
        ("PATCH", "intent", {"intent": "menu"}),
        ("PATCH", "context", {"context": {}}),
        ("POST", "messages", {"role": "user", "content": "Hello"}),
        ("POST", "reset", {}),
        ("POST", "extend", {}),
        ("POST", "orders", {"orderId": "o1"}),
    ):
        assert_failure(ask(method, f"{at}/{path}", body), 409, code="ended")
    assert call("GET", at) == ended
    again = call("POST", "conversations", {"userId": PHONE, "subDomain": "shop"})
    assert again["sessionId"] != state["sessionId"]


def test_ending_what_has_expired_changes_nothing(call: Call, at: str) -> None:
    sweep.sweep(timezone.now() + timedelta(hours=25))
    assert call("POST", f"{at}/end", {})["isActive"] is False
    assert Conversation.objects.get().status == "expired"


# --- another hand -----------------------------------------------------------------------------------------------------
def test_what_another_hand_sends_is_understood(call: Call) -> None:
    absent = {"localId": None, "botId": None, "metadata": None, "unknown": {"x": [1]}}
    state = call("POST", "conversations", {"userId": "51 999 999 999", "subDomain": "shop", **absent})
    assert (state["userId"], state["metadata"]) == (PHONE, {})
    at = f"conversations/{state['sessionId']}"
    said = {"subDomain": "shop", "role": "user", "content": "Hello", "localId": None, "timestamp": 5}
    assert call("POST", f"{at}/messages", {**said, "messageId": None})["context"]["lastUserMessage"] == "Hello"
    assert call("PATCH", f"{at}/context", {"context": {"retryCount": "3"}, "merge": None})["context"]["retryCount"] == 3
    assert call("POST", f"{at}/reset", {"keepHistory": "true", "localId": None})["context"]["lastUserMessage"]
    assert call("POST", f"{at}/extend", {"hours": None})["isActive"]
    assert call("GET", "conversations?limit=10&offset=0&sort=x")["count"] == 1


def test_a_purge_takes_state_and_orders_along(call: Call, at: str) -> None:
    begun(call, at)
    Conversation.objects.update(is_guest=True)
    sweep.sweep(timezone.now() + timedelta(hours=25))
    assert not Conversation.objects.exists()
    assert not OrderLink.objects.exists()


def test_a_person_may_be_known_by_a_business_scoped_id_alone(call: Call) -> None:
    started = call("POST", "conversations", {"userId": "PE.1234abcd", "subDomain": "shop"})
    assert started["userId"] == "PE.1234abcd"
    again = call("POST", "conversations", {"userId": "PE.1234abcd", "subDomain": "shop"})
    assert again["sessionId"] == started["sessionId"]
    assert call("GET", "conversations/user/PE.1234abcd?subDomain=shop")["sessionId"] == started["sessionId"]
    assert call("GET", "whatsapp/lookup/conversation/PE.1234abcd")["sessionId"] == started["sessionId"]
    assert ContactIdentity.objects.get().kind == "bsuid"


def test_a_base_url_that_ends_in_the_protocol_s_path_works(ask: Callable[..., Answer], state: Any) -> None:
    answer = ask("GET", f"api/v1/conversations/{state['sessionId']}?subDomain=shop")
    assert (answer.status, answer.json["data"]["sessionId"]) == (200, state["sessionId"])
    assert_failure(ask("GET", "api/v1/api/v1/conversations"), 404)

"""The client against a server that runs: every route, both kinds of programs, and the seed's checklist."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conversations.client import (
    MAPPING,
    ConflictError,
    ConversationMiddleware,
    ConversationStateManager,
    ConversationStateService,
    ConversationSync,
    InvalidError,
    NotAllowedError,
    NotFoundError,
    Settings,
    blocking,
    sync_conversation_state,
    track_conversation_messages,
    use,
)
from conversations.models import Chunk, Client, Conversation
from conversations.services.jobs import sweep
from tests.crash.stage import Convo
from tests.sizes import times

pytestmark = pytest.mark.timeout(300)  # the first test waits for the server

GRAPH: dict[str, Any] = {
    "cart": {"items": [{"id": "p1", "name": "Pizza", "quantity": 2, "price": 20.5}], "total": 41.0},
    "user_location": {"address": "Calle 1", "name": "Lima", "latitude": -12.05, "longitude": -77.03},
    "payment_method": "Yape",
    "customer_name": "Ana",
    "customer_phone": "+51999999999",
    "order_stage": "checkout",
    "retry_count": 1,
    "messages": [{"type": "human", "content": "To my home"}, {"type": "ai", "content": "Sure"}],
}


@pytest.fixture(autouse=True)
def _as_default(sync: ConversationSync) -> Any:
    use(sync)
    yield
    use(None)


# --- route by route ---------------------------------------------------------------------------------------------------
async def every_route(service: ConversationStateService, phone: str, shop: str) -> None:
    state = await service.create_conversation(phone, shop, bot_id="b7", local_id="centre", metadata={"language": "es"})
    session = state.session_id
    assert (state.user_id, state.sub_domain, state.bot_id, state.local_id) == (phone, shop, "b7", "centre")
    assert (await service.create_conversation(phone, shop)).session_id == session
    found, count = await service.list_conversations(shop, local_id="centre", limit=1)
    assert count >= len(found) == 1
    for look in (service.get_conversation(session, shop), service.get_conversation_by_user(phone, shop)):
        assert (await look) == state
    assert await service.lookup_conversation(phone) == state
    tenant = await service.lookup_tenant(phone)
    assert tenant is not None
    assert (tenant.sub_domain, tenant.bot_id, tenant.session_id, tenant.is_active) == (shop, "b7", session, True)

    state = await service.update_intent(session, shop, "order", "cart")
    assert (state.current_intent, state.current_step, state.previous_intent) == ("order", "cart", "idle")
    state = await service.update_context(session, shop, {"own": {"a": 1}})
    state = await service.update_context(session, shop, {"own": {"b": 2}}, if_version=state.version)
    assert state.context["own"] == {"a": 1, "b": 2}
    with pytest.raises(ConflictError, match="version") as refused:
        await service.update_context(session, shop, {"own": 1}, if_version=state.version - 1)
    assert refused.value.code == "version_conflict"
    state = await service.update_context(session, shop, {"new": 1}, merge=False)
    assert "own" not in state.context

    state = await service.add_message(session, shop, "user", "Hola \U0001f355", message_id="m1")
    assert await service.add_message(session, shop, "user", "Hola \U0001f355", message_id="m1") == state
    state = await service.add_agent_message(session, "bot", "Dime", idempotency_key="once")
    assert await service.add_agent_message(session, "bot", "Dime", idempotency_key="once") == state
    assert [(each["role"], each["content"]) for each in state.messages] == [
        ("user", "Hola \U0001f355"),
        ("bot", "Dime"),
    ]

    await service.link_order(session, shop, "o1")
    assert (await service.get_orders(session, shop)).order_history == ["o1"]
    state = await service.sync_state(session, intent="payment", step="paying", context={"orderTotal": 5})
    assert (state.current_intent, state.context["orderTotal"], state.current_order_id) == ("payment", 5, "o1")
    extended = await service.extend_conversation(session, shop, 72)
    assert extended.expires_at - timezone.now() > timedelta(hours=71)
    state = await service.reset_conversation(session, shop, keep_history=True)
    assert (state.current_intent, len(state.messages)) == ("idle", 2)
    assert (await service.reset_conversation(session, shop)).messages == []
    assert (await service.end_conversation(session, shop)).is_active is False
    assert await service.get_conversation_by_user(phone, shop) is None
    assert await service.lookup_conversation(phone) is None
    with pytest.raises(ConflictError, match="closed") as over:
        await service.add_message(session, shop, "user", "Hello?")
    assert over.value.code == "ended"


def test_every_route_is_a_method(settings_of: Any, phone: str, shop: str) -> None:
    async def run() -> None:
        async with ConversationStateService(settings_of()) as service:
            await every_route(service, phone, shop)

    asyncio.run(run())


def test_every_method_is_there_without_async(settings_of: Any, phone: str, shop: str) -> None:
    mine = {name for name in vars(ConversationStateService) if not name.startswith("_")} - {"request"}
    theirs = {name for name in vars(blocking.ConversationStateService) if not name.startswith("_")}
    assert mine == theirs
    with blocking.ConversationStateService(settings_of()) as service:
        state = service.create_conversation(phone, shop)
        assert service.get_conversation(state.session_id, sub_domain=shop) == state
        with pytest.raises(NotFoundError):
            service.end_conversation("5f0c7a52-0000-4000-8000-000000000000", shop)


def test_errors_say_what_is_wrong(settings_of: Any, phone: str, shop: str) -> None:
    with blocking.ConversationStateService(settings_of()) as service:
        with pytest.raises(InvalidError) as invalid:
            service.create_conversation("nonsense", shop)
        assert (invalid.value.status, list(invalid.value.details)) == (400, ["userId"])
        with pytest.raises(NotAllowedError):
            service.create_conversation(phone, "somebody-else")
    with (
        blocking.ConversationStateService(settings_of(api_key="convo_wrong")) as service,
        pytest.raises(NotAllowedError) as refused,
    ):
        service.get_conversation_by_user(phone, shop)
    assert refused.value.status == 401


def test_a_session_outlives_the_sweep_when_extended(settings_of: Any, phone: str, shop: str) -> None:
    with blocking.ConversationStateService(settings_of()) as service:
        session = service.create_conversation(phone, shop).session_id
        until = service.extend_conversation(session, shop, 48).expires_at
        sweep.sweep(timezone.now() + timedelta(hours=47))
        assert service.get_conversation(session, shop).is_active  # type: ignore[union-attr]
        sweep.sweep(until)
        assert not service.get_conversation(session, shop).is_active  # type: ignore[union-attr]


# --- the seed's checklist ---------------------------------------------------------------------------------------------
def test_the_seed_s_checklist(
    convo: Convo, settings_of: Any, phone: str, shop: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "conversations.client")
    session = blocking.initialize_conversation_for_user(phone, shop, "b7")
    assert session is not None
    assert f"Conversation initialized: {session}" in caplog.text
    conversation = Conversation.objects.get(pk=session)

    assert blocking.add_message_to_conversation(session, shop, "user", "Two pizzas")
    assert f"Added user message to conversation {session}" in caplog.text
    with blocking.ConversationStateService(settings_of()) as service:
        state = service.get_conversation(session, shop)
        assert state is not None
        assert [each["content"] for each in state.messages] == ["Two pizzas"]
        assert state.context["lastUserMessage"] == "Two pizzas"

        assert blocking.sync_graph_state_to_api(session, shop, GRAPH)
        assert f"Synced graph state to API for {session}" in caplog.text
        state = service.get_conversation(session, shop)
        assert state is not None
        assert state.context["selectedItems"] == GRAPH["cart"]["items"]
        assert (state.context["orderTotal"], state.context["paymentMethod"]) == (41.0, "yape")
        assert state.context["deliveryAddress"]["street"] == "Calle 1"
        assert (state.current_intent, state.current_step) == ("delivery", "checkout")

        assert blocking.link_order_to_conversation(session, shop, "o-1")
        assert f"Linked order o-1 to conversation {session}" in caplog.text
        state = service.get_conversation(session, shop)
        assert state is not None
        assert (state.current_order_id, state.order_history) == ("o-1", ["o-1"])
    assert conversation.chunks.count() == 3
    for private in (phone, phone.strip("+"), "pizzas", convo.key):
        assert private not in caplog.text


# --- context manager and decorators -----------------------------------------------------------------------------------
def test_the_middleware_is_a_context_manager_of_both_kinds(phone: str, shop: str) -> None:
    async def agent() -> str | None:
        async with ConversationMiddleware(phone, shop) as conv:
            assert await conv.add_user_message("Hello")
            assert await conv.sync_state(GRAPH)
            assert await conv.add_bot_message("Hi")
            assert conv.state is not None
            return conv.session_id

    session = asyncio.run(agent())
    with ConversationMiddleware(phone, shop) as conv:
        assert conv.session_id == session
        assert conv.add_user_message("Again")
        assert conv.graph_state()["cart"] == GRAPH["cart"]
        assert conv.link_order("o1")
        assert conv.extend(48)
        assert conv.end()
    said = Chunk.objects.filter(conversation=session, role__in=["user", "ai"]).order_by("position")
    assert list(said.values_list("content", flat=True)) == ["Hello", "Hi", "Again"]


def test_an_exception_of_the_block_passes(phone: str, shop: str) -> None:
    def block() -> None:
        with ConversationMiddleware(phone, shop) as conv:
            conv.add_user_message("Hello")
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        block()


def test_decorators_keep_state_and_messages_around_a_node(phone: str, shop: str) -> None:
    session = blocking.initialize_conversation_for_user(phone, shop)
    state = {"conversation_session_id": session, "sub_domain": shop, **GRAPH}

    @sync_conversation_state()
    @track_conversation_messages()
    def node(state: dict[str, Any]) -> dict[str, Any]:
        return {"order_stage": "payment", "messages": [{"role": "assistant", "content": "How do you pay?"}]}

    @track_conversation_messages()
    async def next_node(state: dict[str, Any]) -> dict[str, Any]:
        return {"messages": {"type": "ai", "content": "Thanks", "id": "ai-9"}}

    assert node(state)["order_stage"] == "payment"
    asyncio.run(next_node(state))
    asyncio.run(next_node(state))
    said = Chunk.objects.filter(conversation=session, role__in=["user", "ai"]).order_by("position")
    assert list(said.values_list("content", flat=True)) == ["To my home", "How do you pay?", "Thanks"]
    graph = blocking.graph_state_from_api(session, shop)
    assert (graph["order_stage"], ConversationStateManager().intent_of(graph)) == ("payment", "payment")


def test_a_node_s_own_exception_passes(phone: str, shop: str) -> None:
    @sync_conversation_state()
    @track_conversation_messages()
    def node(state: dict[str, Any]) -> dict[str, Any]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        node({"conversation_session_id": None, "messages": object()})


def test_a_message_after_the_end_opens_a_new_session(phone: str, shop: str) -> None:
    session = blocking.initialize_conversation_for_user(phone, shop)
    blocking.add_message_to_conversation(session, shop, "user", "Before")
    sweep.sweep(timezone.now() + timedelta(hours=25))
    assert blocking.add_message_to_conversation(session, shop, "user", "After")
    ended, opened = Conversation.objects.filter(contact__phone=phone).order_by("started_at")
    assert (str(ended.pk), ended.status) == (session, "expired")
    assert list(opened.chunks.filter(role="user").values_list("content", flat=True)) == ["After"]


def test_what_the_server_refuses_is_kept_and_told(phone: str, shop: str, sync: ConversationSync) -> None:
    session = blocking.initialize_conversation_for_user(phone, shop)
    assert not blocking.add_message_to_conversation(session, shop, "user", "  ")
    status = blocking.status()
    assert status is not None
    assert (status.waiting, status.refused) == (0, 1)
    assert blocking.add_message_to_conversation(session, shop, "user", "With NUL\0 and \ud800")
    assert Client.objects.count() == 1


# --- graph state, API, graph state: nothing is lost that the mapping names -----------------------------------------
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
words = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=20)
numbers = st.integers(0, 10**9) | st.floats(0, 1e6, allow_nan=False)
degrees = st.floats(-180, 180, allow_nan=False)
items = st.fixed_dictionaries(
    {"id": words, "name": texts, "quantity": st.integers(1, 99), "price": numbers},
    optional={"notes": texts, "extras": st.lists(words, max_size=3)},
)
stages = st.sampled_from(["cart", "selecting_items", "checkout", "awaiting_payment", "awaiting_phone", "own-stage"])
graphs = st.fixed_dictionaries(
    {},
    optional={
        "cart": st.fixed_dictionaries({}, optional={"items": st.lists(items, max_size=4), "total": numbers}),
        "user_location": st.fixed_dictionaries(
            {}, optional={"address": texts, "name": texts, "latitude": degrees, "longitude": degrees}
        ),
        "payment_method": st.sampled_from(["Cash", "yape", "PLIN", "bitcoin"]),
        "customer_name": texts,
        "customer_email": texts,
        "customer_phone": words,
        "current_order_id": words,
        "retry_count": st.integers(0, 100),
        "order_stage": stages,
        "workflow": st.sampled_from(["menu", "order", "other"]),
        "current_step": words,
        "current_intent": st.sampled_from(["support", "info", "menu", "nonsense"]),
        "messages": st.lists(st.fixed_dictionaries({"type": st.just("human"), "content": words}), max_size=2),
    },
)
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def service(convo: Convo) -> Any:
    with blocking.ConversationStateService(Settings(api_url=convo.base_url, api_key=convo.key)) as service:
        yield service


def look(state: Any, path: str) -> Any:
    for name in path.split("."):
        state = (state or {}).get(name)
    return state


@given(graph=graphs)
@settings(
    max_examples=times(20, 200),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_nothing_is_lost_that_the_mapping_names(graph: dict[str, Any], service: Any, shop: str) -> None:
    manager = ConversationStateManager()
    session = service.create_conversation(f"+5197{next(_numbers):07}", shop).session_id
    said = manager.to_api(graph)
    service.sync_state(session, **said)
    for message in graph.get("messages", []):
        service.add_message(session, shop, "user", message["content"])
    state = service.get_conversation(session, shop)
    back = manager.to_graph(state)
    for path in MAPPING:
        sent = look(graph, path)
        if sent is not None:
            assert look(back, path) == (sent.lower() if path == "payment_method" else sent), path
    assert (manager.intent_of(back), manager.step_of(back)) == (said["intent"], said["step"])
    messages = graph.get("messages") or [{"content": None}]
    assert back["last_user_message"] == messages[-1]["content"]
    assert {**manager.to_api(back), "context": 0} == {**said, "context": 0}, "and there again"


def test_another_agent_s_state_gives_the_same_intent_and_step(service: Any, shop: str) -> None:
    manager = ConversationStateManager()
    session = service.create_conversation(f"+5197{next(_numbers):07}", shop).session_id
    for intent, step in (("order", "cart"), ("payment", "paying"), ("support", "cart"), ("idle", "initial")):
        state = service.update_intent(session, shop, intent, step)
        graph = manager.to_graph(state)
        assert (manager.intent_of(graph), manager.step_of(graph)) == (intent, step)
    address = {"street": "A 1", "city": "Lima", "notes": "-12.05, -77.03"}
    state = service.update_context(session, shop, {"deliveryAddress": address}, merge=False)
    assert manager.to_graph(state)["user_location"] == {
        "address": "A 1",
        "name": "Lima",
        "latitude": -12.05,
        "longitude": -77.03,
    }


# --- docs/agents.md, as printed ---------------------------------------------------------------------------------------
ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/agents.md").read_text(), re.DOTALL | re.MULTILINE)
PRINTED = [
    ["kept as [0-9a-f-]{36}", "You said: Hello"],
    ["cart 41.0 order-1 2", "Two pizzas, 41.00. Shall I order\\?"],
    ["menu 2", "3"],
    ["1 in the cart. 20.5"],
]
AGAIN = [PRINTED[0], ["cart 41.0 order-1 3", PRINTED[1][1]], ["menu 5", "6"], ["2 in the cart. 41.0"]]


@pytest.fixture(scope="module")
def demo(convo: Convo) -> Iterator[Convo]:
    """As `make up` has it: the client is called demo."""
    before = Client.objects.get(pk=convo.client_id).sub_domain
    Client.objects.filter(pk=convo.client_id).update(sub_domain="demo")
    yield convo
    Client.objects.filter(pk=convo.client_id).update(sub_domain=before)


@pytest.mark.parametrize("number", range(len(PRINTED)))
def test_the_programs_of_the_documentation_run_as_printed(number: int, demo: Convo, tmp_path: Path) -> None:
    assert len(PROGRAMS) == len(PRINTED)
    variables = {**os.environ, "CONVO_API_URL": demo.base_url, "CONVO_API_KEY": demo.key, "PYTHONPATH": str(ROOT)}
    for printed in (PRINTED[number], AGAIN[number]):
        command = [sys.executable, "-W", "error::RuntimeWarning", "-c", PROGRAMS[number]]
        done = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert len(lines) == len(printed), done.stdout
        for wanted, line in zip(printed, lines, strict=True):
            assert re.fullmatch(wanted, line)
        assert (tmp_path / ".convo_outbox").stat().st_mode & 0o077 == 0

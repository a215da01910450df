"""A shop in business, and a web server in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client as HttpClient
from django.utils import timezone

from conversations.models import ChannelAccount, Client, Contact, Conversation, Rating, ToolCall, Turn
from conversations.services.core.ledger import SYSTEM
from conversations.services.replies.agent_requests import hash_of
from conversations.services.staff_actions import seed_helpers
from conversations.services.tenants import api_keys, setup
from conversations.services.transitions import closing
from convo_project import wsgi
from tests import factories
from tests.conftest import Door, reply_to_all, send_all
from tests.conversations.back_office import sign_in
from tests.conversations.meta_doors import account_at
from tests.conversations.own_json import Program
from tests.conversations.provider_doors import callback, configure
from tests.fakes.identity_provider import FakeIdentityProvider
from tests.fakes.meta import FakeMeta
from tests.fakes.orb import FakeGateway
from tests.routes import BODIES, WebServer

PHONE = "+51999999999"


def in_business(client: Client) -> dict[str, Any]:
    """The client has an open session with a pending step, a tool call that waits for approval, and a rating.

    Returns what a path that names them needs.
    """
    conversation = seed_helpers.create_conversation(client.pk, "ann", "sms", goal="Find the parcel")
    seed_helpers.append_chunk(conversation.pk, "user", "Where is it?")
    step = seed_helpers.add_step(conversation.pk, "Ask the number")
    call = ToolCall.objects.create(
        client=client, conversation=conversation, name="refund", key=f"key of {conversation.pk}"[:64], status="waiting"
    )
    now = timezone.now()
    Rating.objects.create(client=client, conversation=conversation, scale="five", asked_at=now, score=2, rated_at=now)
    Contact.objects.filter(pk=conversation.contact_id).update(phone=PHONE, is_guest=False)
    wait_for_agent(conversation.pk, BODIES["POST /conversations/<uuid:pk>/replies"]["turn_token"])
    return {"channel": "sms", "pk": conversation.pk, "step_id": step.pk, "call_id": call.pk, "phone": PHONE}


def wait_for_agent(conversation_id: Any, token: str) -> Turn:
    """The session's own agent has said that it answers later, to a request with this token."""
    now = timezone.now()
    Conversation.objects.filter(pk=conversation_id).update(reply_owed=True, reply_due_at=now)
    conversation = Conversation.objects.get(pk=conversation_id)
    return Turn.objects.create(
        conversation=conversation,
        attempt=1,
        inbound_sequence=conversation.inbound_sequence,
        engine="agent",
        callback_hash=hash_of(token),
        waiting_until=now + timedelta(hours=1),
        lease_until=now + timedelta(hours=1),
    )


def close(conversation_id: Any, summary: str = "") -> None:
    """The session is over, and this is what there is to know of it."""
    closing.close(conversation_id, ended_by="user", actor=SYSTEM, now=timezone.now())
    Conversation.objects.filter(pk=conversation_id).update(summary=summary)


@pytest.fixture
def ids(shop: Client) -> dict[str, Any]:
    """A session of the shop's and its step."""
    return in_business(shop)


@pytest.fixture
def server(key: str) -> WebServer:
    """A web server that sends the shop's key along."""
    return WebServer(key)


@pytest.fixture
def neighbour(db: Any) -> Client:
    """Another client, who is none of the shop's business."""
    client = factories.ClientFactory(name="Neighbour", sub_domain="neighbour")
    factories.AssistantFactory(client=client)
    factories.SandboxFactory(client=client)
    return client


@pytest.fixture
def neighbours_key(neighbour: Client) -> str:
    """An API key of the neighbour."""
    return api_keys.create_api_key(neighbour, "tests")[1]


@pytest.fixture
def session(door: Door) -> Conversation:
    """Ann's session, answered."""
    door.says("Where is my parcel?", phone="+51999999999", name="Ann")
    reply_to_all()
    send_all()
    return Conversation.objects.get()


@pytest.fixture
def agent(shop: Client) -> HttpClient:
    """A browser of an agent of the shop's, Agnes."""
    return sign_in("agnes", shop, "agent")


@pytest.fixture
def viewer(shop: Client) -> HttpClient:
    """A browser of a viewer, Vera."""
    return sign_in("vera", shop, "viewer")


@pytest.fixture
def manager(shop: Client) -> HttpClient:
    """A browser of a manager, Mona."""
    return sign_in("mona", shop, "manager")


@pytest.fixture
def meta() -> Iterator[FakeMeta]:
    """Meta, where WhatsApp's messages come from and go to."""
    with FakeMeta() as fake:
        yield fake


@pytest.fixture
def account(meta: FakeMeta, shop: Client) -> ChannelAccount:
    """The shop's account at Meta for WhatsApp."""
    return account_at(meta, shop)


@pytest.fixture
def gateway(settings: Any) -> Iterator[FakeGateway]:
    """The gateway of the shop's orbs, on this machine."""
    settings.ORB_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    with FakeGateway() as fake:
        yield fake


@pytest.fixture
def orb_account(gateway: FakeGateway, shop: Client) -> ChannelAccount:
    """The shop's account at that gateway."""
    return setup.create_channel_account(
        shop,
        channel="orb",
        provider="orb",
        address=gateway.name,
        credentials={"secret": gateway.secret},
        base_url=gateway.url,
    )


@pytest.fixture(params=["in front", "view"])
def program(request: pytest.FixtureRequest, shop: Client, key: str) -> Program:
    """The shop's program, in front of Django and behind."""
    behind = wsgi.application
    server = WebServer(application=behind) if request.param == "view" else WebServer()
    return Program(server, shop.pk, key)


@pytest.fixture
def met(program: Program, neighbour: Client, neighbours_key: str) -> Program:
    """At the shop and at its neighbour's: ann is in a conversation, and eve was in one."""
    theirs = Program(WebServer(), neighbour.pk, neighbours_key)
    for each in (program, theirs):
        each.says("Hello", message_id="m1")
        close(each.says("Hello", user_id="eve", message_id="m1")["conversation_id"])
    return program


@pytest.fixture
def corp(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeIdentityProvider]:
    """The identity provider "corp", at which Ann of the group support is signed in."""
    with FakeIdentityProvider(callback("corp")) as provider:
        configure(settings, monkeypatch, corp=provider.url)
        yield provider

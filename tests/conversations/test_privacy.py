"""What people write, their numbers, and keys: in the rows where they belong, and in no line of any log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.utils.module_loading import import_string

from channels_out.adapters.sandbox import SandboxAdapter
from channels_out.errors import SendError
from conversations.engines import registry
from conversations.models import Assistant, Chunk, Client, InboundEvent, Message, Turn
from conversations.services.inbound import messages
from conversations.services.tenants import setup
from tests.conftest import Door, reply_to_all, send_all
from tests.fakes.meta import FakeMeta
from tests.fakes.openai import FakeOpenAI
from tests.routes import WebServer

pytestmark = pytest.mark.django_db

TEXT = "My secret is that I ate the cake"
NAME = "Annabelle Secretly"
PHONE = "+51987654321"
META = {"access_token": "EAAG-private-token", "app_secret": "private-app-secret", "verify_token": "private-verify"}
OPENAI_KEY = "sk-private-openai"
WEBHOOK = "/webhooks/whatsapp/inbound"
LINE = django_settings.LOGGING["formatters"]["line"]


class Lines(logging.Handler):
    """Everything logged at any level by anybody, as Convo's own handler would print it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(import_string(LINE["()"])(LINE["format"]))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture(autouse=True)
def lines(key: str) -> Iterator[list[str]]:
    """The lines of a test; at its end none of them says what it should not."""
    handler, root = Lines(), logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler.lines
    root.setLevel(before)
    root.removeHandler(handler)
    for secret in (TEXT, "ate the cake", NAME, PHONE, PHONE.strip("+"), PHONE[-9:], key, OPENAI_KEY, *META.values()):
        assert not [line for line in handler.lines if secret in line]


def said(shop: Client, **more: Any) -> dict[str, Any]:
    return {"client_id": str(shop.pk), "user_id": PHONE, "message": TEXT, "phone": PHONE, "name": NAME, **more}


def break_with_what_it_got(monkeypatch: pytest.MonkeyPatch, place: Any, name: str) -> None:
    """The function fails, and quotes its arguments as a careless library does."""

    def broken(*arguments: Any, **named: Any) -> None:
        raise ValueError(f"cannot do {name} with {TEXT} of {NAME} at {PHONE}: {arguments} {named}")

    monkeypatch.setattr(place, name, broken)


# --- a message comes in -----------------------------------------------------------------------------------------------
def test_a_message_is_not_logged(server: WebServer, shop: Client, lines: list[str]) -> None:
    for body in (said(shop), said(shop, message_id="m1"), said(shop, message_id="m1"), said(shop, phone=f"{PHONE}00")):
        server.call("POST", WEBHOOK, body)
    server.call("POST", WEBHOOK, TEXT.encode())
    server.call("POST", WEBHOOK, said(shop), headers={"Authorization": f"Bearer {server.key}x"})
    server.call("GET", f"/conversations?user_id={PHONE}&cursor={TEXT.replace(' ', '+')}")
    assert Chunk.objects.filter(content=TEXT).count() == 2


@pytest.mark.parametrize("key_in", ["X-Service-API-Key", "Authorization"])
def test_a_message_that_breaks_something_is_not_logged(
    key_in: str, server: WebServer, shop: Client, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    break_with_what_it_got(monkeypatch, messages, "append_by_key")
    value = server.key if key_in.startswith("X") else f"Bearer {server.key}"
    assert server.call("POST", WEBHOOK, said(shop), headers={key_in: value}).status == 500
    assert [line for line in lines if "ValueError" in line], "that it broke is logged, and where"


def test_what_the_database_says_of_a_row_is_not_logged(
    server: WebServer, shop: Client, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """PostgreSQL quotes the failing row."""
    monkeypatch.setattr("conversations.http.own_webhook.e164", lambda _: PHONE.replace("+", "00"))
    assert server.call("POST", WEBHOOK, said(shop)).status in (500, 503)


@pytest.fixture
def meta(shop: Client) -> Iterator[FakeMeta]:
    """Meta, with an account of the shop's."""
    with FakeMeta(**META) as fake:
        setup.create_channel_account(
            shop,
            channel="whatsapp",
            provider="whatsapp",
            address=fake.phone_number_id,
            credentials=META,
            base_url=fake.base_url,
        )
        yield fake


def test_what_a_provider_delivers_is_not_logged(
    server: WebServer, meta: FakeMeta, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    webhook = meta.text_webhook(TEXT, sender=PHONE.strip("+"), name=NAME)
    server.call("POST", WEBHOOK, webhook.body, headers=webhook.headers)
    server.call("POST", WEBHOOK, webhook.body, headers={"X-Hub-Signature-256": "sha256=" + "0" * 64})
    server.call("GET", f"{WEBHOOK}?hub.mode=subscribe&hub.verify_token=private-verify&hub.challenge=1")
    assert Chunk.objects.filter(content=TEXT).count() == 1
    break_with_what_it_got(monkeypatch, messages, "settle")
    break_with_what_it_got(monkeypatch, messages, "append_from")
    webhook = meta.text_webhook(TEXT, sender=PHONE.strip("+"), name=NAME)
    assert server.call("POST", WEBHOOK, webhook.body, headers=webhook.headers).status == 200
    assert InboundEvent.objects.get().reason == "processing_failed"
    assert [line for line in lines if "ValueError" in line]


# --- a reply fails ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["status", "nonsense", "cut", "no_content"])
def test_a_reply_that_fails_is_not_logged(kind: str, door: Door, shop: Client, settings: Any, lines: list[str]) -> None:
    with FakeOpenAI() as fake:
        settings.OPENAI_API_KEY, settings.OPENAI_BASE_URL = OPENAI_KEY, fake.base_url
        settings.REPLY_ATTEMPTS = 1
        more = {"status": 400, "message": f"You said: {TEXT} with {OPENAI_KEY}"} if kind == "status" else {}
        fake.then(kind, times=10, **more)
        Assistant.objects.update(engine="openai")
        door.call("POST", WEBHOOK, said(shop))
        reply_to_all()
    assert Turn.objects.get().status == "failed"
    assert [line for line in lines if "turn failed" in line]


def test_an_engine_that_crashes_is_not_logged(
    door: Door, shop: Client, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    break_with_what_it_got(monkeypatch, registry.ENGINES["offline"], "reply")
    door.call("POST", WEBHOOK, said(shop))
    reply_to_all()
    assert [line for line in lines if "engine crashed" in line]


# --- a send fails -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("code", [131047, 130429, 190, 100])
def test_a_send_that_fails_is_not_logged(code: int, server: WebServer, meta: FakeMeta, lines: list[str]) -> None:
    webhook = meta.text_webhook("Hello", sender=PHONE.strip("+"), name=NAME)
    server.call("POST", WEBHOOK, webhook.body, headers=webhook.headers)
    session = server.call("GET", "/conversations").json["data"]["items"][0]["id"]
    server.call("POST", f"/conversations/{session}/send", {"content": TEXT})
    meta.error_next(code, status=401 if code == 190 else 400, times=10)
    send_all()
    assert Message.objects.get().code
    assert meta.requests[-1].json()["text"]["body"] == TEXT


@pytest.mark.parametrize("error", [None, SendError(f"{PHONE} did not like: {TEXT}", code="refused")])
def test_an_adapter_that_crashes_is_not_logged(
    error: SendError | None, door: Door, shop: Client, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    break_with_what_it_got(monkeypatch, SandboxAdapter, "send")
    if error:
        monkeypatch.setattr(SandboxAdapter, "send", lambda *_: (_ for _ in ()).throw(error))
    session = door.call("POST", WEBHOOK, said(shop))[1]["data"]["conversation_id"]
    door.call("POST", f"/conversations/{session}/send", {"content": TEXT})
    send_all()
    assert Message.objects.get().code in ("adapter_crashed", "refused")
    assert error or [line for line in lines if "adapter crashed" in line]

"""The channel simulator's doors: who may play, what its provider ends let in, and that no real account is touched."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client as HttpClient
from django.urls import reverse

from channels_out.simulators.registry import SIMULATORS
from conversations.models import (
    ApiKey,
    ChannelAccount,
    Client,
    Conversation,
    Message,
    SimulatedExchange,
    SimulatedFault,
    StaffAction,
)
from conversations.services.simulator import accounts, demo, exchanges, provider
from conversations.services.tenants import setup
from conversations.services.tenants.channel_accounts import as_account
from tests.conftest import Door, reply_to_all
from tests.conversations.staff import signed_in, staff, superuser

pytestmark = pytest.mark.django_db

SEND = {
    "messaging_product": "whatsapp",
    "to": "12025550101",
    "type": "text",
    "text": {"body": "Hello"},
    "biz_opaque_callback_data": "ours",
}


@pytest.fixture
def whatsapp(shop: Client) -> ChannelAccount:
    """The shop's simulated WhatsApp number."""
    accounts.set_up(shop)
    return ChannelAccount.objects.get(client=shop, provider="whatsapp")


def end(account: Any, path: str = "") -> str:
    pk, address = (account.pk, account.address) if isinstance(account, ChannelAccount) else (account, "1")
    return f"/simulator/{pk}{path or f'/{address}/messages'}"


def send(http: HttpClient, account: Any, token: str | None = None, body: Any = SEND, path: str = "") -> Any:
    if token is None:
        token = account.credentials["access_token"]
    raw = body if isinstance(body, bytes) else json.dumps(body)
    authorization = {"Authorization": f"Bearer {token}"} if token else {}
    return http.post(end(account, path), raw, content_type="application/json", headers=authorization)


# --- set-up -----------------------------------------------------------------------------------------------------------
def test_one_click_makes_an_account_at_every_provider_once(shop):
    made = accounts.set_up(shop)
    providers = {(each.provider, each.channel) for each in SIMULATORS if each.provider != "sandbox"}
    assert {(each.provider, each.channel) for each in made} == providers
    assert [each for each in made if not each.is_simulated] == []
    assert [each.name for each in made if not each.name.startswith("Simulated")] == []
    assert accounts.set_up(shop) == []
    assert ApiKey.objects.filter(client=shop, name="simulator").count() == 1
    assert len(accounts.playable_accounts([shop])) == len(providers) + 1


def test_two_clients_have_addresses_and_secrets_of_their_own(shop, neighbour):
    ours, theirs = accounts.set_up(shop), accounts.set_up(neighbour)
    assert {each.address for each in ours}.isdisjoint(each.address for each in theirs)
    secrets = [value for each in [*ours, *theirs] for value in each.credentials.values() if len(value) > 20]
    assert len(set(secrets)) == len(secrets)


def test_the_demo_can_be_played_at_once_and_setting_it_up_again_changes_nothing(db):
    facts = demo.set_up({})
    client = Client.objects.get(pk=facts["client_id"])
    before = [each.pk for each in accounts.playable_accounts([client])]
    assert [each.provider for each in accounts.playable_accounts([client])].count("sandbox") == 1
    assert {each.provider for each in SIMULATORS} == {each.provider for each in accounts.playable_accounts([client])}
    demo.set_up(facts)
    assert [each.pk for each in accounts.playable_accounts([client])] == before


def test_a_sandbox_that_does_not_answer_for_its_channel_cannot_be_played(shop):
    """What is played would go out over the account that does."""
    ChannelAccount.objects.filter(client=shop).exclude(channel="whatsapp").delete()
    ChannelAccount.objects.filter(client=shop).update(
        provider="whatsapp", address="5", credentials={"access_token": "x"}
    )
    setup.create_channel_account(shop, channel="whatsapp", provider="sandbox", address="later", credentials={})
    accounts.set_up(shop)
    assert [each.provider for each in accounts.playable_accounts([shop])].count("sandbox") == 0


def test_a_simulated_account_never_answers_for_a_program_s_message(shop, key):
    """It is older than the real one, and the only one on the channel; still it is not chosen."""
    ChannelAccount.objects.filter(client=shop).delete()
    accounts.set_up(shop)
    door = Door(shop, key)
    door.says("Hello", channel="whatsapp", phone="+51999999999")
    reply_to_all()
    assert Conversation.objects.get().channel_account is None
    message = Message.objects.get()
    assert (message.status, message.code) == ("failed", "no_account")
    opened = door.call("POST", "/conversations", {"user_id": "bea", "channel": "whatsapp", "goal": "Ask"})
    if opened[0] == 201:
        assert not Conversation.objects.filter(channel_account__is_simulated=True).exists()


# --- the provider's end -----------------------------------------------------------------------------------------------
def test_it_takes_what_the_account_sends_and_shows_no_secret(client, whatsapp):
    answer = send(client, whatsapp)
    assert answer.status_code == 200, answer.content
    [message] = answer.json()["messages"]
    kept = SimulatedExchange.objects.get()
    assert (kept.kind, kept.text, kept.message_id, kept.person) == ("send", "Hello", message["id"], 1)
    everything = json.dumps([kept.headers, kept.body, kept.answer, kept.answer_headers, kept.address])
    assert [name for name, secret in whatsapp.credentials.items() if secret in everything] == []


def test_what_is_no_simulated_account_answers_as_a_route_that_is_not_there(client, shop, whatsapp):
    real = ChannelAccount.objects.create(
        client=shop, channel="whatsapp", provider="whatsapp", address="77", credentials=dict(whatsapp.credentials)
    )
    sandbox = ChannelAccount.objects.filter(client=shop, provider="sandbox").first()
    off = ChannelAccount.objects.create(
        client=shop,
        channel="whatsapp",
        provider="whatsapp",
        address="78",
        credentials=dict(whatsapp.credentials),
        is_simulated=True,
        is_active=False,
    )
    never = client.get("/nothing/here")
    for account in (real, sandbox, off, uuid4()):
        answer = send(client, account, whatsapp.credentials["access_token"])
        assert (answer.status_code, answer.content) == (404, never.content)
    Client.objects.filter(pk=shop.pk).update(is_active=False)
    assert send(client, whatsapp).status_code == 404
    assert not SimulatedExchange.objects.exists()


@pytest.mark.parametrize("token", ["", "wrong", "ü", "x" * 5000])
def test_who_lacks_the_credentials_is_refused_and_leaves_no_trace(client, whatsapp, token):
    provider.plan_faults(whatsapp, "error")
    assert send(client, whatsapp, token.encode().decode("latin-1")).status_code == 401
    assert not SimulatedExchange.objects.exists()
    assert SimulatedFault.objects.count() == 1, "a fault is for the next send of ours"


def test_another_account_s_credentials_open_nothing(client, whatsapp, neighbour):
    accounts.set_up(neighbour)
    theirs = ChannelAccount.objects.get(client=neighbour, provider="whatsapp")
    assert send(client, whatsapp, theirs.credentials["access_token"]).status_code == 401
    assert send(client, theirs, path=f"/{whatsapp.address}/messages").json()["error"]["code"] == 100


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff\xfe", b'{"to": "\\u0000"}', b"[" * 5000, b'{"a":' * 300 + b"1" + b"}" * 300]
)
def test_nonsense_is_an_error_of_the_provider_s_and_is_kept(client, whatsapp, body):
    answer = send(client, whatsapp, body=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == 100
    assert SimulatedExchange.objects.get().status == 400


def test_too_much_is_not_read(client, whatsapp):
    assert send(client, whatsapp, body=b"x" * 100_001).status_code == 413
    assert not SimulatedExchange.objects.exists()


@pytest.mark.parametrize(
    "path", ["/v25.0/", "//evil.example/x", "/../admin/", "/x?url=http://169.254.169.254/", "/1/2/3"]
)
def test_it_calls_nobody_whatever_the_path(client, whatsapp, path, monkeypatch):
    called = []
    monkeypatch.setattr("channels_out.http._exchange", lambda *arguments: called.append(arguments))
    assert send(client, whatsapp, path=path).status_code in (400, 404)
    assert called == []


def test_the_log_is_trimmed(client, whatsapp, monkeypatch):
    monkeypatch.setattr(exchanges, "MOST_KEPT", 3)
    for number in range(5):
        send(client, whatsapp, body={**SEND, "text": {"body": f"message {number}"}})
    assert [each.text for each in SimulatedExchange.objects.order_by("id")] == ["message 2", "message 3", "message 4"]


def test_a_simulated_account_sends_to_us_whatever_its_row_says(shop, whatsapp, settings):
    whatsapp.base_url = "https://evil.example"
    whatsapp.save()
    assert as_account(whatsapp).base_url == f"{settings.INTERNAL_BASE_URL}/simulator/{whatsapp.pk}"


# --- who may play -----------------------------------------------------------------------------------------------------
def addresses(account: ChannelAccount) -> list[tuple[str, str]]:
    pk = [account.pk]
    return [
        ("GET", reverse("admin:simulator_play", args=pk)),
        ("GET", reverse("admin:simulator_news", args=pk)),
        ("POST", reverse("admin:simulator_do", args=[*pk, "write"])),
        ("POST", reverse("admin:simulator_do", args=[*pk, "deliver"])),
        ("POST", reverse("admin:simulator_do", args=[*pk, "report"])),
        ("POST", reverse("admin:simulator_do", args=[*pk, "misbehave"])),
    ]


FIELDS = {"text": "Hello", "misbehaviour": "error"}


def test_members_of_another_client_meet_nothing(shop, whatsapp, neighbour):
    http = signed_in(staff("nina", neighbour="manager"))
    for method, address in addresses(whatsapp):
        answer = http.generic(method, address, "text=Hello&misbehaviour=error", "application/x-www-form-urlencoded")
        assert answer.status_code == 404, address
        never = address.replace(str(whatsapp.pk), str(uuid4()))
        assert http.generic(method, never).status_code == 404
    assert http.post(reverse("admin:simulator_set_up"), {"client": str(shop.pk)}).status_code == 404
    page = http.get(reverse("admin:simulator")).content.decode()
    assert str(shop.pk) not in page
    assert ">Shop<" not in page
    assert not SimulatedExchange.objects.exists()
    assert not SimulatedFault.objects.exists()


@pytest.mark.parametrize("role", ["viewer", "agent"])
def test_who_is_no_manager_plays_nothing(shop, whatsapp, role):
    http = signed_in(staff("vic", shop=role))
    for method, address in [*addresses(whatsapp), ("GET", reverse("admin:simulator"))]:
        assert http.generic(method, address).status_code in (403, 404), address
    assert "Simulator" not in http.get("/admin/").content.decode()


def test_an_exchange_and_a_message_of_another_account_are_not_there(client, shop, whatsapp, neighbour):
    accounts.set_up(neighbour)
    theirs = ChannelAccount.objects.get(client=neighbour, provider="whatsapp")
    message = send(client, theirs).json()["messages"][0]["id"]
    http = signed_in(staff("mona", shop="manager"))
    do = reverse("admin:simulator_do", args=[whatsapp.pk, "report"])
    assert http.post(do, {"message": message, "status": "read"}).status_code == 404
    do = reverse("admin:simulator_do", args=[whatsapp.pk, "deliver"])
    assert http.post(do, {"exchange": SimulatedExchange.objects.get().pk}).status_code == 404
    assert "Hello" not in http.get(reverse("admin:simulator_play", args=[whatsapp.pk])).content.decode()


def test_a_real_account_cannot_be_played(shop, whatsapp):
    whatsapp.is_simulated = False
    whatsapp.save()
    http = signed_in(superuser())
    for method, address in addresses(whatsapp):
        assert http.generic(method, address).status_code == 404


def test_a_manager_sets_up_plays_faults_and_is_in_the_trail(shop):
    http = signed_in(staff("mona", shop="manager"))
    assert "Set up simulated accounts" in http.get(reverse("admin:simulator")).content.decode()
    answer = http.post(reverse("admin:simulator_set_up"), {"client": str(shop.pk)})
    assert answer.status_code == 302
    account = ChannelAccount.objects.get(client=shop, provider="whatsapp", is_simulated=True)
    do = reverse("admin:simulator_do", args=[account.pk, "misbehave"])
    assert http.post(do, {"misbehaviour": "throttled"}).status_code == 200
    assert http.post(do, {"misbehaviour": "rm -rf"}).status_code == 409
    assert SimulatedFault.objects.get().misbehaviour == "throttled"
    verbs = set(StaffAction.objects.filter(client=shop).values_list("verb", flat=True))
    assert verbs == {"added", "laid out a fault on"}
    news = http.get(reverse("admin:simulator_news", args=[account.pk])).json()
    assert set(news["sections"]) == {"phone", "controls", "session", "wire"}
    again = http.get(reverse("admin:simulator_news", args=[account.pk]), {"seen": news["seen"]})
    assert again.status_code == 204
    assert http.get(reverse("admin:simulator_play", args=[account.pk]), {"person": "77"}).status_code == 404
    assert [name for name, secret in account.credentials.items() if secret in json.dumps(news)] == []

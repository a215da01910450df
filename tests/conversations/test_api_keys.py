"""API keys: made, shown once, found in a request, noted as used, and revoked."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.utils import timezone

from conversations.models import ApiKey, ApiKeyUse, Client, Conversation, ConversationEvent
from conversations.services.core.errors import InvalidError, TooManyError
from conversations.services.tenants import api_keys, quotas
from tests.conftest import Door

pytestmark = pytest.mark.django_db


def test_a_key_is_made_with_a_name_and_known_by_its_beginning(shop: Client) -> None:
    row, key = api_keys.create_api_key(shop, "n" * api_keys.LONGEST_NAME)
    assert key.startswith("convo_")
    assert len(key) == 49, "256 random bits"
    assert (row.prefix, row.client_id, len(row.name)) == (key[:12], shop.pk, 100)
    assert key.encode() not in bytes(ApiKey.objects.get().key_hash)
    with pytest.raises(InvalidError, match="name: Use at most 100 characters"):
        api_keys.create_api_key(shop, "n" * 101)
    assert ApiKey.objects.count() == 1


def test_a_key_is_revoked_once_and_alone(shop: Client) -> None:
    (row, key), (_, other) = api_keys.create_api_key(shop), api_keys.create_api_key(shop)
    assert api_keys.revoke(row.pk) is True
    row.refresh_from_db()
    revoked_at = row.revoked_at
    assert revoked_at is not None
    assert api_keys.revoke(row.pk) is False
    row.refresh_from_db()
    assert row.revoked_at == revoked_at
    assert api_keys.find_api_key(key) is None
    found = api_keys.find_api_key(other)
    assert found is not None
    assert found.client == shop


def test_a_key_is_of_its_own_client_alone(shop: Client, neighbour: Client) -> None:
    keys = {client.pk: api_keys.create_api_key(client)[1] for client in (shop, neighbour)}
    for client_id, key in keys.items():
        found = api_keys.find_api_key(key)
        assert found is not None
        assert (found.client.pk, found.client_id) == (client_id, client_id)
    Client.objects.filter(pk=shop.pk).update(is_active=False)
    assert api_keys.find_api_key(keys[shop.pk]) is None
    assert api_keys.find_api_key(keys[neighbour.pk]) is not None
    assert api_keys.find_api_key(keys[shop.pk] + "x") is None


def test_the_use_of_a_key_is_noted_once_a_minute(shop: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"now": 1_000.0}
    monkeypatch.setattr(api_keys.time, "monotonic", lambda: clock["now"])
    monkeypatch.setattr(api_keys, "_touched", {})
    (row, key), (other, _) = api_keys.create_api_key(shop), api_keys.create_api_key(shop)
    long_ago = timezone.now() - timedelta(days=1)

    def is_noted_after(seconds: float) -> bool:
        ApiKey.objects.update(last_used_at=long_ago)
        clock["now"] += seconds
        assert api_keys.find_api_key(key)
        row.refresh_from_db()
        other.refresh_from_db()
        assert other.last_used_at == long_ago
        return bool(row.last_used_at != long_ago)

    assert [is_noted_after(seconds) for seconds in (0, 1, 58.5, 0.5, 59.5, 0.5)] == [
        True,
        False,
        False,
        True,
        False,
        True,
    ]
    monkeypatch.setattr(api_keys, "_touched", {})
    clock["now"] = 1.0  # a machine that has just started
    assert is_noted_after(0)


def test_the_use_of_a_key_tells_the_quota_of_its_client(shop: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_keys, "_touched", {})
    monkeypatch.setattr(quotas, "time", SimpleNamespace(time=lambda: 1_800_000_015.0))
    Client.objects.filter(pk=shop.pk).update(messages_per_minute=1)
    _, key = api_keys.create_api_key(shop)
    assert api_keys.find_api_key(key)
    hashed = api_keys.key_hash(key)
    quotas.check(hashed, shop.pk)
    quotas.count(hashed, shop.pk)
    with pytest.raises(TooManyError, match="more than 1 messages a minute"):
        quotas.check(hashed, shop.pk)


def test_the_sweep_takes_over_when_keys_were_used_in_a_cluster(shop: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_keys, "is_cluster", lambda: True)
    never, earlier, later = (api_keys.create_api_key(shop)[0] for _ in range(3))
    now = timezone.now()
    at = {each.pk: now - timedelta(minutes=minutes) for each, minutes in ((never, 3), (earlier, 2), (later, 4))}
    for row in (earlier, later):
        ApiKey.objects.filter(pk=row.pk).update(last_used_at=now - timedelta(minutes=3))
    for pk, used_at in at.items():
        ApiKeyUse.objects.create(client=shop, key_id=pk, last_used_at=used_at)
    assert api_keys.take_over_uses(now) == 2
    found = dict(ApiKey.objects.values_list("pk", "last_used_at"))
    assert found[never.pk] == at[never.pk], "it was never used before"
    assert found[earlier.pk] == at[earlier.pk]
    assert found[later.pk] == now - timedelta(minutes=3), "it was used again since"


# --- in a request -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "headers, status, code",
    [
        ({"X-Service-API-Key": "{key}"}, 200, ""),
        ({"X-Service-API-Key": "  {key} "}, 200, ""),
        ({"Authorization": "Bearer {key}"}, 200, ""),
        ({"Authorization": "bearer   {key} "}, 200, ""),
        ({"X-Service-API-Key": "{key}", "Authorization": "Bearer wrong"}, 200, ""),
        ({"X-Service-API-Key": "", "Authorization": "Bearer {key}"}, 200, ""),
        ({"X-Service-API-Key": "wrong", "Authorization": "Bearer {key}"}, 401, "authentication_failed"),
        ({"Authorization": "Bearer wrong"}, 401, "authentication_failed"),
        ({"Authorization": "Basic {key}"}, 401, "not_authenticated"),
        ({"Authorization": "{key}"}, 401, "not_authenticated"),
        ({"Authorization": "Bearer"}, 401, "not_authenticated"),
        ({"X-Service-API-Key": "   "}, 401, "not_authenticated"),
        ({}, 401, "not_authenticated"),
    ],
)
def test_a_key_is_read_from_either_header(
    door: Door, key: str, headers: dict[str, str], status: int, code: str
) -> None:
    door.key = ""
    given = {name: value.format(key=key) for name, value in headers.items()}
    got, envelope = door.call("GET", "/conversations", **given)
    assert (got, envelope.get("code", "")) == (status, code)


def test_the_challenge_says_how_a_key_is_sent(door: Door) -> None:
    refused = door.http.get("/conversations", headers={"X-Service-API-Key": "wrong"})
    assert (refused.status_code, "Bearer" in refused["WWW-Authenticate"]) == (401, True)


@pytest.mark.parametrize("name", ["crm", ""])
def test_the_ledger_names_a_key_by_its_name_and_beginning(door: Door, shop: Client, name: str) -> None:
    door.says("Hello")
    row, door.key = api_keys.create_api_key(shop, name)
    path = f"/conversations/{Conversation.objects.get().pk}"
    taken: Any = door.call("POST", f"{path}/takeover", {})
    assert taken[0] == 200, taken
    event = ConversationEvent.objects.filter(actor="api").latest("pk")
    assert event.actor_name == (f"crm ({row.prefix})" if name else row.prefix)

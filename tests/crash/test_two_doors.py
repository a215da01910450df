"""The event loop and Django's views give the same answer over real HTTP: status, headers and body.

A key in its own header is answered by the loop; as a Bearer token by the view. A provider's payload with a query string
goes to the view as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any
from uuid import uuid4

import pytest
import requests

from conversations.models import Conversation
from conversations.services.tenants import api_keys
from tests.crash.stage import Convo, Process

VARIABLES = {"WEB_WORKERS": "1", "API_REQUESTS_PER_MINUTE": "10000"}
NOBODYS = "5f0c7a52-0000-4000-8000-000000000000"
CHANGING = {"date", "content-length"}
IDS = ("conversation_id", "chunk_id")

MESSAGES: dict[str, dict[str, Any]] = {
    "a new person": {"user_id": "{new}"},
    "a new person with a phone": {"user_id": "{new}", "phone": "{phone}", "name": "Bea"},
    "an open conversation": {},
    "an open conversation, something new of the person": {"phone": "{phone}"},
    "a stale conversation": {"user_id": "{stale}"},
    "the same again": {"message_id": "m1"},
    "a card number": {"message": "My card is 4111 1111 1111 1111"},
    "a long message": {"message": "x" * 20_000},
    "metadata": {"metadata": {"a": [1, {"b": None}]}},
    "STOP": {"message": "STOP"},
    "a blank message": {"message": " "},
    "NUL": {"message": "a\0b"},
    "a phone that is none": {"phone": "5"},
    "a client that is none": {"client_id": "5"},
    "a client that never was": {"client_id": NOBODYS},
    "no user": {"user_id": None},
}
KEYS = {"a valid key": "", "an unknown key": "convo_wrong", "a revoked key": "revoked"}
numbers = count(1)


class Door:
    """One of the two ways in, with people of its own who are known and in the same state."""

    def __init__(self, convo: Convo, header: str) -> None:
        self.convo, self.header = convo, header
        self.names = {name: f"{name} {uuid4()}" for name in ("ann", "stale", "new")}
        self.phone = f"+5198877{next(numbers):04}"
        for name in ("ann", "stale"):
            self.post({"user_id": self.names[name], "message": "Hello", "message_id": "m1"})
        Conversation.objects.filter(contact__user_id=self.names["stale"]).update(status="stale")

    def headers(self, key: str = "") -> dict[str, str]:
        key = key or self.convo.key
        return {self.header: f"Bearer {key}" if self.header == "Authorization" else key}

    def post(self, message: dict[str, Any], key: str = "") -> requests.Response:
        url = f"{self.convo.base_url}/webhooks/sms/inbound"
        return requests.post(
            url, json={"client_id": self.convo.client_id, **message}, headers=self.headers(key), timeout=60
        )

    def says(self, message: dict[str, Any], key: str) -> requests.Response:
        filled = {
            name: value.format(phone=self.phone, **self.names) if isinstance(value, str) and "{" in value else value
            for name, value in message.items()
        }
        return self.post({"user_id": self.names["ann"], "message": "Hello again", **filled}, key)


def comparable(answer: requests.Response) -> tuple[int, dict[str, str], Any]:
    """An answer without the ids and times that no two share."""
    body = answer.json()
    for name in IDS:
        if body.get("data", {}).get(name):
            body["data"][name] = "an id"
    headers = {name.lower(): value for name, value in answer.headers.items() if name.lower() not in CHANGING}
    return answer.status_code, headers, body


@pytest.fixture(scope="module")
def revoked(convo: Convo) -> Iterator[str]:
    row, key = api_keys.create_api_key(Conversation.client.field.related_model.objects.get(pk=convo.client_id), "old")
    api_keys.revoke(row.pk)
    return key


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_a_message_is_answered_alike(
    convo: Convo, web: Process, revoked: str, message: dict[str, Any], key: str
) -> None:
    key = revoked if key == "revoked" else key
    loop, view = Door(convo, "X-Service-API-Key"), Door(convo, "Authorization")
    assert comparable(loop.says(message, key)) == comparable(view.says(message, key))


@pytest.mark.parametrize(
    "path",
    ["/conversations/{pk}", f"/conversations/{NOBODYS}", "/conversations/{pk}?chunks=2"],
)
@pytest.mark.parametrize("key", ["", "convo_wrong"])
def test_a_conversation_is_read_alike(convo: Convo, web: Process, path: str, key: str) -> None:
    loop, view = Door(convo, "X-Service-API-Key"), Door(convo, "Authorization")
    pk = Conversation.objects.get(contact__user_id=loop.names["ann"]).pk
    found = [
        requests.get(convo.base_url + path.format(pk=pk), headers=door.headers(key), timeout=60)
        for door in (loop, view)
    ]
    assert comparable(found[0]) == comparable(found[1])
    assert found[0].content == found[1].content


@pytest.mark.parametrize("broken", ["", "signature", "body"])
def test_a_provider_s_payload_is_answered_alike(convo: Convo, web: Process, broken: str) -> None:
    answers = []
    for query in ("", "?by=the-view"):
        webhook = convo.meta.text_webhook("Hello", sender=f"51987{next(numbers):06}")
        for _ in range(2):  # who writes is new, then known
            body = webhook.body[:-1] if broken == "body" else webhook.body
            headers = dict(webhook.headers)
            if broken == "signature":
                headers = {name: value[:-1] + "_" if "Signature" in name else value for name, value in headers.items()}
            url = f"{convo.base_url}/webhooks/whatsapp/inbound{query}"
            answers.append(comparable(requests.post(url, data=body, headers=headers, timeout=60)))
            webhook = convo.meta.text_webhook("And this", sender=webhook_sender(webhook))
    assert answers[:2] == answers[2:]


def webhook_sender(webhook: Any) -> str:
    """The number that wrote a webhook's message."""
    [change] = json.loads(webhook.body)["entry"][0]["changes"]
    return str(change["value"]["messages"][0]["from"])


@pytest.mark.parametrize("host", ["127.0.0.1", "evil.example", ""])
def test_another_host_name_is_refused_alike(convo: Convo, web: Process, host: str) -> None:
    found = []
    for door in (Door(convo, "X-Service-API-Key"), Door(convo, "Authorization")):
        body = {"client_id": convo.client_id, "user_id": door.names["new"], "message": "Hello"}
        headers = {**door.headers(), "Host": f"{host}:{convo.port}" if host else ""}
        found.append(
            comparable(requests.post(f"{convo.base_url}/webhooks/sms/inbound", json=body, headers=headers, timeout=60))
        )
    assert found[0] == found[1]
    assert (found[0][0] == 200) == (host == "127.0.0.1")

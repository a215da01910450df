"""The fake of Meta is as strict as Meta, and can be a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from channels_out.adapters.whatsapp import WhatsAppAdapter
from channels_out.contract import Account, InboundRequest
from channels_out.events import InboundMessage, Receipt
from tests.fakes.meta import FakeMeta, Sent, SignedWebhook

ROOT = Path(__file__).parent.parent.parent
GOOD = {"messaging_product": "whatsapp", "to": "51999999999", "type": "text", "text": {"body": "Hello"}}


def post(meta: FakeMeta, body: Any, token: str = "token", path: str = "/1234567890/messages") -> requests.Response:
    return requests.post(meta.base_url + path, json=body, headers={"Authorization": f"Bearer {token}"}, timeout=5)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"messaging_product": "sms"}, 100),
        ({"to": ""}, 100),
        ({"to": "PE.1234"}, 100),
        ({"to": 7}, 100),
        ({"type": "hologram"}, 100),
        ({"text": "Hello"}, 100),
        ({"text": {"body": ""}}, 100),
        ({"text": {"body": " \n"}}, 100),
        ({"text": {"body": "x" * 4097}}, 100),
    ],
)
def test_it_refuses_what_meta_refuses(change: dict[str, Any], code: int) -> None:
    with FakeMeta() as meta:
        answer = post(meta, GOOD | change)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
        assert meta.sent == []


def test_it_knows_one_token_and_one_number() -> None:
    with FakeMeta() as meta:
        assert post(meta, GOOD).status_code == 200
        assert post(meta, GOOD, token="other").status_code == 401
        assert post(meta, GOOD, path="/999/messages").status_code == 400
        assert post(meta, GOOD, path="/1234567890/phone_numbers").status_code == 404
        assert post(meta, [1]).status_code == 400
        assert len(meta.sent) == 1


def received(webhook: SignedWebhook) -> Any:
    headers = {name.lower(): value for name, value in webhook.headers.items()}
    request = InboundRequest("POST", "https://convo.example/", headers, {}, webhook.body)
    WhatsAppAdapter().verify(request, Account("1234567890", {"app_secret": "secret"}))
    (event,) = WhatsAppAdapter().parse(request)
    return event


def test_its_webhooks_are_genuine() -> None:
    with FakeMeta() as meta:
        message = received(meta.text_webhook("Größe a/b 👍", sender="51988888888", name="Luz", message_id="wamid.x"))
        receipt = received(
            meta.status_webhook(Sent("wamid.y", "51999999999", "Hi", "", "msg_1"), "failed", error=131026)
        )
    assert isinstance(message, InboundMessage)
    assert (message.text, message.message_id, message.sender.name) == ("Größe a/b 👍", "wamid.x", "Luz")
    assert isinstance(receipt, Receipt)
    assert (receipt.provider_message_id, receipt.our_message_id, receipt.code) == ("wamid.y", "msg_1", "131026")


def test_it_runs_as_a_process_of_its_own() -> None:
    command = [sys.executable, "-m", "tests.fakes.meta", "--access-token", "other"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": "."}
    )
    try:
        assert process.stdout is not None
        base_url = process.stdout.readline().strip()
        root = base_url.rsplit("/", 1)[0]
        requests.post(f"{root}/_fake/fail", json={"status": 500}, timeout=5)
        headers = {"Authorization": "Bearer other"}
        statuses = [
            requests.post(f"{base_url}/1234567890/messages", json=GOOD, headers=headers, timeout=5).status_code
            for _ in range(2)
        ]
        assert statuses == [500, 200]
        assert [message["text"] for message in requests.get(f"{root}/_fake/sent", timeout=5).json()] == ["Hello"]
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()

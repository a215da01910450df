"""Meta's handshake and signature."""

from __future__ import annotations

import pytest

from channels_out.adapters import meta
from channels_out.adapters.whatsapp import WhatsAppAdapter
from channels_out.contract import Account, InboundRequest, WebhookResponse
from tests.fakes.meta import FakeMeta

ACCOUNTS = [Account("1", {"verify_token": "one"}), Account("2"), Account("3", {"verify_token": "drei-ü"})]
GOOD = {"hub.mode": "subscribe", "hub.challenge": "1158201444", "hub.verify_token": "one"}


def handshake(query: dict[str, str], accounts: list[Account] = ACCOUNTS) -> WebhookResponse | None:
    return WhatsAppAdapter().handshake(InboundRequest("GET", "https://convo.example/", {}, query, b""), accounts)


def test_the_vector_of_the_facts() -> None:
    assert meta.signature("sesame", b"hello world") == (
        "sha256=f39034b29165ec6a5104d9aef27266484ab26c8caa7bca8bcb2dd02e8be61b17"
    )


def test_the_fakes_signature_is_ours() -> None:
    with FakeMeta(app_secret="sésame") as fake:
        webhook = fake.text_webhook("Größe / 大")
    assert webhook.headers["X-Hub-Signature-256"] == meta.signature("sésame", webhook.body)


@pytest.mark.parametrize("token", ["one", "drei-ü"])
def test_the_handshake_gives_the_challenge_back(token: str) -> None:
    answer = handshake(GOOD | {"hub.verify_token": token})
    assert answer == WebhookResponse(200, "text/plain", "1158201444")


@pytest.mark.parametrize(
    "change",
    [
        {"hub.verify_token": "two"},
        {"hub.verify_token": ""},
        {"hub.verify_token": "\udc80"},
        {"hub.mode": "unsubscribe"},
        {"hub.mode": ""},
        {"hub.challenge": ""},
        {"hub.challenge": "<script>alert(1)</script>"},
        {"hub.challenge": "1\n2"},
        {"hub.challenge": "1" * 257},
    ],
)
def test_any_other_handshake_is_forbidden(change: dict[str, str]) -> None:
    answer = handshake(GOOD | change)
    assert answer is not None
    assert answer.status == 403
    assert "<" not in answer.body


def test_without_accounts_no_handshake_is_taken() -> None:
    answer = handshake(GOOD, accounts=[])
    assert answer is not None
    assert answer.status == 403


def test_any_other_get_is_no_handshake() -> None:
    assert handshake({}) is None
    assert handshake({"hub.challenge": "1"}) is None

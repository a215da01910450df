"""The check of an account's credentials at its provider."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from channels_out import registry
from channels_out.contract import Account, Adapter, OutboundMessage, SendResult
from channels_out.errors import SendError
from channels_out.kinds import Channel
from tests.fakes.meta import FakeMeta
from tests.fakes.server import Fault


@pytest.fixture
def meta() -> Iterator[FakeMeta]:
    with FakeMeta() as meta:
        yield meta


def check(meta: FakeMeta, **changes: Any) -> str:
    account = {"address": "1234567890", "credentials": {"access_token": "token"}, "base_url": meta.base_url} | changes
    return registry.adapter_for("whatsapp", "whatsapp").check(Account(**account))


def refusal(meta: FakeMeta, **changes: Any) -> SendError:
    with pytest.raises(SendError) as caught:
        check(meta, **changes)
    assert "token" not in str(caught.value).replace("access token", "")
    return caught.value


def test_whatsapp_says_whose_number_it_is_and_nothing_is_sent(meta: FakeMeta) -> None:
    assert check(meta) == "The shop +250788123200"
    (request,) = meta.requests
    assert (request.method, request.path.partition("?")[0]) == ("GET", "/v25.0/1234567890")
    assert request.headers["authorization"] == "Bearer token"
    assert meta.sent == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"credentials": {"access_token": "wrong"}}, "190"),
        ({"credentials": {}}, "no_credentials"),
        ({"address": "1"}, "100"),
        ({"address": "../me"}, "100"),
        ({"base_url": "nonsense"}, "invalid_request"),
    ],
)
def test_what_whatsapp_refuses_breaks_the_account(meta: FakeMeta, changes: dict[str, Any], code: str) -> None:
    error = refusal(meta, **changes)
    assert (error.code, error.account_broken) == (code, True)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault(status=500, content=b"<html>"), "http_500"),
        (Fault(status=200, content=b"<html>"), "bad_answer"),
        (Fault(status=429), "http_429"),
        (Fault(cut="before"), "connection_lost"),
    ],
)
def test_a_provider_in_trouble_says_nothing_of_the_credentials(meta: FakeMeta, fault: Fault, code: str) -> None:
    meta.fail_next(fault)
    error = refusal(meta)
    assert (error.code, error.account_broken) == (code, False)


@pytest.mark.parametrize("channel", Channel)
def test_the_sandbox_takes_any(channel: Channel) -> None:
    assert registry.adapter_for("sandbox", channel).check(Account("sandbox")) == "Sandbox"


def test_a_provider_that_cannot_be_asked_says_so() -> None:
    class Silent(Adapter):
        provider = "silent"

        def send(self, account: Account, message: OutboundMessage) -> SendResult:
            raise AssertionError("Nothing is sent to see whether an account works.")

    with pytest.raises(SendError) as caught:
        Silent().check(Account("x"))
    assert caught.value.code == "not_supported"

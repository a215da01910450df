"""WhatsApp's send route, over real HTTP against the fake of Meta."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from channels_out import http
from channels_out.adapters.whatsapp import WhatsAppAdapter
from channels_out.contract import Account, OutboundMessage, SendResult
from channels_out.errors import SendError
from channels_out.kinds import AddressKind, ReceiptStatus
from tests.fakes.meta import FakeMeta, error_content
from tests.fakes.server import Fault

ADAPTER = WhatsAppAdapter()
MESSAGE = OutboundMessage("msg_1", "51999999999", AddressKind.PHONE, "Hello")

TRANSIENT = [1, 2, 131000, 131016, 131053, 131057, 133004, 135000]
THROTTLED = [4, 80007, 130429, 131048, 133016]
BROKEN = [0, 3, 10, 190, 200, 250, 299, 131005, 368, 131031, 131037, 131042, 131045, 133010]
FINAL = [
    *(100, 130472, 130497, 131008, 131009, 131021, 131026, 131030, 131047, 131049, 131050, 131051, 131062),
    *range(132000, 132017),
    *(-1, 199, 300, 999999),
]


@pytest.fixture
def provider() -> Iterator[FakeMeta]:
    with FakeMeta() as provider:
        yield provider


def account(provider: FakeMeta, **changes: Any) -> Account:
    return Account(
        **{"address": "1234567890", "credentials": {"access_token": "token"}, "base_url": provider.base_url} | changes
    )


def send(provider: FakeMeta, message: OutboundMessage = MESSAGE) -> SendResult:
    return ADAPTER.send(account(provider), message)


def failure(provider: FakeMeta, message: OutboundMessage = MESSAGE) -> SendError:
    with pytest.raises(SendError) as caught:
        send(provider, message)
    return caught.value


def test_it_sends_what_meta_wants(provider: FakeMeta) -> None:
    result = send(provider)
    (request,) = provider.requests
    assert result == SendResult(provider.sent[0].wamid, ReceiptStatus.SENT)
    assert request.path == "/v25.0/1234567890/messages"
    assert request.headers["authorization"] == "Bearer token"
    assert request.headers["content-type"] == "application/json"
    assert request.json() == {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": "51999999999",
        "type": "text",
        "text": {"body": "Hello", "preview_url": False},
        "biz_opaque_callback_data": "msg_1",
    }


def test_a_user_id_is_a_recipient(provider: FakeMeta) -> None:
    send(provider, OutboundMessage("msg_1", "PE.1234", AddressKind.BSUID, "Hello"))
    body = provider.requests[0].json()
    assert (body["recipient"], "to" in body) == ("PE.1234", False)


def test_a_reply_quotes_its_message(provider: FakeMeta) -> None:
    send(provider, OutboundMessage("msg_1", "51999999999", AddressKind.PHONE, "Hello", reply_to="wamid.in1"))
    assert provider.requests[0].json()["context"] == {"message_id": "wamid.in1"}


def test_our_id_comes_back_with_the_status(provider: FakeMeta) -> None:
    send(provider)
    webhook = provider.status_webhook(provider.sent[0], "delivered")
    assert b'"biz_opaque_callback_data":"msg_1"' in webhook.body


@pytest.mark.parametrize("status", [200, 400, 403, 500])
@pytest.mark.parametrize("code", TRANSIENT + THROTTLED + [131056] + BROKEN + FINAL)
def test_the_code_says_what_an_error_means(provider: FakeMeta, code: int, status: int) -> None:
    if code in (-1, 199, 300, 999999) and status == 500:
        return  # a code that nobody knows: the next test
    provider.fail_next(Fault(status, error_content(code), {"Retry-After": "9"}))
    error = failure(provider)
    assert error.code == str(code)
    assert error.retryable == (code in [*TRANSIENT, *THROTTLED, 131056])
    assert error.throttled == ("account" if code in THROTTLED else "recipient" if code == 131056 else "")
    assert error.account_broken == (code in BROKEN)
    assert not error.ambiguous
    assert (error.retry_after == 9.0) or not error.retryable


@pytest.mark.parametrize(
    ("status", "content", "expected"),
    [
        (429, error_content(613), ("613", True, "account", False)),
        (429, b"slow down", ("http_429", True, "account", False)),
        (500, error_content(999999), ("999999", True, "", False)),
        (503, {}, ("http_503", True, "", False)),
        (408, {}, ("http_408", True, "", False)),
        (400, {"error": {"code": 77, "is_transient": True}}, ("77", True, "", False)),
        (400, {"error": {"code": "131056"}}, ("131056", True, "recipient", False)),
        (400, {"error": {"code": {}}}, ("http_400", False, "", False)),
        (400, {"error": "Bad request"}, ("http_400", False, "", False)),
        (200, {"error": "Bad request"}, ("http_200", False, "", False)),
        (400, {"error": None}, ("http_400", False, "", False)),
        (400, [], ("http_400", False, "", False)),
        (401, {"meta": {"success": False}}, ("http_401", False, "", True)),
        (403, b"<html>", ("http_403", False, "", False)),
        (404, b"", ("http_404", False, "", False)),
        (301, b"", ("http_301", False, "", False)),
    ],
)
def test_without_a_known_code_the_status_says_it(
    provider: FakeMeta, status: int, content: Any, expected: tuple[str, bool, str, bool]
) -> None:
    provider.fail_next(Fault(status, content))
    error = failure(provider)
    assert (error.code, error.retryable, error.throttled, error.account_broken) == expected


@pytest.mark.parametrize(
    "content",
    [
        {"messages": []},
        {"messages": [{}]},
        {"messages": [{"id": ""}]},
        {"messages": [{"id": 7}]},
        {"messages": [None]},
        {"messages": {"id": "wamid.x"}},
        {"messages": [{"id": "x" * 5000}]},
    ],
)
def test_a_success_that_names_no_message_is_ambiguous(provider: FakeMeta, content: Any) -> None:
    provider.fail_next(Fault(200, content))
    error = failure(provider)
    assert (error.code, error.ambiguous, error.retryable) == ("bad_answer", True, False)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("0", 0.0), ("86400", http.MAX_RETRY_AFTER), ("-5", None), ("soon", None), (None, None)],
)
def test_throttling_says_how_long_to_wait(provider: FakeMeta, header: str | None, seconds: float | None) -> None:
    provider.throttle_next(retry_after=header)
    error = failure(provider)
    assert (error.code, error.throttled, error.retry_after) == ("130429", "account", seconds)


def test_a_refused_token_breaks_the_account_and_is_not_repeated(provider: FakeMeta) -> None:
    with pytest.raises(SendError) as caught:
        ADAPTER.send(account(provider, credentials={"access_token": "EAAB-other"}), MESSAGE)
    assert (caught.value.code, caught.value.account_broken) == ("190", True)
    assert "EAAB-other" not in str(caught.value)  # Meta's own sentence quotes it


@pytest.mark.parametrize("token", ["a\nb", "tök€n", "\ud83d", " "])
def test_a_token_that_no_header_takes_breaks_the_account(provider: FakeMeta, token: str) -> None:
    with pytest.raises(SendError) as caught:
        ADAPTER.send(account(provider, credentials={"access_token": token}), MESSAGE)
    assert (caught.value.code in ("invalid_request", "190"), caught.value.account_broken) == (True, True)
    assert caught.value.__cause__ is None
    assert provider.sent == []


@pytest.mark.parametrize(
    "base_url", ["", "nonsense", "ftp://127.0.0.1", "http://", "http://[", "http://a b/", "file:///x"]
)
def test_a_base_url_that_is_none_breaks_the_account(provider: FakeMeta, base_url: str) -> None:
    with pytest.raises(SendError) as caught:
        ADAPTER.send(account(provider, base_url=base_url), MESSAGE)
    assert (caught.value.code, caught.value.account_broken) == ("invalid_request", True)


def test_an_address_stays_one_part_of_the_path(provider: FakeMeta) -> None:
    with pytest.raises(SendError):
        ADAPTER.send(account(provider, address="../me?x=#"), MESSAGE)
    assert provider.requests[0].path == "/v25.0/..%2Fme%3Fx%3D%23/messages"


def test_meta_would_refuse_a_longer_text(provider: FakeMeta) -> None:
    limit = ADAPTER.text_limit
    send(provider, OutboundMessage("msg_1", "51999999999", AddressKind.PHONE, "x" * limit))
    error = failure(provider, OutboundMessage("msg_2", "51999999999", AddressKind.PHONE, "x" * (limit + 1)))
    assert (error.code, error.retryable) == ("100", False)

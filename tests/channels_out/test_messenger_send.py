"""Messenger's send route, over real HTTP against the fake of Meta."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from channels_out.adapters.messenger import MessengerAdapter
from channels_out.contract import Account, InboundReference, OutboundMessage
from channels_out.errors import SendError
from channels_out.kinds import AddressKind
from channels_out.simulators.meta import graph_error
from tests.fakes.messenger import PAGE, PERSON, FakeMessenger
from tests.fakes.server import Fault

ADAPTER = MessengerAdapter()
MESSAGE = OutboundMessage("msg_1", PERSON, AddressKind.PSID, "Hello")

TRANSIENT = [1, 2, 1200]
THROTTLED = [4, 32, 613, 80006]
BROKEN = [102, 190]
FINAL = [3, 10, 100, 200, 230, 299, 368, 551, 2022, 10900, 10903, 10904, 999999]


@pytest.fixture
def provider() -> Iterator[FakeMessenger]:
    with FakeMessenger() as provider:
        yield provider


def account(provider: FakeMessenger, **changes: Any) -> Account:
    return Account(
        **{"address": PAGE, "credentials": {"access_token": "token"}, "base_url": provider.base_url} | changes
    )


def failure(provider: FakeMessenger) -> SendError:
    with pytest.raises(SendError) as caught:
        ADAPTER.send(account(provider), MESSAGE)
    return caught.value


def test_it_sends_what_messenger_wants(provider: FakeMessenger) -> None:
    result = ADAPTER.send(account(provider), MESSAGE)
    (request,) = provider.requests
    assert result.provider_message_id == provider.sent[0].mid
    assert request.path == f"/v25.0/{PAGE}/messages"  # and no token in it: paths end up in logs
    assert request.headers["authorization"] == "Bearer token"
    assert request.json() == {
        "messaging_type": "RESPONSE",
        "recipient": {"id": PERSON},
        "message": {"text": "Hello", "metadata": "msg_1"},
    }


@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize("code", TRANSIENT + THROTTLED + BROKEN + FINAL)
def test_the_code_says_what_an_error_means_even_in_a_200(provider: FakeMessenger, code: int, status: int) -> None:
    if code == 999999 and status == 500:
        return  # a code that nobody knows: then the status counts
    provider.error_next(code, status)
    error = failure(provider)
    assert error.code == str(code)
    assert error.retryable == (code in [*TRANSIENT, *THROTTLED])
    assert error.throttled == ("account" if code in THROTTLED else "")
    assert error.account_broken == (code in BROKEN)
    assert not error.ambiguous
    assert not error.outside_window


@pytest.mark.parametrize(
    ("code", "subcode", "outside", "sentence"),
    [
        (10, 2018278, True, "More than 24 hours"),
        (10, 2018065, True, "More than 24 hours"),
        (10, 2534022, True, "More than 24 hours"),
        (10, 2018108, False, "development mode"),
        (100, 2018001, False, "no such person"),
        (551, 1545041, False, "cannot be written to"),
        (200, 1545041, False, "cannot be written to"),
    ],
)
def test_the_subcode_says_more(provider: FakeMessenger, code: int, subcode: int, outside: bool, sentence: str) -> None:
    provider.error_next(code, subcode=subcode)
    error = failure(provider)
    assert (error.code, error.outside_window, error.retryable) == (str(code), outside, False)
    assert sentence in str(error)


@pytest.mark.parametrize(
    ("status", "content", "expected"),
    [
        (400, {"error": {"code": 77, "is_transient": True}}, ("77", True, False)),
        (400, {"error": "Bad request"}, ("http_400", False, False)),
        (200, {"error": "Bad request"}, ("http_200", False, False)),
        (401, {}, ("http_401", False, True)),
        (200, {"recipient_id": PERSON}, ("bad_answer", False, False)),
    ],
)
def test_without_a_known_code_the_status_says_it(
    provider: FakeMessenger, status: int, content: Any, expected: tuple[str, bool, bool]
) -> None:
    provider.fail_next(Fault(status, content))
    error = failure(provider)
    assert (error.code, error.retryable, error.account_broken) == expected


def test_messengers_own_words_go_nowhere(provider: FakeMessenger) -> None:
    provider.fail_next(Fault(400, graph_error(190, "Malformed access token EAAB-secret")))
    assert "EAAB-secret" not in str(failure(provider))


def test_it_marks_as_seen_and_shows_that_it_writes(provider: FakeMessenger) -> None:
    for typing in (True, False):
        ADAPTER.mark_read(account(provider), InboundReference("m_in1", PERSON), typing=typing)
    assert provider.actions == [(PERSON, "mark_seen"), (PERSON, "typing_on"), (PERSON, "mark_seen")]
    provider.error_next(100)
    with pytest.raises(SendError):
        ADAPTER.mark_read(account(provider), InboundReference("m_in1", PERSON), typing=False)


def test_its_credentials_can_be_checked(provider: FakeMessenger) -> None:
    assert ADAPTER.check(account(provider)) == "The shop's page"
    for changes, code in [
        ({"credentials": {"access_token": "wrong"}}, "190"),
        ({"credentials": {}}, "no_credentials"),
        ({"address": "999"}, "100"),
    ]:
        with pytest.raises(SendError) as caught:
            ADAPTER.check(account(provider, **changes))
        assert (caught.value.code, caught.value.account_broken) == (code, True)
    assert provider.sent == []

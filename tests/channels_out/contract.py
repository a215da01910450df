"""The contract of every adapter. A provider's test class inherits the parts that apply and gives its payloads.

    class TestWhatsAppContract(WebhookContract, SendContract): ...
    class TestSandboxContract(AdapterContract): ...

Payloads go in as bytes and events come out; nothing here knows a provider.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from channels_out import contract, http, registry
from channels_out.contract import Account, Adapter, InboundRequest, OutboundMessage
from channels_out.errors import InboundError, SendError
from channels_out.events import Event, InboundMessage, Receipt, Unhandled, WatermarkReceipt
from channels_out.kinds import AddressKind, Channel, ReceiptStatus
from channels_out.raw_claims import MOST_CLAIMS
from channels_out.splitting import UNITS
from tests.fakes.server import FakeServer, Fault
from tests.sizes import times

INHERITED = [HealthCheck.differing_executors]  # each provider's class runs the same properties
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")  # and not a backslash that somebody wrote

REASONS = {"not_a_turn", "unknown_type", "malformed", "echo"}

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("\x00\ud83d")
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
HOSTILE_BODIES = {
    "nothing": b"",
    "no JSON": b"<html>",
    "no UTF-8": b'{"entry": ["\xff\xfe"]}',
    "a string": b'"text"',
    "null": b"null",
    "an array": b"[]",
    "an empty object": b"{}",
    "half of it": b'{"entry": [',
    "arrays without end": b"[" * 100_000,
    "deep arrays": b"[" * 900 + b"]" * 900,
    "deep objects": b'{"entry":' * 50_000 + b"1" + b"}" * 50_000,
    "three megabytes of junk": b"x" * 3_000_000,
    "a number without end": b'{"entry": ' + b"9" * 10_000 + b"}",
    "infinity": b'{"entry": [1e999, -Infinity, NaN]}',
}


def storable(value: Any) -> bool:
    """Return True if PostgreSQL accepts it as text or jsonb, and every JSON writer can write it."""
    written = orjson.dumps(value)  # refuses unpaired surrogates and deep nesting
    json.dumps(value, allow_nan=False)
    return not _NUL.search(written)


def check(event: Event) -> None:
    """Assert the rules for every event of every provider."""
    assert len(event.account) <= 255
    if isinstance(event, InboundMessage):
        assert event.account
        assert event.text.strip()
        assert 0 < len(event.message_id) <= 255
        assert 0 < len(event.sender.address) <= 255
        assert (event.sender.kind, event.sender.address) not in event.sender.aliases
        assert event.sender.name is None or 0 < len(event.sender.name) <= 200
        assert storable([event.account, event.message_id, event.sender.address, event.sender.name, event.text])
        assert storable([event.kind, event.metadata])
    elif isinstance(event, Receipt):
        assert event.account
        assert 0 < len(event.provider_message_id) <= 255
        assert event.status in ReceiptStatus
        assert storable([event.provider_message_id, event.our_message_id, event.code, event.reason])
    elif isinstance(event, WatermarkReceipt):
        assert event.account
        assert 0 < len(event.sender) <= 255
        assert event.status in (ReceiptStatus.DELIVERED, ReceiptStatus.READ)
        assert storable([event.account, event.sender])
    else:
        assert event.reason in REASONS
        assert 0 < len(event.kind) <= 64
        assert storable([event.account, event.kind, event.raw, event.message_id])


class AdapterContract(ABC):
    """The contract of every adapter."""

    adapter: ClassVar[Adapter]

    def test_it_is_registered_under_its_name(self) -> None:
        assert type(registry.adapter_for(self.adapter.provider, self.adapter.channel)) is type(self.adapter)

    def test_its_limits_are_sane(self) -> None:
        assert self.adapter.channel in Channel
        assert self.adapter.text_limit >= 100
        assert self.adapter.limit_unit in UNITS

    def test_it_does_not_recognise_a_request_without_its_marks(self) -> None:
        for body in (b"", b"{}", b"To=1&From=2"):
            assert not self.adapter.recognises(InboundRequest("POST", "https://convo.example/", {}, {}, body))

    def test_an_unsigned_request_does_not_verify(self) -> None:
        credentials = dict.fromkeys(self.adapter.credentials, "secret")
        request = InboundRequest("POST", "https://convo.example/", {}, {}, b"{}")
        with pytest.raises(InboundError) as caught:
            self.adapter.verify(request, Account("1", credentials))
        assert caught.value.code == "invalid_signature"

    def test_without_credentials_nothing_is_sent(self) -> None:
        if not self.adapter.credentials:
            return
        with pytest.raises(SendError) as caught:
            self.adapter.send(Account("1"), OutboundMessage("m", "51999999999", AddressKind.PHONE, "Hello"))
        assert (caught.value.code, caught.value.account_broken) == ("no_credentials", True)
        assert not caught.value.retryable
        assert not caught.value.ambiguous


class WebhookContract(AdapterContract):
    """The contract of adapters with webhooks. `SECRET` is the credential that signs, or without SIGNS_BODY a header."""

    SECRET: ClassVar[str]
    ADDRESS: ClassVar[str]
    SIGNS_BODY: ClassVar[bool] = True
    LONGEST_BODY: ClassVar[int] = 3_000_000

    @abstractmethod
    def request(self, body: bytes, secret: str) -> InboundRequest:
        """Return the request with the body as the provider posts it, signed."""

    @abstractmethod
    def bad_signatures(self, request: InboundRequest) -> Iterator[Mapping[str, str]]:
        """Return the request's headers with the signature missing, cut, doubled, in other letters …"""

    @abstractmethod
    def text_body(self) -> bytes:
        """Return one text message to ADDRESS."""

    @abstractmethod
    def batch(self) -> tuple[bytes, list[type[Event]], list[str]]:
        """Return a body with several events of all types, their types in order, and the addresses in it."""

    # --- signatures

    def account(self, secret: str) -> Account:
        return Account(self.ADDRESS, {self.SECRET: secret})

    def refused(self, request: InboundRequest, account: Account) -> bool:
        try:
            self.adapter.verify(request, account)
        except InboundError as error:
            return error.code == "invalid_signature"
        return False

    def test_the_right_secret_verifies(self) -> None:
        request = self.request(self.text_body(), "secret")
        assert self.adapter.recognises(request)
        self.adapter.verify(request, self.account("secret"))

    def test_another_secret_does_not(self) -> None:
        assert self.refused(self.request(self.text_body(), "other"), self.account("secret"))

    @pytest.mark.parametrize("secrets", ["old,new", "new old", " new ,\n old ", "older\tnew"])
    def test_any_of_several_secrets_verifies(self, secrets: str) -> None:
        self.adapter.verify(self.request(self.text_body(), "new"), self.account(secrets))
        assert self.refused(self.request(self.text_body(), "other"), self.account(secrets))
        assert self.refused(self.request(self.text_body(), secrets), self.account(secrets))

    @pytest.mark.parametrize("empty", ["", " ", ",", ", ,"])
    def test_an_account_without_secret_verifies_nothing(self, empty: str) -> None:
        for secret in ("", empty, "secret"):
            assert self.refused(self.request(self.text_body(), secret), self.account(empty))
        assert self.refused(self.request(self.text_body(), ""), Account(self.ADDRESS))

    def test_a_changed_body_does_not_verify(self) -> None:
        if not self.SIGNS_BODY:
            return
        request = self.request(self.text_body(), "secret")
        for body in (request.body + b" ", request.body[:-1], b"", request.body.replace(b"e", b"E", 1)):
            changed = InboundRequest(request.method, request.url, request.headers, request.query, body)
            assert self.refused(changed, self.account("secret"))

    def test_a_missing_or_mangled_signature_does_not_verify(self) -> None:
        request = self.request(self.text_body(), "secret")
        for headers in self.bad_signatures(request):
            changed = InboundRequest(request.method, request.url, headers, request.query, request.body)
            assert self.refused(changed, self.account("secret")), headers

    # --- payloads

    def events(self, body: bytes) -> list[Event]:
        """Return the events, or none if the adapter refuses the body; any other exception fails the test."""
        request = self.request(body, "secret")
        try:
            self.adapter.addresses(request)
            events = self.adapter.parse(request)
        except InboundError as error:
            assert error.code == "malformed"
            return []
        for event in events:
            check(event)
        return events

    def test_a_text_becomes_a_message(self) -> None:
        (event,) = self.events(self.text_body())
        assert isinstance(event, InboundMessage)
        assert event.account == self.ADDRESS
        assert self.adapter.addresses(self.request(self.text_body(), "secret")) == [self.ADDRESS]

    def test_it_finds_the_accounts_without_parsing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        batch, _, addresses = self.batch()
        text, several = (self.request(body, "secret") for body in (self.text_body(), batch))
        monkeypatch.setattr(contract, "load_json", lambda _: pytest.fail("parsed"))
        assert self.ADDRESS in self.adapter.claimed(text)
        assert set(addresses) <= set(self.adapter.claimed(several))

    @pytest.mark.parametrize("name", HOSTILE_BODIES)
    def test_a_hostile_body_claims_nothing_or_little(self, name: str) -> None:
        assert len(self.adapter.claimed(self.request(HOSTILE_BODIES[name], "secret"))) <= MOST_CLAIMS

    def test_nothing_of_a_batch_is_lost(self) -> None:
        body, types, addresses = self.batch()
        assert [type(event) for event in self.events(body)] == types
        assert self.adapter.addresses(self.request(body, "secret")) == addresses

    def test_what_is_unhandled_can_be_replayed(self) -> None:
        body, _, _ = self.batch()
        for event in self.events(body):
            if isinstance(event, Unhandled):
                assert self.adapter.parse(self.adapter.replayed(json.loads(orjson.dumps(event.raw)))) == [event]

    def test_a_request_that_was_kept_gives_the_same_events_again(self) -> None:
        for body in (self.text_body(), self.batch()[0]):
            request = self.request(body, "secret")
            events = self.adapter.parse(request)
            kept = json.dumps(self.adapter.keep(request))
            assert self.adapter.parse(self.adapter.replayed(json.loads(kept))) == events
            for address in self.adapter.addresses(request):
                part = self.adapter.parse(self.adapter.replayed(self.adapter.keep(request, address)))
                assert [e for e in part if e.account == address] == [e for e in events if e.account == address]

    @pytest.mark.parametrize("name", HOSTILE_BODIES)
    def test_a_hostile_body_is_refused_or_kept(self, name: str) -> None:
        for event in self.events(HOSTILE_BODIES[name]):
            assert isinstance(event, Unhandled)

    def test_the_longest_body_is_read(self) -> None:
        body = self.text_body()
        (event,) = self.events(body + b" " * (self.LONGEST_BODY - len(body)))
        assert isinstance(event, InboundMessage)

    @settings(max_examples=times(60, 800), deadline=None, suppress_health_check=INHERITED)
    @given(payload=ANYTHING)
    def test_no_json_breaks_it(self, payload: Any) -> None:
        self.events(json.dumps(payload).encode())

    @settings(max_examples=times(120, 1_600), deadline=None, suppress_health_check=[HealthCheck.too_slow, *INHERITED])
    @given(data=st.data())
    def test_no_change_to_a_genuine_payload_breaks_it(self, data: st.DataObject) -> None:
        payload = json.loads(data.draw(st.sampled_from(self.genuine_bodies())))
        for _ in range(data.draw(st.integers(1, 3))):
            _mutate(payload, data)
        self.events(json.dumps(payload).encode())

    def genuine_bodies(self) -> list[bytes]:
        """Return bodies to mutate."""
        return [self.text_body(), self.batch()[0]]

    @settings(max_examples=times(40, 400), deadline=None, suppress_health_check=INHERITED)
    @given(junk=st.binary(max_size=200), at=st.floats(0, 1))
    def test_no_bytes_break_it(self, junk: bytes, at: float) -> None:
        body = self.text_body()
        place = int(at * len(body))
        self.events(junk)
        self.events(body[:place] + junk + body[place:])


def _mutate(payload: Any, data: st.DataObject) -> None:
    """Replace one value somewhere in the payload by anything, or delete it."""
    places: list[tuple[Any, Any]] = []
    holders = [payload]
    while holders:
        holder = holders.pop()
        if isinstance(holder, dict | list):
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            places += [(holder, key) for key in keys]
            holders += [holder[key] for key in keys]
    if not places:
        return
    holder, key = data.draw(st.sampled_from(places))
    if data.draw(st.booleans()):
        holder[key] = data.draw(ANYTHING)
    else:
        del holder[key]


class SendContract(AdapterContract):
    """The contract of adapters that send over HTTP. The provider's end is a FakeServer, which fails in every way."""

    @abstractmethod
    def fake(self) -> FakeServer:
        """Return the provider's end."""

    @abstractmethod
    def account_at(self, provider: FakeServer) -> Account:
        """Return an account with everything it needs, at that end."""

    @abstractmethod
    def accepted(self, provider: FakeServer) -> list[str]:
        """Return the texts that the provider accepted."""

    def message(self, text: str = "Hello", message_id: str = "msg_1") -> OutboundMessage:
        """Return a message to a person on this channel."""
        return OutboundMessage(message_id, "51999999999", AddressKind.PHONE, text)

    @pytest.fixture
    def provider(self) -> Iterator[FakeServer]:
        with self.fake() as provider:
            yield provider

    def failure(self, provider: FakeServer, fault: Fault) -> SendError:
        provider.fail_next(fault)
        with pytest.raises(SendError) as caught:
            self.adapter.send(self.account_at(provider), self.message())
        error = caught.value
        assert not error.ambiguous or not error.retryable, "it would be sent again though it may have gone"
        for word in ("Hello", "51999999999", *self.account_at(provider).credentials.values()):
            assert word not in f"{error} {error.code} {error.__cause__}"
        return error

    def test_it_sends(self, provider: FakeServer) -> None:
        result = self.adapter.send(self.account_at(provider), self.message())
        assert result.provider_message_id
        assert self.accepted(provider) == ["Hello"]

    def test_any_text_arrives_as_it_is(self, provider: FakeServer) -> None:
        texts = ["línea\nlínea", '{"json": "\\"}', "👨‍👩‍👧 مرحبا", "<b>&amp;</b>", "x" * self.adapter.text_limit]
        for text in texts:
            self.adapter.send(self.account_at(provider), self.message(text))
        assert self.accepted(provider) == texts

    def test_what_no_provider_takes_is_replaced(self, provider: FakeServer) -> None:
        self.adapter.send(self.account_at(provider), self.message("half \ud83d, nul \x00."))
        assert self.accepted(provider) == ["half \ufffd, nul \ufffd."]

    def test_throttling_says_how_long(self, provider: FakeServer) -> None:
        error = self.failure(provider, Fault(status=429, headers={"Retry-After": "7"}))
        assert (error.retryable, error.retry_after, error.throttled) == (True, 7.0, "account")
        assert self.accepted(provider) == []

    @pytest.mark.parametrize("status", [502, 504])
    def test_a_gateway_that_lost_the_answer_is_ambiguous(self, provider: FakeServer, status: int) -> None:
        error = self.failure(provider, Fault(status=status, content=b"<html>"))
        assert (error.code, error.retryable, error.ambiguous) == (f"http_{status}", False, True)

    @pytest.mark.parametrize("status", [500, 503])
    def test_a_fault_of_the_provider_may_pass(self, provider: FakeServer, status: int) -> None:
        error = self.failure(provider, Fault(status=status, content=b"<html>", headers={"Retry-After": "3"}))
        assert (error.code, error.retryable, error.retry_after) == (f"http_{status}", True, 3.0)

    def test_an_error_answer_that_breaks_off_is_still_an_error(self, provider: FakeServer) -> None:
        error = self.failure(provider, Fault(status=500, content=b"x" * 1000, cut="body"))
        assert (error.code, error.retryable) == ("http_500", True)

    @pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b"{}", b'"x"', b"[" * 100_000, b"\xff"])
    def test_a_success_without_sense_is_ambiguous(self, provider: FakeServer, content: bytes) -> None:
        error = self.failure(provider, Fault(status=200, content=content))
        assert (error.code, error.ambiguous) == ("bad_answer", True)

    def test_an_endless_answer_is_not_read(self, provider: FakeServer) -> None:
        error = self.failure(provider, Fault(status=200, content=b"x" * (http.MAX_ANSWER_BYTES + 1)))
        assert (error.code, error.ambiguous) == ("bad_answer", True)

    def test_a_redirect_is_not_followed(self, provider: FakeServer) -> None:
        elsewhere = {"Location": provider.url + "/elsewhere"}
        error = self.failure(provider, Fault(status=307, headers=elsewhere))
        assert (error.code, error.retryable, error.ambiguous) == ("http_307", False, False)
        assert len(provider.requests) == 1

    def test_no_answer_in_time_is_ambiguous(self, provider: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(http, "TIMEOUT", (1.0, 0.1))
        error = self.failure(provider, Fault(hang=30))
        assert (error.code, error.ambiguous) == ("timeout", True)
        assert self.accepted(provider) == ["Hello"]

    @pytest.mark.parametrize("cut", ["before", "after", "body"])
    @pytest.mark.parametrize("reset", [False, True])
    def test_a_cut_answer_is_ambiguous(self, provider: FakeServer, cut: Any, reset: bool) -> None:
        error = self.failure(provider, Fault(cut=cut, reset=reset))
        assert (error.code, error.ambiguous) == ("connection_lost", True)
        assert len(self.accepted(provider)) == (0 if cut == "before" else 1)

    def test_a_refused_connection_never_left(self, provider: FakeServer) -> None:
        account = self.account_at(provider)
        provider.close()
        with pytest.raises(SendError) as caught:
            self.adapter.send(account, self.message())
        assert (caught.value.code, caught.value.retryable) == ("connect", True)

    def test_after_a_failure_the_next_message_goes(self, provider: FakeServer) -> None:
        for fault in (Fault(cut="before"), Fault(cut="body"), Fault(status=500), Fault(status=200, content=b"x")):
            self.failure(provider, fault)
            self.adapter.send(self.account_at(provider), self.message("again"))
        assert self.accepted(provider).count("again") == 4
